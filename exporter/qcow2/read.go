package qcow2

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"github.com/slipway-build/slipway/exporter/sparse"
)

// ErrFormat is the error for a file that is not a qcow2 file, or is damaged.
var ErrFormat = errors.New("not a qcow2 file")

// ErrUnsupported is the error for a feature that Read does not support.
var ErrUnsupported = errors.New("unsupported feature")

const magic = "QFI\xfb"

// Limits and fields of files from others.
const (
	minClusterBits, maxClusterBits = 9, 21

	maxL1 = 32 << 20 // bytes, as in QEMU

	compressed   = 1 << 62 // in an entry of an L2 table
	allZero      = 1
	offsetMask   = 0x00fffffffffffe00
	incompatOK   = 1 | 1<<3 // dirty reference counts; another compression
	zstdClusters = 1
)

// Read returns the disk in a file of size bytes: the current state, without
// snapshots. The bytes of the disk stay in r.
//
// The error is ErrFormat for a file that is not qcow2 or is damaged,
// ErrUnsupported for a backing file, encryption, an external data file and
// extended L2 entries, and the one of r if that fails.
func Read(r io.ReaderAt, size int64) (sparse.Content, error) {
	q := reader{in: sparse.File{ReaderAt: r, Size: size, Format: "qcow2", Err: ErrFormat}}
	b, err := q.in.Bytes(0, 72)
	if err != nil {
		return sparse.Content{}, err
	}
	be := binary.BigEndian
	version, clusterBits := be.Uint32(b[4:]), be.Uint32(b[20:])
	if string(b[:4]) != magic || version < 2 || version > 3 {
		return sparse.Content{}, invalidAt(0, "there is no header of version 2 or 3")
	}
	if clusterBits < minClusterBits || clusterBits > maxClusterBits {
		return sparse.Content{}, invalidAt(20, "clusters have 2^%d bytes", clusterBits)
	}
	q.clusterBits, q.clusterSize = clusterBits, 1<<clusterBits
	switch {
	case be.Uint64(b[8:]) != 0:
		return sparse.Content{}, fmt.Errorf("qcow2: %w: a backing file: flatten it with qemu-img convert", ErrUnsupported)
	case be.Uint32(b[32:]) != 0:
		return sparse.Content{}, fmt.Errorf("qcow2: %w: encryption", ErrUnsupported)
	}
	if version == 3 {
		if err := q.features(); err != nil {
			return sparse.Content{}, err
		}
	}
	disk := be.Uint64(b[24:])
	entries := int64(be.Uint32(b[36:]))
	reach := q.clusterSize / 8 * q.clusterSize // bytes of the disk per L2 table
	if disk > maxSize || 8*entries > maxL1 || entries < divide(int64(disk), reach) {
		return sparse.Content{}, invalidAt(24, "the disk has %d bytes and an L1 table of %d entries", disk, entries)
	}
	l1, err := q.in.Bytes(int64(be.Uint64(b[40:])), 8*entries)
	if err != nil {
		return sparse.Content{}, err
	}
	q.disk = int64(disk)
	blocks := &sparse.BlockReader{Size: q.disk, BlockSize: q.clusterSize, Block: func(number int64) ([]byte, error) {
		return q.unpack(number, l1)
	}}
	var a sparse.Assembly
	for n := int64(0); n*reach < q.disk; n++ {
		table, err := q.table(l1, n)
		if err != nil {
			return sparse.Content{}, err
		}
		if err := q.addTable(&a, table, n*reach, blocks); err != nil {
			return sparse.Content{}, err
		}
	}
	return a.Content(q.disk)
}

// reader reads one file.
type reader struct {
	in          sparse.File
	disk        int64 // bytes
	clusterBits uint32
	clusterSize int64
	zstd        bool
}

func invalidAt(at int64, format string, args ...any) error {
	return fmt.Errorf("%w: byte %d: %s", ErrFormat, at, fmt.Sprintf(format, args...))
}

// features reads the fields that version 3 added to the header.
func (q *reader) features() error {
	b, err := q.in.Bytes(72, 32)
	if err != nil {
		return err
	}
	be := binary.BigEndian
	incompatible := be.Uint64(b)
	if incompatible&^incompatOK != 0 {
		return fmt.Errorf("qcow2: %w: incompatible features %#x", ErrUnsupported, incompatible&^incompatOK)
	}
	if incompatible&(1<<3) != 0 {
		if b, err = q.in.Bytes(104, 1); err != nil {
			return err
		}
		if q.zstd = b[0] == zstdClusters; !q.zstd {
			return fmt.Errorf("qcow2: %w: compression %d", ErrUnsupported, b[0])
		}
	}
	return nil
}

// table returns an L2 table, or nil if there is none.
func (q *reader) table(l1 []byte, n int64) ([]byte, error) {
	at := int64(binary.BigEndian.Uint64(l1[8*n:]) & offsetMask)
	if at == 0 {
		return nil, nil
	}
	return q.in.Bytes(at, q.clusterSize)
}

// addTable adds the clusters of an L2 table for the disk from an offset on.
func (q *reader) addTable(a *sparse.Assembly, table []byte, offset int64, blocks *sparse.BlockReader) error {
	for ; len(table) > 0 && offset < q.disk; table, offset = table[8:], offset+q.clusterSize {
		entry := binary.BigEndian.Uint64(table)
		length := min(q.clusterSize, q.disk-offset)
		ok := true
		switch at := int64(entry & offsetMask); {
		case entry&compressed != 0:
			ok = a.AddBlock(offset, length, blocks)
		case at == 0 || entry&allZero != 0:
		case at > q.in.Size-length:
			return invalidAt(at, "a cluster is after the end of the file, which has %d bytes", q.in.Size)
		default:
			ok = a.Add(offset, length, q.in.ReaderAt, at)
		}
		if !ok {
			return fmt.Errorf("qcow2: %w: the disk is in too many pieces", ErrUnsupported)
		}
	}
	return nil
}

// unpack returns a compressed cluster of the disk (qcow2.txt, "Compressed Clusters
// Descriptor").
func (q *reader) unpack(cluster int64, l1 []byte) ([]byte, error) {
	perTable := q.clusterSize / 8
	table, err := q.table(l1, cluster/perTable)
	if err != nil {
		return nil, err
	}
	entry := binary.BigEndian.Uint64(table[8*(cluster%perTable):])
	sizeShift := 62 - (q.clusterBits - 8)
	at := int64(entry & (1<<sizeShift - 1))
	sectors := int64(entry&(compressed-1)>>sizeShift) + 1
	// The last sector may be the last of the file, and shorter.
	b, err := q.in.Bytes(at, max(0, min(sectors*512-at%512, q.in.Size-at)))
	if err != nil {
		return nil, err
	}
	var unpacked io.Reader = flate.NewReader(bytes.NewReader(b))
	if q.zstd {
		z, err := zstd.NewReader(bytes.NewReader(b), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(8<<20), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, err
		}
		defer z.Close()
		unpacked = z
	}
	out := make([]byte, q.clusterSize)
	if _, err := io.ReadFull(unpacked, out); err != nil {
		return nil, invalidAt(at, "a compressed cluster: %v", err)
	}
	return out, nil
}
