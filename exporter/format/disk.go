package format

import (
	"os"

	"github.com/slipway-build/slipway/exporter/disk"
	"github.com/slipway-build/slipway/exporter/diskmap"
	"github.com/slipway-build/slipway/exporter/sparse"
)

const gibibyte = 1 << 30

// diskWriter writes a disk in a container.
type diskWriter struct {
	uki       bool  // UEFI starts a unified kernel image without a boot loader
	unit      int64 // the smallest disk is rounded up to a multiple of this many bytes
	container container
}

// container is a file format for disks.
type container interface {
	// encode writes d to f, which is empty.
	encode(f *os.File, d disk.Disk, j *job) error
}

func (w diskWriter) write(j *job) error {
	d, err := j.disk(w.uki, w.unit)
	if err != nil {
		return err
	}
	j.warnGRUB(d.BIOSCmdline)
	if err := j.createOnly(func(f *os.File) error { return w.container.encode(f, d, j) }); err != nil {
		return err
	}
	return j.writeMap(d)
}

// writeMap writes the map of a disk if the user wants one.
func (j *job) writeMap(d disk.Disk) (err error) {
	if !j.in.Map || !j.format.Options.Has(Map) {
		return nil
	}
	m := d.Map()
	if j.in.Reserve > 0 {
		reserved, err := disk.FindReserved(d, d.Size)
		if err != nil {
			return err
		}
		for _, a := range reserved.Areas {
			m.Reserved = append(m.Reserved, diskmap.Area{Kind: string(a.Kind), Offset: a.Offset, Length: a.Size})
		}
	}
	if m.Digests, err = d.Digests(); err != nil {
		return err
	}
	return j.create(j.format.Suffixes[0]+mapSuffix, func(f *os.File) error { return m.Write(f) })
}

// mapSuffix follows the name of a disk in the name of its map.
const mapSuffix = ".map"

// disk lays out a disk of the size that the input asks for, or otherwise the
// smallest one that fits, rounded up to a multiple of unit bytes. A unit of 0
// does not round.
func (j *job) disk(uki bool, unit int64) (disk.Disk, error) {
	contents, loaders, err := j.kernelAndInitrd()
	if err != nil {
		return disk.Disk{}, err
	}
	var boot disk.BootMethod
	switch j.format.FirmwareOn(j.in.Architecture) {
	case BIOS | UEFI:
		boot = disk.Hybrid
	case BIOS:
		boot = disk.BIOS
	case UEFI:
		boot = disk.UEFI
		if uki {
			boot = disk.UKI
		}
	}
	d, err := disk.New(boot, contents, loaders, j.in.Size, j.in.Time)
	if err != nil || j.in.Size > 0 || unit == 0 || d.Size%unit == 0 {
		return d, err
	}
	return disk.New(boot, contents, loaders, sparse.RoundUp(d.Size, unit), j.in.Time)
}
