// Package fat writes FAT32 file systems.
//
// Format: Microsoft Extensible Firmware Initiative FAT32 File System
// Specification 1.03 (2000), which UEFI refers to (UEFI 2.10, 13.3). Layout of
// a volume, in sectors of 512 bytes:
//
//	0         boot sector with the BIOS parameter block
//	1         FSInfo: how many clusters are free
//	6, 7      copies of both
//	32 …      two file allocation tables
//	…         clusters from number 2: the directories, then the files, each in
//	          one piece
//
// Files have long names throughout. What is not written is zero, so a sparse
// file stays sparse.
package fat

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
	"sync"
	"time"
)

const (
	sectorSize = 512

	reservedSectors = 32 // at least
	infoSector      = 1
	backupSector    = 6
	tables          = 2
	// dataAlignment of the first cluster in sectors: a page, or a block of
	// the file system that holds the image.
	dataAlignment = 8

	maxSectorsPerCluster = 64 // 32 KiB

	// A volume with fewer clusters is FAT16, and drivers disagree on the
	// exact number: the specification (FAT type determination) advises to
	// stay 16 away from it.
	minClusters = 65525 + 16
	maxClusters = 0x0ffffff5 - 2

	firstCluster = 2
	entrySize    = 32 // of a directory
	endOfChain   = 0x0fffffff
	mediaType    = 0xf8 // fixed disk

	// MaxFileSize is the longest file in bytes.
	MaxFileSize = math.MaxUint32
)

// File is a file to store.
type File struct {
	Path string // with slashes, relative to the root; its directories are made
	Size int64  // bytes
	Open func() (io.ReadCloser, error)
}

// Options are the attributes of a volume.
type Options struct {
	Label string // up to 11 characters of ASCII, upper case
	// Time stands on all files, in UTC. FAT knows the years 1980 to 2107.
	Time time.Time
	// Offset of the volume on the disk, in sectors.
	Offset uint32
}

// Volume is a file system laid out for writing.
type Volume struct {
	options           Options
	sectors           uint32
	sectorsPerCluster uint32
	reserved          uint32 // sectors before the first table
	tableSectors      uint32
	clusters          uint32
	used              uint32 // clusters
	root              *directory
	directories       []*directory // in order of their clusters
	files             []*file
}

// ErrTooSmall says that the files need a larger volume.
var ErrTooSmall = errors.New("too small")

// New lays out files on a volume of size bytes, in their order. It fails with
// ErrTooSmall if they do not fit or the volume is no FAT32 yet, and with other
// errors if size is no multiple of 512 or over 2 TiB, and for names and sizes of
// files that FAT32 cannot hold.
func New(size int64, files []File, options Options) (*Volume, error) {
	if size%sectorSize != 0 || size/sectorSize > math.MaxUint32 {
		return nil, fmt.Errorf("a FAT32 volume has a multiple of %d bytes, up to 2 TiB, not %d", sectorSize, size)
	}
	v := &Volume{options: options, sectors: uint32(size / sectorSize)}
	if err := checkLabel(options.Label); err != nil {
		return nil, err
	}
	if err := v.addFiles(files); err != nil {
		return nil, err
	}
	// The largest clusters make the shortest chains, which boot loaders
	// follow step by step.
	for perCluster := uint32(maxSectorsPerCluster); perCluster >= 1; perCluster /= 2 {
		if v.divide(perCluster) && v.allocate() {
			return v, nil
		}
	}
	return nil, fmt.Errorf("a FAT32 volume of %d bytes is %w for the files", size, ErrTooSmall)
}

// divide splits the volume into tables and clusters of the given size. It
// returns false if this is no FAT32 then.
func (v *Volume) divide(sectorsPerCluster uint32) bool {
	if v.sectors <= reservedSectors+2*dataAlignment {
		return false
	}
	v.sectorsPerCluster = sectorsPerCluster
	// The formula of the specification, which may give a few sectors more
	// than needed.
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

// allocate gives directories and files their clusters. It returns false if
// there are too few.
func (v *Volume) allocate() bool {
	clusterSize := int64(v.sectorsPerCluster) * sectorSize
	next := int64(firstCluster)
	take := func(size int64) chain {
		c := chain{first: uint32(next), length: uint32((size + clusterSize - 1) / clusterSize)}
		next += int64(c.length)
		return c
	}
	for _, d := range v.directories {
		d.chain = take(d.size())
	}
	for _, f := range v.files {
		f.chain = take(f.Size)
		if next-firstCluster > int64(v.clusters) {
			return false
		}
	}
	v.used = uint32(next - firstCluster)
	return next-firstCluster <= int64(v.clusters)
}

// chain is a run of clusters.
type chain struct {
	first, length uint32
}

// start is what a directory entry says about it: 0 for an empty file.
func (c chain) start() uint32 {
	if c.length == 0 {
		return 0
	}
	return c.first
}

func (v *Volume) dataStart() uint32 {
	return v.reserved + tables*v.tableSectors
}

// offset of a cluster in bytes from the start of the volume.
func (v *Volume) offset(cluster uint32) int64 {
	return (int64(v.dataStart()) + int64(cluster-firstCluster)*int64(v.sectorsPerCluster)) * sectorSize
}

// Write writes the volume to w, which must read as zeros where nothing was
// written. It returns the SHA-256 of the paths, sizes and contents of the
// files, from whose first bytes the serial number of the volume is taken.
func (v *Volume) Write(w io.WriterAt) ([sha256.Size]byte, error) {
	digest := sha256.New()
	buffers := [2][]byte{make([]byte, copySize), make([]byte, copySize)}
	for _, f := range v.files {
		fmt.Fprintf(digest, "%s\x00%d\x00", f.Path, f.Size)
		if err := f.write(io.NewOffsetWriter(w, v.offset(f.chain.first)), digest, buffers); err != nil {
			return [sha256.Size]byte{}, fmt.Errorf("%s: %w", f.Path, err)
		}
	}
	sum := [sha256.Size]byte(digest.Sum(nil))
	serial := binary.LittleEndian.Uint32(sum[:])

	for _, d := range v.directories {
		if _, err := w.WriteAt(d.encode(v.options.Time, v.label(d)), v.offset(d.chain.first)); err != nil {
			return sum, err
		}
	}
	for i := range uint32(tables) {
		start := int64(v.reserved+i*v.tableSectors) * sectorSize
		if err := v.writeTable(io.NewOffsetWriter(w, start)); err != nil {
			return sum, err
		}
	}
	head := append(v.bootSector(serial), v.infoSector()...)
	for _, sector := range []int64{0, backupSector} {
		if _, err := w.WriteAt(head, sector*sectorSize); err != nil {
			return sum, err
		}
	}
	return sum, nil
}

// copySize is how many bytes of a file are read at once.
const copySize = 1 << 20

// write copies the file to w and digest. The digest, which takes as long as the
// rest, is calculated beside: while one buffer is read and written, the other
// is digested.
func (f *file) write(w io.Writer, digest hash.Hash, buffers [2][]byte) error {
	if f.Size == 0 {
		return nil
	}
	content, err := f.Open()
	if err != nil {
		return err
	}
	defer content.Close()
	var digesting sync.WaitGroup
	defer digesting.Wait()
	var done int64
	for turn := 0; done < f.Size; turn++ {
		buf := buffers[turn%2]
		n, err := io.ReadFull(content, buf[:min(copySize, f.Size-done)])
		done += int64(n)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return fmt.Errorf("read %d of %d bytes", done, f.Size)
		}
		if err != nil {
			return err
		}
		digesting.Wait()
		digesting.Go(func() { digest.Write(buf[:n]) })
		if _, err := w.Write(buf[:n]); err != nil {
			return err
		}
	}
	return nil
}

// writeTable writes a file allocation table as far as clusters are used.
func (v *Volume) writeTable(w io.Writer) error {
	buf := make([]byte, 0, 64<<10)
	put := func(value uint32) error {
		buf = binary.LittleEndian.AppendUint32(buf, value)
		if len(buf) < cap(buf) {
			return nil
		}
		_, err := w.Write(buf)
		buf = buf[:0]
		return err
	}
	chains := []chain{}
	for _, d := range v.directories {
		chains = append(chains, d.chain)
	}
	for _, f := range v.files {
		chains = append(chains, f.chain)
	}
	// The first two entries: media type, and a volume that is clean.
	if err := put(0x0fffff00 | mediaType); err != nil {
		return err
	}
	if err := put(endOfChain); err != nil {
		return err
	}
	for _, c := range chains {
		for i := uint32(1); i <= c.length; i++ {
			next := c.first + i
			if i == c.length {
				next = endOfChain
			}
			if err := put(next); err != nil {
				return err
			}
		}
	}
	_, err := w.Write(buf)
	return err
}

// bootSector is the first sector, with the BIOS parameter block of FAT32.
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
	s.uint16(26, 255) // heads, as BIOSes number large disks
	s.uint32(28, v.options.Offset)
	s.uint32(32, v.sectors)
	s.uint32(36, v.tableSectors)
	s.uint32(44, v.root.chain.first)
	s.uint16(48, infoSector)
	s.uint16(50, backupSector)
	s.bytes(64, 0x80, 0, 0x29) // BIOS drive; the three fields below are there
	s.uint32(67, serial)
	s.text(71, v.options.labelOrNone(), 11)
	s.text(82, "FAT32", 8)
	s.bytes(510, 0x55, 0xaa)
	return s[:]
}

func (v *Volume) infoSector() []byte {
	next := uint32(math.MaxUint32) // none
	if v.used < v.clusters {
		next = firstCluster + v.used
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

// text is padded with blanks.
func (s *sector) text(offset int, text string, length int) { copy(s[offset:], padded(text, length)) }

func padded(text string, length int) []byte {
	return append([]byte(text), bytes.Repeat([]byte(" "), length-len(text))...)
}
