package format

import (
	"github.com/slipway-build/slipway/exporter/disk"
	"github.com/slipway-build/slipway/exporter/segment"
)

func init() {
	register(Format{
		Name:        "uki",
		Description: "unified kernel image: a program for UEFI with all that it boots",
		Suffixes:    []string{".efi"},
		Segments:    segment.CPIO,
		Firmware:    UEFI,
		Options:     Reserve | PCRs,
		writer:      ukiWriter{},
	})
}

type ukiWriter struct{}

func (ukiWriter) write(j *job) error {
	contents, loaders, err := j.kernelAndInitrd()
	if err != nil {
		return err
	}
	image, err := disk.NewUKI(contents, loaders.Stub, disk.Packed)
	if err != nil {
		return err
	}
	return j.createOnly(image.WriteFile)
}
