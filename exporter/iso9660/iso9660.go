// Package iso9660 writes ISO 9660 file systems.
//
// Formats: ECMA-119, 4th edition (ISO 9660), with the System Use Sharing
// Protocol 1.12 and the Rock Ridge Interchange Protocol 1.12, which give files
// the names, owners and modes of POSIX, and El Torito 1.0, by which firmware
// boots from it. Layout, in sectors of 2048 bytes:
//
//	0–15     system area, left to the caller
//	16       primary volume descriptor
//	17       boot record, if firmware can boot from it
//	…        end of the descriptors
//	…        boot catalog, if there is a boot record
//	…        path tables, little-endian, then big-endian
//	…        directories, in the order of the path tables
//	…        continuation area: attributes that directories have no room for
//	…        files, in the order of their paths, each in one piece
//	…        the tail, from a multiple of 1 MiB, left to the caller
//
// Files of 4 GiB and more are stored as several sections of one extent each
// (ECMA-119, 6.5.1). Directories may be deeper than the eight levels of
// ECMA-119, as Linux and GRUB allow. Hard links share their content. There is
// no place for extended attributes. What is not written is zero.
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
	// SectorSize in bytes.
	SectorSize = 2048

	systemSectors = 16
	tailAlignment = 1 << 20

	// maxSection is the longest section of a file in bytes: whole sectors,
	// counted in 32 bits.
	maxSection = math.MaxUint32 / SectorSize * SectorSize
	// maxFileSize is where Linux stops to follow the sections of a file
	// (fs/isofs/inode.c, isofs_read_level3_size).
	maxFileSize = 100 * maxSection

	// maxDirectories is what the path tables can number.
	maxDirectories = math.MaxUint16
)

// Options are the attributes of a volume.
type Options struct {
	Label string // volume identifier: up to 32 letters A to Z, digits and _
	// Time stands on all files, in UTC. The format knows the years 1900 to 2155.
	Time time.Time

	// BIOS is the path of a file that a BIOS starts from CD (El Torito, no
	// emulation). What it needs to find itself is written into its boot
	// information table. "" for none.
	BIOS string
	// UEFI tells that there is an EFI system partition in the tail, which
	// reaches to the end of the volume.
	UEFI bool
	// UEFIOffset is where in the tail it starts, in bytes.
	UEFIOffset int64

	// Tail is room behind the files, in bytes.
	Tail int64
	// InTail are the files whose content lies in the tail, with its offset
	// there. The caller writes it.
	InTail map[string]int64
}

// Volume is a volume laid out for writing.
type Volume struct {
	options     Options
	directories []*node // in the order of the path tables
	files       []*node // that have a content of their own here
	names       map[string]*node

	continuation []byte
	pointers     []pointer
	pathTable    int64 // bytes

	// First sectors.
	end, catalog, pathTableL, pathTableM, continuationAt uint32

	tail    int64  // offset in bytes
	sectors uint32 // of the volume
}

// New lays out a tree. It fails for names and sizes that the format cannot hold.
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
		return fmt.Errorf("ISO 9660 knows the years 1900 to 2155, not %d: choose another SOURCE_DATE_EPOCH", year)
	}
	return nil
}

// bootable tells whether there is a boot catalog.
func (v *Volume) bootable() bool {
	return v.options.BIOS != "" || v.options.UEFI
}

// layOut gives everything its place.
func (v *Volume) layOut() error {
	if len(v.directories) > maxDirectories {
		return fmt.Errorf("there are %d directories; ISO 9660 takes %d", len(v.directories), maxDirectories)
	}
	v.prepareDirectories()
	next := int64(systemSectors)
	take := func(size int64) uint32 {
		at := next
		next += sectors(size)
		return uint32(min(at, math.MaxUint32)) // too large a volume is refused below
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
		return fmt.Errorf("the volume has %d sectors of %d bytes; ISO 9660 takes %d", next, SectorSize, uint32(math.MaxUint32))
	}
	v.sectors = uint32(next)
	return nil
}

// Size of the volume in bytes, with the tail.
func (v *Volume) Size() int64 {
	return int64(v.sectors) * SectorSize
}

// Tail is the offset in bytes where the tail starts.
func (v *Volume) Tail() int64 {
	return v.tail
}

// Image is the volume without system area and tail.
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
