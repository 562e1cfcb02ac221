// Package vhd writes and reads disks in Microsoft's virtual hard disk format.
//
// Format: Microsoft, Virtual Hard Disk Image Format Specification 1.0 (2006).
// Numbers are big-endian. A fixed VHD is the disk and a footer of 512 bytes. Layout
// of a dynamic VHD in sectors of 512 bytes:
//
//	0    copy of the footer
//	1    header of 1024 bytes
//	3 …  block allocation table: the first sector of each block
//	…    blocks of 2 MiB with data, in the order of the disk, each after a
//	     bitmap of one sector that marks all sectors as used
//	end  footer
package vhd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/slipway-build/slipway/exporter/sparse"
)

const (
	sectorSize = 512
	blockSize  = 2 << 20
	bitmapSize = blockSize / sectorSize / 8
	headerSize = 1024

	typeFixed   = 2
	typeDynamic = 3

	// maxSize is the largest disk that Azure and Hyper-V support, in bytes.
	maxSize = 2040 << 30

	// alignment is the alignment of the size of a disk that Azure requires, in
	// bytes.
	alignment = 1 << 20
)

// none stands for a missing offset.
const none = math.MaxUint64

// Fixed returns a fixed VHD with a disk. The id is a UUID in big-endian order. Fixed
// fails if the size of the disk is not a multiple of 1 MiB, which Azure requires, or
// exceeds 2040 GiB.
func Fixed(disk sparse.Content, id [16]byte, created time.Time) (sparse.Content, error) {
	if err := check(disk.Size); err != nil {
		return sparse.Content{}, err
	}
	footer := footer(disk.Size, typeFixed, none, id, created)
	return sparse.New(disk.Size+sectorSize, append(disk.At(0), sparse.Bytes(footer).At(disk.Size)...), nil)
}

// Dynamic returns a dynamic VHD with a disk, which does not store blocks of zeros.
// The arguments and errors are those of Fixed.
func Dynamic(disk sparse.Content, id [16]byte, created time.Time) (sparse.Content, error) {
	if err := check(disk.Size); err != nil {
		return sparse.Content{}, err
	}
	blocks := (disk.Size + blockSize - 1) / blockSize
	table := bytes.Repeat([]byte{0xff}, int(sparse.RoundUp(4*blocks, sectorSize)))
	footer := footer(disk.Size, typeDynamic, sectorSize, id, created)
	header := make([]byte, headerSize)
	copy(header, "cxsparse")
	be := binary.BigEndian
	be.PutUint64(header[8:], none)
	be.PutUint64(header[16:], sectorSize+headerSize) // the table
	be.PutUint32(header[24:], 0x00010000)
	be.PutUint32(header[28:], uint32(blocks))
	be.PutUint32(header[32:], blockSize)
	be.PutUint32(header[36:], checksum(header))

	bitmap := sparse.Bytes(bytes.Repeat([]byte{0xff}, bitmapSize))
	var runs []sparse.Run
	next := int64(sectorSize + headerSize + len(table))
	last := int64(-1)
	for _, r := range disk.Runs {
		for done := int64(0); done < r.Size; {
			block, within := (r.Offset+done)/blockSize, (r.Offset+done)%blockSize
			if block != last {
				be.PutUint32(table[4*block:], uint32(next/sectorSize))
				runs = append(runs, bitmap.At(next)...)
				next += bitmapSize + blockSize
				last = block
			}
			n := min(r.Size-done, blockSize-within)
			runs = append(runs, sparse.Run{Offset: next - blockSize + within, Size: n, Data: io.NewSectionReader(r.Data, done, n)})
			done += n
		}
	}
	for at, part := range map[int64][]byte{0: footer, sectorSize: header, sectorSize + headerSize: table, next: footer} {
		runs = append(runs, sparse.Bytes(part).At(at)...)
	}
	return sparse.New(next+sectorSize, runs, nil)
}

func check(size int64) error {
	switch {
	case size <= 0 || size%alignment != 0:
		return fmt.Errorf("SIZE: the size of a VHD must be a whole number of MiB, as Azure requires, not %d bytes", size)
	case size > maxSize:
		return errors.New("SIZE: the size of a VHD must be at most 2040G")
	}
	return nil
}

func footer(size int64, kind uint32, dataOffset uint64, id [16]byte, created time.Time) []byte {
	b := make([]byte, sectorSize)
	copy(b, "conectix")
	be := binary.BigEndian
	be.PutUint32(b[8:], 2) // reserved, always set
	be.PutUint32(b[12:], 0x00010000)
	be.PutUint64(b[16:], dataOffset)
	epoch := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	be.PutUint32(b[24:], uint32(min(max(0, created.Unix()-epoch.Unix()), math.MaxUint32)))
	// The creator application of Windows: of disks from others, some programs
	// compute the size from the geometry, which is not exact.
	copy(b[28:], "win ")
	be.PutUint32(b[32:], 0x000a0000)
	copy(b[36:], "Wi2k")
	be.PutUint64(b[40:], uint64(size))
	be.PutUint64(b[48:], uint64(size))
	cylinders, heads, sectors := geometry(size / sectorSize)
	be.PutUint16(b[56:], uint16(cylinders))
	b[58], b[59] = byte(heads), byte(sectors)
	be.PutUint32(b[60:], kind)
	copy(b[68:], id[:])
	be.PutUint32(b[64:], checksum(b))
	return b
}

// geometry returns the obsolete geometry of a disk (appendix "CHS Calculation").
func geometry(total int64) (cylinders, heads, sectors int64) {
	total = min(total, 65535*16*255)
	if total >= 65535*16*63 {
		return total / 255 / 16, 16, 255
	}
	sectors = 17
	heads = max(4, (total/sectors+1023)/1024)
	if total/sectors >= heads*1024 || heads > 16 {
		sectors, heads = 31, 16
	}
	if total/sectors >= heads*1024 {
		sectors, heads = 63, 16
	}
	return total / sectors / heads, heads, sectors
}

// checksum returns the complement of the sum of all bytes. The field for the checksum
// must be 0.
func checksum(b []byte) uint32 {
	var sum uint32
	for _, x := range b {
		sum += uint32(x)
	}
	return ^sum
}
