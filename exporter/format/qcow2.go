package format

import (
	"os"

	"github.com/slipway-build/slipway/exporter/disk"
	"github.com/slipway-build/slipway/exporter/qcow2"
	"github.com/slipway-build/slipway/exporter/segment"
)

func init() {
	register(
		Format{
			Name:        "qcow2",
			Description: "raw, for QEMU",
			Suffixes:    []string{".qcow2"},
			Segments:    segment.CPIO,
			Firmware:    BIOS | UEFI,
			Options:     Size,
			writer:      diskWriter{container: qcow2File{}},
		},
		Format{
			Name:        "qcow2-bios",
			Description: "raw-bios, for QEMU",
			Suffixes:    []string{".qcow2"},
			Segments:    segment.CPIO,
			Firmware:    BIOS,
			Options:     Size,
			writer:      diskWriter{container: qcow2File{}},
		},
		Format{
			Name:        "qcow2-efi",
			Description: "raw-efi, for QEMU",
			Suffixes:    []string{"-efi.qcow2"},
			Segments:    segment.CPIO,
			Firmware:    UEFI,
			Options:     Size,
			writer:      diskWriter{uki: true, container: qcow2File{}},
		},
	)
}

type qcow2File struct{}

func (qcow2File) encode(f *os.File, d disk.Disk, _ *job) error {
	image, err := qcow2.New(d.Content)
	if err != nil {
		return err
	}
	return image.WriteFile(f)
}
