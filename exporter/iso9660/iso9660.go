// Package iso9660 writes and reads ISO 9660 file systems.
//
// Formats: ECMA-119, 4th edition (ISO 9660), with the System Use Sharing
// Protocol 1.12 and the Rock Ridge Interchange Protocol 1.12 for POSIX names, owners
// and modes, and El Torito 1.0 for booting. Layout in sectors of 2048 bytes:
//
//	0–15     system area, for the caller
//	16       primary volume descriptor
//	17       boot record, if the volume is bootable
//	…        volume descriptor set terminator
//	…        boot catalog, if the volume is bootable
//	…        path tables, little-endian, then big-endian
//	…        directories, in the order of the path tables
//	…        continuation area, for attributes that do not fit into directories
//	…        files, in the order of their paths, each contiguous
//	…        the tail, from a multiple of 1 MiB, for the caller
//
// Files of 4 GiB and more are stored as several sections of one extent each
// (ECMA-119, section 6.5.1). Directories may be deeper than the eight levels of
// ECMA-119, which Linux and GRUB allow. Hard links share their content. Extended
// attributes are not supported.
package iso9660

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/slipway-build/slipway/exporter/sparse"
	"github.com/slipway-build/slipway/exporter/tree"
)

const (
	// SectorSize is the size of a sector in bytes.
	SectorSize = 2048

	systemSectors = 16
	tailAlignment = 1 << 20

	// maxSection is the size of the largest section of a file in bytes: whole
	// sectors whose size in bytes fits into 32 bits.
	maxSection = math.MaxUint32 / SectorSize * SectorSize
	// maxFileSize is the size of the largest file in bytes: Linux follows 100
	// sections (fs/isofs/inode.c, isofs_read_level3_size).
	maxFileSize = 100 * maxSection

	// maxDirectories is how many directories the path tables can number.
	maxDirectories = math.MaxUint16
)

// Options are the attributes of a volume.
type Options struct {
	Label string // volume identifier: up to 32 letters A to Z, digits and _
	// Time is the time of all files, stored in UTC. Its year must be 1900 to 2155.
	Time time.Time

	// BIOS is the path of the file that BIOS starts from a CD (El Torito, no
	// emulation), or "". Image fills in its boot information table, with which
	// it finds the rest of itself.
	BIOS string
	// UEFI reports whether the tail has an EFI system partition that reaches to
	// the end of the volume.
	UEFI bool
	// UEFIOffset is the offset of that partition in the tail in bytes.
	UEFIOffset int64

	// Tail is the size of the tail in bytes.
	Tail int64
	// InTail has the paths of the files whose content the caller writes into the
	// tail, with its offset there in bytes.
	InTail map[string]int64
}

// A Volume is a file system laid out for writing.
type Volume struct {
	options     Options
	directories []*node // in the order of the path tables
	files       []*node // whose content Image writes
	names       map[string]*node

	continuation []byte
	pointers     []pointer
	pathTable    int64 // bytes

	// First sectors.
	end, catalog, pathTableL, pathTableM, continuationAt uint32

	tail    int64  // offset in bytes
	sectors uint32 // of the volume
}

// New lays out a tree. It fails for names, sizes and options that the format does
// not support, and if a path in the options does not exist.
func New(entries []tree.Entry, options Options) (*Volume, error) {
	if err := options.check(); err != nil {
		return nil, err
	}
	v := &Volume{options: options, names: map[string]*node{}}
	if err := v.addEntries(entries); err != nil {
		return nil, err
	}
	for path := range options.InTail {
		if n := v.names[path]; n == nil || n.Type != tree.File {
			return nil, fmt.Errorf("%s: there is no such file", path)
		}
	}
	if err := v.layOut(); err != nil {
		return nil, err
	}
	return v, nil
}

func (o Options) check() error {
	if len(o.Label) > 32 || strings.Trim(o.Label, identifierCharacters) != "" {
		return fmt.Errorf("volume label %q: use up to 32 letters A to Z, digits and _", o.Label)
	}
	if year := o.Time.UTC().Year(); year < 1900 || year > 2155 {
		return fmt.Errorf("ISO 9660 supports the years 1900 to 2155, not %d: choose another SOURCE_DATE_EPOCH", year)
	}
	return nil
}

// bootable reports whether there is a boot catalog.
func (v *Volume) bootable() bool {
	return v.options.BIOS != "" || v.options.UEFI
}

// layOut assigns a place to everything.
func (v *Volume) layOut() error {
	if len(v.directories) > maxDirectories {
		return fmt.Errorf("there are %d directories, but ISO 9660 supports %d", len(v.directories), maxDirectories)
	}
	v.prepareDirectories()
	next := int64(systemSectors)
	take := func(size int64) uint32 {
		at := next
		next += sectors(size)
		return uint32(min(at, math.MaxUint32)) // the check below rejects such a volume
	}
	take(SectorSize) // primary volume descriptor
	if v.bootable() {
		take(SectorSize)
	}
	v.end = take(SectorSize)
	if v.bootable() {
		v.catalog = take(SectorSize)
	}
	for _, d := range v.directories {
		v.pathTable += pathRecordSize(d)
	}
	v.pathTableL = take(v.pathTable)
	v.pathTableM = take(v.pathTable)
	for _, d := range v.directories {
		d.extent = take(d.recordsSize)
	}
	v.continuationAt = take(int64(len(v.continuation)))
	for _, p := range v.pointers {
		copy(v.continuation[p.at:], v.pointerField(p.to))
	}
	for _, f := range v.files {
		f.extent = take(f.Size)
	}
	if v.options.Tail > 0 {
		v.tail = (next*SectorSize + tailAlignment - 1) / tailAlignment * tailAlignment
		for path, offset := range v.options.InTail {
			v.names[path].extent = uint32((v.tail + offset) / SectorSize)
		}
		next = v.tail/SectorSize + sectors(v.options.Tail)
	}
	if next > math.MaxUint32 {
		return fmt.Errorf("the volume has %d sectors of %d bytes, but ISO 9660 supports %d", next, SectorSize, uint32(math.MaxUint32))
	}
	v.sectors = uint32(next)
	return nil
}

// Size returns the size of the volume in bytes, including the tail.
func (v *Volume) Size() int64 {
	return int64(v.sectors) * SectorSize
}

// Tail returns the offset of the tail in bytes.
func (v *Volume) Tail() int64 {
	return v.tail
}

// Image returns the content of the volume. The system area and the tail have no
// runs.
func (v *Volume) Image() (sparse.Content, error) {
	var runs []sparse.Run
	add := func(sector uint32, content []byte) {
		runs = append(runs, sparse.Bytes(content).At(int64(sector)*SectorSize)...)
	}
	add(systemSectors, v.primaryDescriptor())
	add(v.end, descriptor(255))
	add(v.pathTableL, v.encodePathTable(binary.LittleEndian))
	add(v.pathTableM, v.encodePathTable(binary.BigEndian))
	add(v.continuationAt, v.continuation)
	if v.bootable() {
		add(systemSectors+1, v.bootRecord())
		add(v.catalog, v.bootCatalog())
	}
	for _, d := range v.directories {
		add(d.extent, v.encodeDirectory(d))
	}
	for _, f := range v.files {
		if f.Path != v.options.BIOS {
			runs = append(runs, sparse.Run{Offset: int64(f.extent) * SectorSize, Size: f.Size, Data: f.ReaderAt()})
			continue
		}
		program, err := f.bootProgram()
		if err != nil {
			return sparse.Content{}, fmt.Errorf("%s: %w", f.Path, err)
		}
		add(f.extent, program)
	}
	return sparse.New(v.Size(), runs, nil)
}

func sectors(size int64) int64 {
	return (size + SectorSize - 1) / SectorSize
}
