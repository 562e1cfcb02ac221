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
)

// filesystems are what can be made, with the arguments of their mkfs and the longest label in bytes.
var filesystems = map[string]struct {
	args     []string
	maxLabel int
}{
	"ext4":  {[]string{"-q", "-F"}, 16},
	"xfs":   {[]string{"-q", "-f"}, 12},
	"btrfs": {[]string{"-q", "-f"}, 255},
}

// request is what format is told to make.
type request struct {
	kind, label string
	table       string // dos, gpt, or "": dos where it can hold the disk
	force       bool
}

func (r request) check() error {
	f, ok := filesystems[r.kind]
	switch {
	case !ok:
		return fmt.Errorf("-type %s: want ext4, xfs or btrfs", r.kind)
	case len(r.label) > f.maxLabel:
		return fmt.Errorf("-label %s: %s has room for %d bytes", r.label, r.kind, f.maxLabel)
	case !slices.Contains([]string{"", "dos", "gpt"}, r.table):
		return fmt.Errorf("-partition %s: want dos or gpt", r.table)
	}
	return nil
}

// formatCommand makes a filesystem on one partition of a disk that is empty: the one named, or else the first. It never touches a disk that holds
// anything, unless -force names it, and is content if what it shall make is there.
func formatCommand(flags *flag.FlagSet, args []string) error {
	var r request
	flags.StringVar(&r.label, "label", "", "`LABEL` of the filesystem")
	flags.StringVar(&r.kind, "type", "ext4", "`TYPE` of the filesystem: ext4, xfs or btrfs")
	flags.StringVar(&r.table, "partition", "", "partition `TABLE`: dos or gpt (default dos; gpt for more than 2 TiB)")
	flags.BoolVar(&r.force, "force", false, "format DEVICE anew, whatever it holds")
	flags.Bool("verbose", false, "has no effect: what matters is always told")
	timeout := timeoutFlag(flags)
	names, err := parse(flags, args, "[DEVICE]", 0, 1)
	if err != nil {
		return err
	}
	if err := r.check(); err != nil {
		return err
	}
	var target device
	var what verdict
	err = await(*timeout, func() error {
		target, what, err = r.find(names)
		return err
	})
	if err != nil {
		return err
	}
	switch what {
	case occupied:
		return fmt.Errorf("%v, not %s: nothing is formatted (-force destroys what is there)", target, r.wanted())
	case done:
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

// find looks at the disk that is named, or else at all.
func (r request) find(names []string) (device, verdict, error) {
	named := len(names) > 0
	if !named {
		var err error
		if names, err = physicalDisks(); err != nil {
			return device{}, 0, err
		}
	}
	var all []device
	for _, name := range names {
		d, err := look(name)
		if !named && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENOMEDIUM)) {
			continue // gone since it was listed, or a card reader without a card
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
		return all[0], wanting, nil
	}
	target, what := r.judge(all[0])
	return target, what, nil
}

// verdict is what is to be done with a device.
type verdict int

const (
	occupied verdict = iota // nothing: it holds something else
	done                    // nothing: it holds what is wanted
	wanting                 // it gets what is wanted
)

// judge decides about one disk, and which part of it is meant.
func (r request) judge(d device) (device, verdict) {
	if d.empty {
		return d, wanting
	}
	if r.fits(d) {
		return d, done
	}
	for _, p := range d.partitions {
		if r.fits(p.device) {
			return p.device, done
		}
	}
	// As it is left by a machine that was switched off while it formatted the disk.
	if len(d.partitions) == 1 && d.partitions[0].empty {
		return d.partitions[0].device, wanting
	}
	return d, occupied
}

func (r request) fits(d device) bool {
	return d.content.Type == r.kind && (r.label == "" || d.content.Label == r.label)
}

// choose decides among all disks: what has the label already comes before what is empty, and that before what has only the type.
func (r request) choose(all []device) (device, verdict, error) {
	order := []verdict{wanting, done}
	if r.label != "" {
		order = []verdict{done, wanting}
	}
	for _, want := range order {
		for _, d := range all {
			if target, what := r.judge(d); what == want {
				return target, what, nil
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

// format makes the filesystem: on a disk in a partition, on everything else right there.
func (r request) format(d device) error {
	path := d.path
	if d.physical {
		if err := r.partition(path); err != nil {
			return fmt.Errorf("partition %s: %w", path, err)
		}
		d, err := look(path)
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
	log.Printf("%s is now %s", path, r.wanted())
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

// partition gives a disk a table with one partition that fills it.
func (r request) partition(path string) error {
	f, size, sector, err := openTable(path, os.O_RDWR|unix.O_EXCL)
	if err != nil {
		return err
	}
	defer f.Close()
	// What was there must not be taken for something later.
	zeros := make([]byte, min(emptySize, size))
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

// alignment is where the partition begins, in bytes. All tools use this one.
const alignment = 1 << 20

// writeTable writes a partition table with one partition for Linux and new identifiers. A sector is in bytes.
func writeTable(w io.WriterAt, kind string, size, sector int64) error {
	sectors := uint64(size / sector)
	first := uint64(alignment / sector)
	if sectors < 4*first {
		return fmt.Errorf("%d bytes are too few", size)
	}
	fitsDOS := sectors <= math.MaxUint32
	switch {
	case kind == "" && fitsDOS:
		kind = "dos"
	case kind == "":
		kind = "gpt"
	case kind == "dos" && !fitsDOS:
		return errors.New("it is too large for -partition dos: use gpt")
	}
	if kind == "dos" {
		var id [4]byte
		rand.Read(id[:])
		record := mbr.Table{ID: binary.LittleEndian.Uint32(id[:])}
		record.Partitions[0] = mbr.Partition{Type: mbr.TypeLinux, First: uint32(first), Sectors: uint32(sectors - first)}
		return writeMBR(w, record)
	}
	if sector != gpt.SectorSize {
		return fmt.Errorf("its sectors have %d bytes: -partition gpt needs %d", sector, gpt.SectorSize)
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

// randomGUID is a UUID of version 4 (RFC 9562, 5.4); the version is in the third field, which is little-endian on disk.
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
