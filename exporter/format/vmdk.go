package format

import (
	"encoding/binary"
	"os"

	"github.com/slipway-build/slipway/exporter/disk"
	"github.com/slipway-build/slipway/exporter/segment"
	"github.com/slipway-build/slipway/exporter/vmdk"
)

func init() {
	register(Format{
		Name:        "vmdk",
		Description: "raw as a stream-optimized VMDK, for VMware",
		Suffixes:    []string{".vmdk"},
		Segments:    segment.CPIO,
		Firmware:    BIOS | UEFI,
		Options:     Size,
		writer:      diskWriter{container: vmdkFile{}},
	})
}

type vmdkFile struct{}

func (vmdkFile) encode(f *os.File, d disk.Disk, j *job) error {
	name := j.in.Name + j.format.Suffixes[0]
	return vmdk.Write(f, d.Content, name, binary.LittleEndian.Uint32(d.ID[:]))
}
