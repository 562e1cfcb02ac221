package format

import (
	"os"

	"github.com/slipway-build/slipway/exporter/disk"
	"github.com/slipway-build/slipway/exporter/gpt"
	"github.com/slipway-build/slipway/exporter/segment"
	"github.com/slipway-build/slipway/exporter/vhd"
)

func init() {
	register(
		Format{
			Name:        "vhd",
			Description: "raw as a fixed VHD, for Azure",
			Suffixes:    []string{".vhd"},
			Segments:    segment.CPIO,
			Firmware:    BIOS | UEFI,
			Options:     Size,
			writer:      diskWriter{container: fixedVHD{}},
		},
		Format{
			Name:        "dynamic-vhd",
			Description: "raw as a dynamic VHD, for Hyper-V",
			Suffixes:    []string{".vhd"},
			Segments:    segment.CPIO,
			Firmware:    BIOS | UEFI,
			Options:     Size,
			writer:      diskWriter{container: dynamicVHD{}},
		},
	)
}

type fixedVHD struct{}

func (fixedVHD) encode(f *os.File, d disk.Disk, j *job) error {
	image, err := vhd.Fixed(d.Content, gpt.Derive("VHD", d.ID[:]), j.in.Time)
	if err != nil {
		return err
	}
	return image.WriteFile(f)
}

type dynamicVHD struct{}

func (dynamicVHD) encode(f *os.File, d disk.Disk, j *job) error {
	image, err := vhd.Dynamic(d.Content, gpt.Derive("VHD", d.ID[:]), j.in.Time)
	if err != nil {
		return err
	}
	return image.WriteFile(f)
}
