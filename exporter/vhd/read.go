package vhd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/slipway-build/slipway/exporter/sparse"
)

// ErrFormat is the error for a file that is not a VHD, or is damaged.
var ErrFormat = errors.New("not a VHD")

// ErrUnsupported is the error for a differencing VHD, which needs another file.
var ErrUnsupported = errors.New("unsupported kind of VHD")

const (
	minBlockSize, maxBlockSize = 512 << 10, 256 << 20

	unallocated = 1<<32 - 1 // in the table of blocks
)

// Read returns the disk in a file of size bytes. The bytes of the disk stay in r.
//
// The error is ErrFormat for a file that is not a VHD or is damaged,
// ErrUnsupported for a differencing VHD, and the one of r if that fails.
func Read(r io.ReaderAt, size int64) (sparse.Content, error) {
	file := sparse.File{ReaderAt: r, Size: size, Format: "VHD", Err: ErrFormat}
	b, err := file.Bytes(size-sectorSize, sectorSize)
	if err != nil {
		return sparse.Content{}, err
	}
	be := binary.BigEndian
	if string(b[:8]) != "conectix" {
		return sparse.Content{}, invalidAt(size-sectorSize, "there is no footer")
	}
	if sum := be.Uint32(b[64:]); !verify(b, 64, sum) {
		return sparse.Content{}, invalidAt(size-sectorSize+64, "the footer has a wrong checksum")
	}
	disk := be.Uint64(b[48:])
	if disk > maxSize {
		return sparse.Content{}, invalidAt(size-sectorSize+48, "the disk has %d bytes", disk)
	}
	switch kind := be.Uint32(b[60:]); kind {
	case typeFixed:
		if int64(disk) > size-sectorSize {
			return sparse.Content{}, invalidAt(size-sectorSize+48, "the disk has %d bytes, but there are %d", disk, size-sectorSize)
		}
		return sparse.New(int64(disk), []sparse.Run{{Size: int64(disk), Data: io.NewSectionReader(r, 0, int64(disk))}}, nil)
	case typeDynamic:
		return readDynamic(file, int64(disk), int64(be.Uint64(b[16:])))
	default:
		return sparse.Content{}, fmt.Errorf("VHD: %w: type %d", ErrUnsupported, kind)
	}
}

// readDynamic reads the table of blocks, whose header is at an offset.
func readDynamic(file sparse.File, disk, headerAt int64) (sparse.Content, error) {
	h, err := file.Bytes(headerAt, headerSize)
	if err != nil {
		return sparse.Content{}, err
	}
	be := binary.BigEndian
	if string(h[:8]) != "cxsparse" || !verify(h, 36, be.Uint32(h[36:])) {
		return sparse.Content{}, invalidAt(headerAt, "there is no header of a dynamic disk")
	}
	blocks, length := int64(be.Uint32(h[28:])), int64(be.Uint32(h[32:]))
	if length < minBlockSize || length > maxBlockSize || length&(length-1) != 0 || blocks < (disk+length-1)/length {
		return sparse.Content{}, invalidAt(headerAt+28, "there are %d blocks of %d bytes for a disk of %d", blocks, length, disk)
	}
	blocks = (disk + length - 1) / length
	table, err := file.Bytes(int64(be.Uint64(h[16:])), 4*blocks)
	if err != nil {
		return sparse.Content{}, err
	}
	// The bitmap before a block marks the sectors that are in use. The others are
	// zeros in the file as well.
	bitmap := sparse.RoundUp(length/sectorSize/8, sectorSize)
	var a sparse.Assembly
	for n := range blocks {
		sector := be.Uint32(table[4*n:])
		if sector == unallocated {
			continue
		}
		at, count := int64(sector)*sectorSize+bitmap, min(length, disk-n*length)
		if at > file.Size-count {
			return sparse.Content{}, invalidAt(at, "block %d is after the end of the file, which has %d bytes", n, file.Size)
		}
		if !a.Add(n*length, count, file.ReaderAt, at) {
			return sparse.Content{}, fmt.Errorf("VHD: %w: the disk is in too many pieces", ErrUnsupported)
		}
	}
	return a.Content(disk)
}

func invalidAt(at int64, format string, args ...any) error {
	return fmt.Errorf("%w: byte %d: %s", ErrFormat, at, fmt.Sprintf(format, args...))
}

// verify reports whether a structure has its checksum at an offset.
func verify(b []byte, at int, sum uint32) bool {
	binary.BigEndian.PutUint32(b[at:], 0)
	ok := checksum(b) == sum
	binary.BigEndian.PutUint32(b[at:], sum)
	return ok
}
