package main

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log"
	"math"
	"os"
	"os/exec"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/exporter/gpt"
	"github.com/slipway-build/slipway/exporter/mbr"

	"github.com/slipway-build/slipway/guest/blockdev"
)

// filesystems are the supported filesystems, with the arguments of their mkfs
// and the longest label in bytes.
var filesystems = map[string]struct {
	args     []string
	maxLabel int
}{
	"ext4":  {[]string{"-q", "-F"}, 16},
	"xfs":   {[]string{"-q", "-f"}, 12},
	"btrfs": {[]string{"-q", "-f"}, 255},
}

// A request is what format should make.
type request struct {
	kind, label string
	table       string // dos, gpt, or "" for dos if it supports the size of the disk
	force       bool
}

func (r request) check() error {
	f, ok := filesystems[r.kind]
	switch {
	case !ok:
		return fmt.Errorf("-type %s: must be ext4, xfs or btrfs", r.kind)
	case len(r.label) > f.maxLabel:
		return fmt.Errorf("-label %s: must have at most %[3]d bytes for %[2]s", r.label, r.kind, f.maxLabel)
	case !slices.Contains([]string{"", "dos", "gpt"}, r.table):
		return fmt.Errorf("-partition %s: must be dos or gpt", r.table)
	}
	return nil
}

// formatCommand makes a filesystem in one partition of an empty disk: the given
// one, or the first. It never changes a disk that is not empty, except with
// -force. If the wanted filesystem exists, it does nothing.
func formatCommand(flags *flag.FlagSet, args []string) error {
	var r request
	flags.StringVar(&r.label, "label", "", "`LABEL` of the filesystem")
	flags.StringVar(&r.kind, "type", "ext4", "`TYPE` of the filesystem: ext4, xfs or btrfs")
	flags.StringVar(&r.table, "partition", "", "partition `TABLE`: dos or gpt (default dos; gpt for more than 2 TiB)")
	flags.BoolVar(&r.force, "force", false, "format DEVICE even if it is not empty")
	flags.Bool("verbose", false, "has no effect")
	timeout := timeoutFlag(flags)
	names, err := parse(flags, args, "[DEVICE]", 0, 1)
	if err != nil {
		return err
	}
	if err := r.check(); err != nil {
		return err
	}
	var target device
	var action action
	err = await(*timeout, func() error {
		target, action, err = r.find(names)
		return err
	})
	if err != nil {
		return err
	}
	switch action {
	case refuse:
		return fmt.Errorf("%v, not %s: not formatted (-force overwrites it)", target, r.wanted())
	case keep:
		log.Printf("%v: nothing to do", target)
		return nil
	}
	return r.format(target)
}

func (r request) wanted() string {
	if r.label != "" {
		return fmt.Sprintf("%s %q", r.kind, r.label)
	}
	return r.kind
}

// find inspects the given disk, or else all disks, and returns the device to
// format.
func (r request) find(names []string) (device, action, error) {
	named := len(names) > 0
	if !named {
		var err error
		if names, err = blockdev.Physical(); err != nil {
			return device{}, 0, err
		}
	}
	var all []device
	for _, name := range names {
		d, err := inspect(name)
		if !named && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENOMEDIUM)) {
			continue // disappeared since it was listed, or a card reader without a card
		}
		if err != nil {
			return device{}, 0, err
		}
		all = append(all, d)
	}
	switch {
	case !named:
		return r.choose(all)
	case r.force:
		return all[0], create, nil
	}
	target, action := r.judge(all[0])
	return target, action, nil
}

// An action is what to do with a device.
type action int

const (
	refuse action = iota // it holds something else
	keep                 // it holds what is wanted
	create               // format it
)

// judge returns the action for one disk, and the part of it to act on.
func (r request) judge(d device) (device, action) {
	if d.empty {
		return d, create
	}
	if r.fits(d) {
		return d, keep
	}
	for _, p := range d.partitions {
		if r.fits(p.device) {
			return p.device, keep
		}
	}
	// The machine was switched off while it formatted the disk.
	if len(d.partitions) == 1 && d.partitions[0].empty {
		return d.partitions[0].device, create
	}
	return d, refuse
}

func (r request) fits(d device) bool {
	return d.content.Type == r.kind && (r.label == "" || d.content.Label == r.label)
}

// choose selects one of all disks. A disk with the wanted label comes before an
// empty one, and an empty one before a disk that has only the wanted type.
func (r request) choose(all []device) (device, action, error) {
	order := []action{create, keep}
	if r.label != "" {
		order = []action{keep, create}
	}
	for _, want := range order {
		for _, d := range all {
			if target, action := r.judge(d); action == want {
				return target, action, nil
			}
		}
	}
	err := errors.New("no disk is empty")
	if len(all) == 0 {
		err = errors.New("this machine has no disk")
	}
	for _, d := range all {
		err = fmt.Errorf("%w; %v", err, d)
	}
	return device{}, 0, err
}

// format makes the filesystem: in a new partition of a disk, or directly on any
// other device.
func (r request) format(d device) error {
	path := d.path
	if d.physical {
		if err := r.partition(path); err != nil {
			return fmt.Errorf("partition %s: %w", path, err)
		}
		d, err := inspect(path)
		if err != nil {
			return err
		}
		if len(d.partitions) == 0 {
			return fmt.Errorf("%s: the kernel does not show the new partition", path)
		}
		path = d.partitions[0].path
	}
	if err := mkfs(r.kind, r.label, path); err != nil {
		return err
	}
	log.Printf("formatted %s as %s", path, r.wanted())
	return nil
}

func mkfs(kind, label, path string) error {
	args := filesystems[kind].args
	if label != "" {
		args = append(slices.Clone(args), "-L", label)
	}
	if out, err := exec.Command("/sbin/mkfs."+kind, append(args, path)...).CombinedOutput(); err != nil {
		return fmt.Errorf("mkfs.%s %s: %w: %s", kind, path, err, out)
	}
	return nil
}

// partition writes a partition table with one partition that fills the disk.
func (r request) partition(path string) error {
	f, size, sector, err := openTable(path, os.O_RDWR|unix.O_EXCL)
	if err != nil {
		return err
	}
	defer f.Close()
	// Old content must not be recognized later.
	zeros := make([]byte, min(blockdev.EmptySize, size))
	for _, at := range []int64{0, size - int64(len(zeros))} {
		if _, err := f.WriteAt(zeros, at); err != nil {
			return err
		}
	}
	if err := writeTable(f, r.table, size, sector); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return unix.IoctlSetInt(int(f.Fd()), unix.BLKRRPART, 0)
}

// alignment is the offset of the partition in bytes, the same as with other
// tools.
const alignment = 1 << 20

// writeTable writes a partition table with new identifiers and one partition
// for Linux. Sizes are in bytes.
func writeTable(w io.WriterAt, kind string, size, sector int64) error {
	sectors := uint64(size / sector)
	first := uint64(alignment / sector)
	if sectors < 4*first {
		return fmt.Errorf("too small: %d bytes", size)
	}
	fitsDOS := sectors <= math.MaxUint32
	switch {
	case kind == "" && fitsDOS:
		kind = "dos"
	case kind == "":
		kind = "gpt"
	case kind == "dos" && !fitsDOS:
		return errors.New("too large for -partition dos: use gpt")
	}
	if kind == "dos" {
		var id [4]byte
		rand.Read(id[:])
		record := mbr.Table{ID: binary.LittleEndian.Uint32(id[:])}
		record.Partitions[0] = mbr.Partition{Type: mbr.TypeLinux, First: uint32(first), Sectors: uint32(sectors - first)}
		return writeMBR(w, record)
	}
	if sector != gpt.SectorSize {
		return fmt.Errorf("sectors of %d bytes: -partition gpt requires %d", sector, gpt.SectorSize)
	}
	table := gpt.Table{ID: randomGUID(), Sectors: sectors}
	table.Partitions = []gpt.Partition{{Type: gpt.TypeLinux, ID: randomGUID(), First: first, Last: table.LastUsable()}}
	return writeGPT(w, table)
}

func writeGPT(w io.WriterAt, table gpt.Table) error {
	image, err := table.Encode()
	if err != nil {
		return err
	}
	for _, run := range image.Runs {
		if _, err := io.Copy(io.NewOffsetWriter(w, run.Offset), io.NewSectionReader(run.Data, 0, run.Size)); err != nil {
			return err
		}
	}
	return nil
}

// randomGUID returns a UUID of version 4 (RFC 9562, 5.4). The version is in the
// third field, which is little-endian on disk.
func randomGUID() gpt.GUID {
	var g gpt.GUID
	rand.Read(g[:])
	g[7] = g[7]&0x0f | 0x40
	g[8] = g[8]&0x3f | 0x80
	return g
}

func writeMBR(w io.WriterAt, record mbr.Table) error {
	b, err := record.Encode()
	if err != nil {
		return err
	}
	_, err = w.WriteAt(b, 0)
	return err
}
