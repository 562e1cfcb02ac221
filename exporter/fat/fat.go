// Package fat writes FAT32 file systems, and reads FAT12, FAT16 and FAT32.
//
// Format: Microsoft Extensible Firmware Initiative FAT32 File System
// Specification 1.03 (2000), which UEFI requires for system partitions (UEFI 2.10,
// section 13.3). Numbers are little-endian. Layout of a volume that New makes, in
// sectors of 512 bytes:
//
//	0         boot sector with the BIOS parameter block
//	1         FSInfo, the number of free clusters
//	6, 7      copies of both
//	32 …      two file allocation tables
//	…         clusters from number 2: the directories, then the files, in order
//
// All files have long names. A file can have several parts with free clusters
// between them, so that a part can grow without moving the next one.
package fat

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/slipway-build/slipway/exporter/sparse"
)

const (
	sectorSize = 512

	reservedSectors = 32 // at least
	infoSector      = 1
	backupSector    = 6
	tables          = 2

	maxSectorsPerCluster = 64 // 32 KiB
	// dataAlignment is the alignment of the first cluster, in sectors, so that
	// clusters of every size are aligned on the disk.
	dataAlignment = maxSectorsPerCluster

	// PartAlignment is the alignment of the size of a part that another part
	// follows, in bytes.
	PartAlignment = maxSectorsPerCluster * sectorSize

	// A volume with fewer clusters is FAT16. Drivers disagree about the exact
	// number, so the specification ("FAT Type Determination") advises to keep
	// a distance of 16.
	minClusters = 65525 + 16
	maxClusters = 0x0ffffff5 - 2

	firstCluster = 2
	entrySize    = 32 // of a directory
	endOfChain   = 0x0fffffff
	mediaType    = 0xf8 // fixed disk

	// MaxSize is the size of the largest volume in bytes.
	MaxSize = math.MaxUint32 * sectorSize
	// MaxFileSize is the size of the largest file in bytes.
	MaxFileSize = math.MaxUint32
)

// A File is a file to write.
type File struct {
	Path  string // relative to the root, with slashes; New adds the directories
	Parts []Part // make up the content, one after another
}

// A Part is a part of a file.
type Part struct {
	Content sparse.Content
	// Slot reserves room for the part, in bytes, at a multiple of SlotAlignment on
	// the disk. With 0, the part follows the one before without extra room.
	Slot int64
}

// SlotAlignment is the alignment of slots on the disk in bytes: the size of a block
// of EBS.
const SlotAlignment = 512 << 10

// Size returns the size of the file in bytes.
func (f File) Size() int64 {
	var size int64
	for _, p := range f.Parts {
		size += p.Content.Size
	}
	return size
}

// Options are the attributes of a volume.
type Options struct {
	Label string // up to 11 upper-case letters, digits and $%'-_@~`!(){}^#&
	// Time is the modification time of all files. FAT stores the years 1980 to
	// 2107, in UTC; earlier and later times become the first and the last.
	Time time.Time
	// Offset is the offset of the volume on the disk in sectors, a multiple of
	// 1 MiB.
	Offset uint32
}

// A Volume is a file system laid out for writing.
type Volume struct {
	options           Options
	sectors           uint32
	sectorsPerCluster uint32
	reserved          uint32 // sectors before the first table
	tableSectors      uint32
	clusters          uint32
	used              uint32 // clusters
	next              uint32 // first cluster after the last used one
	root              *directory
	directories       []*directory // in order of their clusters
	files             []*file
}

// ErrTooSmall is the error for files that need a larger volume.
var ErrTooSmall = errors.New("too small")

// New lays out files in their order on a volume of size bytes. The error is
// ErrTooSmall if the files do not fit or the volume is too small for FAT32. New also
// fails if size is not a multiple of 512 or exceeds MaxSize, for names and sizes of
// files that FAT32 does not support, and for parts that are not aligned.
func New(size int64, files []File, options Options) (*Volume, error) {
	if size%sectorSize != 0 || size > MaxSize {
		return nil, fmt.Errorf("the size of a FAT32 volume must be a multiple of %d bytes, up to 2 TiB, not %d", sectorSize, size)
	}
	v := &Volume{options: options, sectors: uint32(size / sectorSize)}
	if err := checkLabel(options.Label); err != nil {
		return nil, err
	}
	if err := v.addFiles(files); err != nil {
		return nil, err
	}
	// Large clusters make short chains, which boot loaders follow step by step.
	for perCluster := uint32(maxSectorsPerCluster); perCluster >= 1; perCluster /= 2 {
		if v.divide(perCluster) && v.allocate() {
			return v, nil
		}
	}
	return nil, fmt.Errorf("a FAT32 volume of %d bytes is %w for the files", size, ErrTooSmall)
}

// divide splits the volume into tables and clusters of the given size. It reports
// whether the result is FAT32.
func (v *Volume) divide(sectorsPerCluster uint32) bool {
	if v.sectors <= reservedSectors+2*dataAlignment {
		return false
	}
	v.sectorsPerCluster = sectorsPerCluster
	// The formula of the specification may result in a few sectors more than
	// needed.
	perTableSector := (256*sectorsPerCluster + tables) / 2
	v.tableSectors = (v.sectors - reservedSectors + perTableSector - 1) / perTableSector
	v.reserved = reservedSectors
	for (v.reserved+tables*v.tableSectors)%dataAlignment != 0 {
		v.reserved++
	}
	if v.dataStart() >= v.sectors {
		return false
	}
	v.clusters = (v.sectors - v.dataStart()) / sectorsPerCluster
	return v.clusters >= minClusters && v.clusters <= maxClusters
}

// allocate assigns clusters to directories and files. It reports whether there are
// enough.
func (v *Volume) allocate() bool {
	clusterSize := int64(v.sectorsPerCluster) * sectorSize
	next := int64(firstCluster)
	v.used = 0
	take := func(size int64) chain {
		c := chain{first: uint32(next), length: uint32((size + clusterSize - 1) / clusterSize)}
		next += int64(c.length)
		v.used += c.length
		return c
	}
	end := firstCluster + int64(v.clusters)
	for _, d := range v.directories {
		d.chain = take(d.size())
	}
	for _, f := range v.files {
		f.chains = f.chains[:0]
		for _, p := range f.Parts {
			var slotEnd int64
			if p.Slot > 0 {
				next += (-v.diskOffset(next)) & (SlotAlignment - 1) / clusterSize
				slotEnd = next + (max(p.Slot, p.Content.Size)+clusterSize-1)/clusterSize
			}
			f.chains = append(f.chains, take(p.Content.Size))
			next = max(next, slotEnd)
			if next > end {
				return false
			}
		}
	}
	v.next = uint32(next)
	return next <= end
}

// diskOffset returns the offset of a cluster on the disk in bytes.
func (v *Volume) diskOffset(cluster int64) int64 {
	return int64(v.options.Offset)*sectorSize + v.offset(uint32(cluster))
}

// chain is a run of clusters.
type chain struct {
	first, length uint32
}

// start returns the first cluster as a directory entry has it: 0 if there is none.
func (c chain) start() uint32 {
	if c.length == 0 {
		return 0
	}
	return c.first
}

// start returns the first cluster of the first part that has content.
func (f *file) start() uint32 {
	for _, c := range f.chains {
		if c.length > 0 {
			return c.first
		}
	}
	return 0
}

func (v *Volume) dataStart() uint32 {
	return v.reserved + tables*v.tableSectors
}

// offset returns the offset of a cluster on the volume in bytes.
func (v *Volume) offset(cluster uint32) int64 {
	return (int64(v.dataStart()) + int64(cluster-firstCluster)*int64(v.sectorsPerCluster)) * sectorSize
}

// Image returns the content of the volume. The serial number tells volumes apart.
func (v *Volume) Image(serial uint32) (sparse.Content, error) {
	var runs []sparse.Run
	add := func(offset int64, content sparse.Content) {
		runs = append(runs, content.At(offset)...)
	}
	head := append(v.bootSector(serial), v.infoSector()...)
	add(0, sparse.Bytes(head))
	add(backupSector*sectorSize, sparse.Bytes(head))
	table := sparse.Bytes(v.table())
	for i := range uint32(tables) {
		add(int64(v.reserved+i*v.tableSectors)*sectorSize, table)
	}
	// The rest of the last cluster of a file is not free: programs read it.
	free := []sparse.Range{}
	next := uint32(firstCluster)
	takes := func(c chain) {
		if c.length > 0 {
			free = append(free, sparse.Range{Offset: v.offset(next), Size: v.offset(c.first) - v.offset(next)})
			next = c.first + c.length
		}
	}
	for _, d := range v.directories {
		takes(d.chain)
		add(v.offset(d.chain.first), sparse.Bytes(d.encode(v.options.Time, v.label(d))))
	}
	for _, f := range v.files {
		for i, c := range f.chains {
			takes(c)
			add(v.offset(c.first), f.Parts[i].Content)
		}
	}
	size := int64(v.sectors) * sectorSize
	free = append(free, sparse.Range{Offset: v.offset(next), Size: size - v.offset(next)})
	return sparse.New(size, runs, free)
}

// table returns the file allocation table up to the last used cluster.
func (v *Volume) table() []byte {
	entries := make([]uint32, firstCluster, v.next)
	// The first two entries: media type, and a volume that is clean.
	entries[0], entries[1] = 0x0fffff00|mediaType, endOfChain
	link := func(chains ...chain) {
		last := uint32(0)
		for _, c := range chains {
			for n := c.first; n < c.first+c.length; n++ {
				entries = append(entries, make([]uint32, int(n)+1-len(entries))...)
				if last != 0 {
					entries[last] = n
				}
				entries[n], last = endOfChain, n
			}
		}
	}
	for _, d := range v.directories {
		link(d.chain)
	}
	for _, f := range v.files {
		link(f.chains...)
	}
	b := make([]byte, 0, 4*len(entries))
	for _, e := range entries {
		b = binary.LittleEndian.AppendUint32(b, e)
	}
	return b
}

// bootSector returns the first sector, with the BIOS parameter block of FAT32.
func (v *Volume) bootSector(serial uint32) []byte {
	s := &sector{}
	s.bytes(0, 0xeb, 0x58, 0x90) // jump over the parameters
	s.text(3, "SLIPWAY ", 8)
	s.uint16(11, sectorSize)
	s.bytes(13, byte(v.sectorsPerCluster))
	s.uint16(14, uint16(v.reserved))
	s.bytes(16, tables)
	s.bytes(21, mediaType)
	s.uint16(24, 63)  // sectors per track and
	s.uint16(26, 255) // heads, the usual values for large disks
	s.uint32(28, v.options.Offset)
	s.uint32(32, v.sectors)
	s.uint32(36, v.tableSectors)
	s.uint32(44, v.root.chain.first)
	s.uint16(48, infoSector)
	s.uint16(50, backupSector)
	s.bytes(64, 0x80, 0, 0x29) // BIOS drive; 0x29: the three fields below are valid
	s.uint32(67, serial)
	s.text(71, v.options.labelOrNone(), 11)
	s.text(82, "FAT32", 8)
	s.bytes(510, 0x55, 0xaa)
	return s[:]
}

func (v *Volume) infoSector() []byte {
	next := uint32(math.MaxUint32) // none
	if v.next < firstCluster+v.clusters {
		next = v.next
	}
	s := &sector{}
	s.uint32(0, 0x41615252)
	s.uint32(484, 0x61417272)
	s.uint32(488, v.clusters-v.used)
	s.uint32(492, next) // where to look for a free cluster
	s.uint32(508, 0xaa550000)
	return s[:]
}

type sector [sectorSize]byte

func (s *sector) bytes(offset int, b ...byte)     { copy(s[offset:], b) }
func (s *sector) uint16(offset int, value uint16) { binary.LittleEndian.PutUint16(s[offset:], value) }
func (s *sector) uint32(offset int, value uint32) { binary.LittleEndian.PutUint32(s[offset:], value) }

// text stores text padded with spaces.
func (s *sector) text(offset int, text string, length int) { copy(s[offset:], padded(text, length)) }

func padded(text string, length int) []byte {
	return append([]byte(text), bytes.Repeat([]byte(" "), length-len(text))...)
}

// FileOffset returns the offset of the content of a file on the volume in bytes, and
// 0 for an empty or missing file.
func (v *Volume) FileOffset(path string) int64 {
	for _, f := range v.files {
		if start := f.start(); f.Path == path && start != 0 {
			return v.offset(start)
		}
	}
	return 0
}
