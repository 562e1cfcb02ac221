package format

import (
	"os"

	"github.com/slipway-build/slipway/exporter/disk"
	"github.com/slipway-build/slipway/exporter/segment"
)

func init() {
	register(
		Format{
			Name:        "raw",
			Description: "GPT disk that boots under BIOS and UEFI",
			Suffixes:    []string{".raw"},
			Segments:    segment.CPIO,
			Firmware:    BIOS | UEFI,
			Options:     Size | Map | Reserve | PCRs,
			writer:      diskWriter{container: rawFile{}},
		},
		Format{
			Name:        "raw-bios",
			Description: "GPT disk that boots under BIOS",
			Suffixes:    []string{"-bios.img"},
			Segments:    segment.CPIO,
			Firmware:    BIOS,
			Options:     Size | Map | Reserve,
			writer:      diskWriter{container: rawFile{}},
		},
		Format{
			Name:        "raw-efi",
			Description: "GPT disk with a unified kernel image, which UEFI boots",
			Suffixes:    []string{"-efi.img"},
			Segments:    segment.CPIO,
			Firmware:    UEFI,
			Options:     Size | Map | Reserve | PCRs,
			writer:      diskWriter{uki: true, container: rawFile{}},
		},
		Format{
			Name:        "aws",
			Description: "raw in whole GiB, for EC2",
			Suffixes:    []string{".raw"},
			Segments:    segment.CPIO,
			Firmware:    BIOS | UEFI,
			Options:     Size | Map | Reserve | PCRs,
			writer:      diskWriter{unit: gibibyte, container: rawFile{}},
		},
	)
}

// rawFile is a disk without a container.
type rawFile struct{}

func (rawFile) encode(f *os.File, d disk.Disk, _ *job) error { return d.WriteFile(f) }
