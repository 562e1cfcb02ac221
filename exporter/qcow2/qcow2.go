// Package qcow2 writes and reads disks in QEMU's copy-on-write format.
//
// Format: QEMU, docs/interop/qcow2.txt, version 3. Numbers are big-endian. Layout of
// a file in clusters of 64 KiB:
//
//	0    header
//	1 …  L1 table, which points to L2 tables
//	…    refcount table, which points to refcount blocks
//	…    refcount blocks: the number of uses of each cluster, always 1
//	…    L2 tables, which point to data clusters, in the order of the disk
//	…    data clusters, in the order of the disk
//
// Clusters of zeros are not stored. Data is not compressed, because a machine's
// kernel and initramfs already are.
package qcow2

import (
	"encoding/binary"
	"fmt"

	"github.com/slipway-build/slipway/exporter/sparse"
)

const (
	clusterBits = 16
	clusterSize = 1 << clusterBits

	l2Entries       = clusterSize / 8
	refcountOrder   = 4 // entries of 16 bits
	refcountEntries = clusterSize / 2
	tableEntries    = clusterSize / 8 // per cluster of L1 and refcount tables

	headerLength = 104

	// usedOnce is the bit in a table entry whose cluster has no other use.
	usedOnce = 1 << 63
	// maxSize is the largest disk in bytes: QEMU limits L1 tables to 32 MiB.
	maxSize = 4 << 20 * l2Entries * clusterSize
)

// clusters is where the parts of a file are, in clusters.
type clusters struct {
	l1Entries                             int64
	l1, table, blocks, l2, data           int64 // numbers of clusters
	l1At, tableAt, blocksAt, l2At, dataAt int64 // first clusters
	total                                 int64
}

func newClusters(size int64, extents []extent) clusters {
	c := clusters{l1Entries: divide(size, l2Entries*clusterSize)}
	lastL2 := int64(-1)
	for _, e := range extents {
		c.data += e.count
		first := max(e.first/l2Entries, lastL2+1)
		lastL2 = (e.first + e.count - 1) / l2Entries
		c.l2 += lastL2 + 1 - first
	}
	c.l1 = divide(c.l1Entries, tableEntries)
	// The refcounts include the clusters of the refcount table and blocks.
	for {
		c.total = 1 + c.l1 + c.table + c.blocks + c.l2 + c.data
		blocks := divide(c.total, refcountEntries)
		table := divide(blocks, tableEntries)
		if blocks == c.blocks && table == c.table {
			break
		}
		c.blocks, c.table = blocks, table
	}
	c.l1At = 1
	c.tableAt = c.l1At + c.l1
	c.blocksAt = c.tableAt + c.table
	c.l2At = c.blocksAt + c.blocks
	c.dataAt = c.l2At + c.l2
	return c
}

// New returns a qcow2 file with a disk. It fails if the size of the disk is not a
// multiple of 512 bytes, or exceeds 2 PiB.
func New(disk sparse.Content) (sparse.Content, error) {
	if disk.Size%512 != 0 || disk.Size <= 0 || disk.Size > maxSize {
		return sparse.Content{}, fmt.Errorf("qcow2: the size of a disk must be a multiple of 512 bytes, up to %d, not %d", int64(maxSize), disk.Size)
	}
	extents := dataClusters(disk)
	c := newClusters(disk.Size, extents)
	l1, l2, runs := c.mapData(extents, disk.Runs)
	for at, part := range map[int64][]byte{0: c.header(disk.Size), c.l1At: l1, c.tableAt: c.refcountTable(), c.blocksAt: c.refcounts(), c.l2At: l2} {
		runs = append(runs, sparse.Bytes(part).At(at*clusterSize)...)
	}
	return sparse.New(c.total*clusterSize, runs, nil)
}

// header returns the header of a disk of size bytes.
func (c clusters) header(size int64) []byte {
	be := binary.BigEndian
	b := make([]byte, headerLength)
	copy(b, "QFI\xfb")
	be.PutUint32(b[4:], 3)
	be.PutUint32(b[20:], clusterBits)
	be.PutUint64(b[24:], uint64(size))
	be.PutUint32(b[36:], uint32(c.l1Entries))
	be.PutUint64(b[40:], uint64(c.l1At*clusterSize))
	be.PutUint64(b[48:], uint64(c.tableAt*clusterSize))
	be.PutUint32(b[56:], uint32(c.table))
	be.PutUint32(b[96:], refcountOrder)
	be.PutUint32(b[100:], headerLength)
	return b
}

// mapData returns the L1 table, the L2 tables, and the runs of the disk in the
// places that these refer to.
func (c clusters) mapData(extents []extent, disk []sparse.Run) (l1, l2 []byte, runs []sparse.Run) {
	be := binary.BigEndian
	l1, l2 = make([]byte, 8*c.l1Entries), make([]byte, c.l2*clusterSize)
	next, nextL2 := c.dataAt, c.l2At
	for _, e := range extents {
		for n := range e.count {
			cluster := e.first + n
			entry := l1[8*(cluster/l2Entries):]
			if be.Uint64(entry) == 0 {
				be.PutUint64(entry, uint64(nextL2*clusterSize)|usedOnce)
				nextL2++
			}
			be.PutUint64(l2[(nextL2-1-c.l2At)*clusterSize+8*(cluster%l2Entries):], uint64((next+n)*clusterSize)|usedOnce)
		}
		shift := (next - e.first) * clusterSize
		for len(disk) > 0 && disk[0].Offset < (e.first+e.count)*clusterSize {
			run := disk[0]
			run.Offset += shift
			runs = append(runs, run)
			disk = disk[1:]
		}
		next += e.count
	}
	return l1, l2, runs
}

func (c clusters) refcountTable() []byte {
	b := make([]byte, 8*c.blocks)
	for n := range c.blocks {
		binary.BigEndian.PutUint64(b[8*n:], uint64((c.blocksAt+n)*clusterSize))
	}
	return b
}

func (c clusters) refcounts() []byte {
	b := make([]byte, 2*c.total)
	for n := range c.total {
		binary.BigEndian.PutUint16(b[2*n:], 1)
	}
	return b
}

// extent is a range of clusters.
type extent struct{ first, count int64 }

// dataClusters returns the clusters of the disk with data. No run of the disk is in
// two extents.
func dataClusters(disk sparse.Content) []extent {
	var extents []extent
	for _, r := range disk.Runs {
		first, end := r.Offset/clusterSize, divide(r.End(), clusterSize)
		if last := len(extents) - 1; last >= 0 && first <= extents[last].first+extents[last].count {
			extents[last].count = end - extents[last].first
			continue
		}
		extents = append(extents, extent{first, end - first})
	}
	return extents
}

// divide returns a/b, rounded up.
func divide(a, b int64) int64 { return (a + b - 1) / b }
