// Package vmdk writes and reads disks in VMware's stream-optimized format.
//
// Format: VMware, Virtual Disk Format 5.0 (2011), "Stream-Optimized Compressed Sparse
// Extents". Numbers are little-endian. Layout in sectors of 512 bytes:
//
//	0     header
//	1     descriptor, a text
//	128 … for each 32 MiB of the disk: its grains of 64 KiB with data, each
//	      compressed after a marker, then the table of their sectors
//	…     directory with the sectors of the tables
//	…     footer: the header with the sector of the directory
//	end   end-of-stream marker
package vmdk

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/klauspost/compress/zlib"

	"github.com/slipway-build/slipway/exporter/sparse"
)

const (
	sectorSize   = 512
	grainSize    = 64 << 10
	tableEntries = 512
	tableReach   = tableEntries * grainSize // bytes of the disk per table

	descriptorSector  = 1
	descriptorSectors = 20
	overhead          = 128 // sectors before the first grain

	// flags: the header has newlines that detect text-mode transfers, grains are
	// compressed, and there are markers.
	flags             = 1 | 1<<16 | 1<<17
	compressedDeflate = 1
	directoryAtEnd    = 1<<64 - 1

	markerEnd, markerTable, markerDirectory, markerFooter = 0, 1, 2, 3

	// maxSize is the largest disk in bytes: sector numbers have 32 bits.
	maxSize = 2 << 40
)

// Write writes a disk to w. The name is that of the VMDK file, for the descriptor. The
// id tells the contents of disks apart. Write fails if the size of the disk is not a
// multiple of 64 KiB, or exceeds 2 TiB.
func Write(w io.Writer, disk sparse.Content, name string, id uint32) error {
	if disk.Size <= 0 || disk.Size%grainSize != 0 || disk.Size > maxSize {
		return fmt.Errorf("SIZE: the size of a VMDK must be a multiple of %dK, up to 2048G, not %d bytes", grainSize>>10, disk.Size)
	}
	s := stream{w: w}
	s.put(header(disk.Size, directoryAtEnd))
	s.put(padded([]byte(descriptor(disk.Size, name, id)), descriptorSectors*sectorSize))
	s.put(make([]byte, (overhead-descriptorSector-descriptorSectors)*sectorSize))

	tables := (disk.Size + tableReach - 1) / tableReach
	directory := make([]byte, 4*tables)
	for n := range tables {
		table, err := s.grains(disk, n*tableReach)
		if err != nil {
			return err
		}
		if table != nil {
			s.put(marker(int64(len(table)), markerTable))
			binary.LittleEndian.PutUint32(directory[4*n:], s.sector())
			s.put(table)
		}
	}
	directory = padded(directory, sectorSize)
	s.put(marker(int64(len(directory)), markerDirectory))
	at := uint64(s.sector())
	s.put(directory)
	s.put(marker(sectorSize, markerFooter))
	s.put(header(disk.Size, at))
	s.put(marker(0, markerEnd))
	return s.err
}

// stream counts the bytes that it writes. It stops after an error.
type stream struct {
	w   io.Writer
	n   int64 // bytes
	err error

	grain      []byte
	compressed bytes.Buffer
	compressor *zlib.Writer
}

func (s *stream) put(b []byte) {
	if s.err == nil {
		_, s.err = s.w.Write(b)
	}
	s.n += int64(len(b))
}

func (s *stream) sector() uint32 { return uint32(s.n / sectorSize) }

// grains writes the grains of one table and returns the table, or nil if there are
// none.
func (s *stream) grains(disk sparse.Content, start int64) (table []byte, err error) {
	if s.grain == nil {
		s.grain = make([]byte, grainSize)
		if s.compressor, err = zlib.NewWriterLevel(nil, zlib.BestSpeed); err != nil {
			return nil, err
		}
	}
	zeros := make([]byte, grainSize)
	end := min(start+tableReach, disk.Size)
	for at, ok := disk.NextData(start); ok && at < end; at, ok = disk.NextData(at) {
		at = at / grainSize * grainSize
		if _, err := disk.ReadAt(s.grain, at); err != nil {
			return nil, err
		}
		if !bytes.Equal(s.grain, zeros) {
			if table == nil {
				table = make([]byte, 4*tableEntries)
			}
			binary.LittleEndian.PutUint32(table[4*((at-start)/grainSize):], s.sector())
			if err := s.putGrain(at); err != nil {
				return nil, err
			}
		}
		at += grainSize
	}
	return table, s.err
}

// putGrain writes a grain after its marker, which has the first sector on the disk
// and the compressed size.
func (s *stream) putGrain(at int64) error {
	s.compressed.Reset()
	s.compressed.Write(make([]byte, 12))
	s.compressor.Reset(&s.compressed)
	if _, err := s.compressor.Write(s.grain); err != nil {
		return err
	}
	if err := s.compressor.Close(); err != nil {
		return err
	}
	b := s.compressed.Bytes()
	binary.LittleEndian.PutUint64(b, uint64(at/sectorSize))
	binary.LittleEndian.PutUint32(b[8:], uint32(len(b)-12))
	s.put(padded(b, sectorSize))
	return s.err
}

func header(size int64, directory uint64) []byte {
	b := make([]byte, sectorSize)
	le := binary.LittleEndian
	copy(b, "KDMV")
	le.PutUint32(b[4:], 3) // version
	le.PutUint32(b[8:], flags)
	le.PutUint64(b[12:], uint64(size/sectorSize))
	le.PutUint64(b[20:], grainSize/sectorSize)
	le.PutUint64(b[28:], descriptorSector)
	le.PutUint64(b[36:], descriptorSectors)
	le.PutUint32(b[44:], tableEntries)
	le.PutUint64(b[56:], directory)
	le.PutUint64(b[64:], overhead)
	copy(b[73:], "\n \r\n")
	le.PutUint16(b[77:], compressedDeflate)
	return b
}

// marker returns the marker of metadata: its kind, and its size in bytes.
func marker(size int64, kind uint32) []byte {
	b := make([]byte, sectorSize)
	binary.LittleEndian.PutUint64(b, uint64(size/sectorSize))
	binary.LittleEndian.PutUint32(b[12:], kind)
	return b
}

// descriptor returns the text that describes the disk.
func descriptor(size int64, name string, id uint32) string {
	const heads, sectors = 255, 63
	return fmt.Sprintf(`# Disk DescriptorFile
version=1
CID=%08x
parentCID=ffffffff
createType="streamOptimized"

# Extent description
RW %d SPARSE "%s"

# The Disk Data Base
#DDB

ddb.adapterType = "lsilogic"
ddb.geometry.cylinders = "%d"
ddb.geometry.heads = "%d"
ddb.geometry.sectors = "%d"
ddb.virtualHWVersion = "4"
`, id, size/sectorSize, name, size/sectorSize/heads/sectors, heads, sectors)
}

func padded(b []byte, alignment int) []byte {
	return append(b, make([]byte, (alignment-len(b)%alignment)%alignment)...)
}
