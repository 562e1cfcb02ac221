package vmdk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zlib"

	"github.com/slipway-build/slipway/exporter/sparse"
)

// ErrFormat is the error for a file that is not a sparse extent of a VMDK, or is
// damaged.
var ErrFormat = errors.New("not a sparse VMDK")

// ErrUnsupported is the error for a feature that Read does not support.
var ErrUnsupported = errors.New("unsupported feature")

const (
	flagCompressed = 1 << 16

	minGrain, maxGrain       = 1, 2048    // sectors
	minEntries, maxEntries   = 128, 16384 // of a table
	maxDirectory             = 1 << 22    // entries
	grainMarker              = 12         // bytes before a compressed grain
	maxCompressedGrainExcess = 4096       // bytes that compression may add
)

// Read returns the disk in a file of size bytes: a sparse extent, with or without
// compression. The bytes of the disk stay in r.
//
// The error is ErrFormat for a file that is not a sparse extent or is damaged,
// ErrUnsupported for other compressions than deflate, and the one of r if that
// fails.
func Read(r io.ReaderAt, size int64) (sparse.Content, error) {
	v := reader{in: sparse.File{ReaderAt: r, Size: size, Format: "VMDK", Err: ErrFormat}}
	b, err := v.header(0)
	if err != nil {
		return sparse.Content{}, err
	}
	le := binary.LittleEndian
	if le.Uint64(b[56:]) == directoryAtEnd {
		// The copy of the header that has the directory is before the last marker.
		if b, err = v.header(size - 2*sectorSize); err != nil {
			return sparse.Content{}, err
		}
	}
	sectors, grain, entries := le.Uint64(b[12:]), le.Uint64(b[20:]), le.Uint32(b[44:])
	if sectors > maxSize/sectorSize || grain < minGrain || grain > maxGrain || grain&(grain-1) != 0 || entries < minEntries || entries > maxEntries {
		return sparse.Content{}, invalidAt(12, "%d sectors in grains of %d, and tables of %d entries", sectors, grain, entries)
	}
	v.disk, v.grain, v.entries = int64(sectors)*sectorSize, int64(grain)*sectorSize, int64(entries)
	if v.compressed = le.Uint32(b[8:])&flagCompressed != 0; v.compressed && le.Uint16(b[77:]) != compressedDeflate {
		return sparse.Content{}, fmt.Errorf("VMDK: %w: compression %d", ErrUnsupported, le.Uint16(b[77:]))
	}
	tables := (v.disk + v.entries*v.grain - 1) / (v.entries * v.grain)
	if tables > maxDirectory {
		return sparse.Content{}, invalidAt(12, "there are %d tables", tables)
	}
	if v.directory, err = v.in.Bytes(int64(min(le.Uint64(b[56:]), 1<<40))*sectorSize, 4*tables); err != nil {
		return sparse.Content{}, err
	}
	return v.assemble()
}

// reader reads one file.
type reader struct {
	in          sparse.File
	disk, grain int64 // bytes
	entries     int64 // of a table
	compressed  bool
	directory   []byte
}

func invalidAt(at int64, format string, args ...any) error {
	return fmt.Errorf("%w: byte %d: %s", ErrFormat, at, fmt.Sprintf(format, args...))
}

// header reads a header.
func (v *reader) header(at int64) ([]byte, error) {
	b, err := v.in.Bytes(at, sectorSize)
	if err == nil && (string(b[:4]) != "KDMV" || b[73] != '\n') {
		err = invalidAt(at, "there is no header")
	}
	return b, err
}

// table returns the sectors of the grains of a table, or nil if there is none.
func (v *reader) table(n int64) ([]byte, error) {
	sector := binary.LittleEndian.Uint32(v.directory[4*n:])
	if sector == 0 {
		return nil, nil
	}
	return v.in.Bytes(int64(sector)*sectorSize, 4*v.entries)
}

// assemble finds all grains.
func (v *reader) assemble() (sparse.Content, error) {
	blocks := &sparse.BlockReader{Size: v.disk, BlockSize: v.grain, Block: v.unpack}
	var a sparse.Assembly
	for n := int64(0); 4*n < int64(len(v.directory)); n++ {
		table, err := v.table(n)
		if err != nil {
			return sparse.Content{}, err
		}
		for i := int64(0); 4*i < int64(len(table)); i++ {
			// Sector 1 stands for a grain of zeros.
			sector, offset := binary.LittleEndian.Uint32(table[4*i:]), (n*v.entries+i)*v.grain
			if sector <= 1 || offset >= v.disk {
				continue
			}
			length, ok := min(v.grain, v.disk-offset), true
			switch at := int64(sector) * sectorSize; {
			case v.compressed:
				ok = a.AddBlock(offset, length, blocks)
			case at > v.in.Size-length:
				return sparse.Content{}, invalidAt(at, "a grain is after the end of the file, which has %d bytes", v.in.Size)
			default:
				ok = a.Add(offset, length, v.in.ReaderAt, at)
			}
			if !ok {
				return sparse.Content{}, fmt.Errorf("VMDK: %w: the disk is in too many pieces", ErrUnsupported)
			}
		}
	}
	return a.Content(v.disk)
}

// unpack returns a compressed grain of the disk.
func (v *reader) unpack(grain int64) ([]byte, error) {
	table, err := v.table(grain / v.entries)
	if err != nil || table == nil {
		return nil, err
	}
	sector := binary.LittleEndian.Uint32(table[4*(grain%v.entries):])
	if sector <= 1 {
		return nil, nil
	}
	at := int64(sector) * sectorSize
	marker, err := v.in.Bytes(at, grainMarker)
	if err != nil {
		return nil, err
	}
	length := int64(binary.LittleEndian.Uint32(marker[8:]))
	if first := binary.LittleEndian.Uint64(marker); first != uint64(grain*v.grain/sectorSize) || length > v.grain+maxCompressedGrainExcess {
		return nil, invalidAt(at, "the marker of grain %d says %d bytes for sector %d", grain, length, first)
	}
	b, err := v.in.Bytes(at+grainMarker, length)
	if err != nil {
		return nil, err
	}
	z, err := zlib.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, invalidAt(at, "a grain: %v", err)
	}
	out, err := io.ReadAll(io.LimitReader(z, v.grain))
	if err != nil {
		return nil, invalidAt(at, "a grain: %v", err)
	}
	return out, nil
}
