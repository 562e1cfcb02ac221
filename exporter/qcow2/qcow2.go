// Package qcow2 writes disks in QEMU's copy-on-write format.
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

// New returns a qcow2 file with a disk. It fails if the size of the disk is not a
// multiple of 512 bytes, or exceeds 2 PiB.
func New(disk sparse.Content) (sparse.Content, error) {
	if disk.Size%512 != 0 || disk.Size <= 0 || disk.Size > maxSize {
		return sparse.Content{}, fmt.Errorf("qcow2: the size of a disk must be a multiple of 512 bytes, up to %d, not %d", int64(maxSize), disk.Size)
	}
	extents := dataClusters(disk)
	var data, l2 int64
	lastL2 := int64(-1)
	for _, e := range extents {
		data += e.count
		first := max(e.first/l2Entries, lastL2+1)
		lastL2 = (e.first + e.count - 1) / l2Entries
		l2 += lastL2 + 1 - first
	}
	l1Entries := divide(disk.Size, l2Entries*clusterSize)
	l1 := divide(l1Entries, tableEntries)
	// The refcounts include the clusters of the refcount table and blocks.
	var blocks, table, total int64
	for {
		total = 1 + l1 + table + blocks + l2 + data
		b := divide(total, refcountEntries)
		if t := divide(b, tableEntries); b == blocks && t == table {
			break
		} else {
			blocks, table = b, t
		}
	}
	l1At := int64(1)
	tableAt := l1At + l1
	blocksAt := tableAt + table
	l2At := blocksAt + blocks
	dataAt := l2At + l2

	be := binary.BigEndian
	header := make([]byte, headerLength)
	copy(header, "QFI\xfb")
	be.PutUint32(header[4:], 3)
	be.PutUint32(header[20:], clusterBits)
	be.PutUint64(header[24:], uint64(disk.Size))
	be.PutUint32(header[36:], uint32(l1Entries))
	be.PutUint64(header[40:], uint64(l1At*clusterSize))
	be.PutUint64(header[48:], uint64(tableAt*clusterSize))
	be.PutUint32(header[56:], uint32(table))
	be.PutUint32(header[96:], refcountOrder)
	be.PutUint32(header[100:], headerLength)

	l1Table := make([]byte, 8*l1Entries)
	l2Tables := make([]byte, l2*clusterSize)
	runs := sparse.Bytes(header).At(0)
	next, nextL2 := dataAt, l2At
	rest := disk.Runs
	for _, e := range extents {
		for n := range e.count {
			cluster := e.first + n
			entry := l1Table[8*(cluster/l2Entries):]
			if be.Uint64(entry) == 0 {
				be.PutUint64(entry, uint64(nextL2*clusterSize)|usedOnce)
				nextL2++
			}
			be.PutUint64(l2Tables[(nextL2-1-l2At)*clusterSize+8*(cluster%l2Entries):], uint64((next+n)*clusterSize)|usedOnce)
		}
		shift := (next - e.first) * clusterSize
		for len(rest) > 0 && rest[0].Offset < (e.first+e.count)*clusterSize {
			run := rest[0]
			run.Offset += shift
			runs = append(runs, run)
			rest = rest[1:]
		}
		next += e.count
	}
	refcountTable := make([]byte, 8*blocks)
	for n := range blocks {
		be.PutUint64(refcountTable[8*n:], uint64((blocksAt+n)*clusterSize))
	}
	refcounts := make([]byte, 2*total)
	for n := range total {
		be.PutUint16(refcounts[2*n:], 1)
	}
	for at, part := range map[int64][]byte{l1At: l1Table, tableAt: refcountTable, blocksAt: refcounts, l2At: l2Tables} {
		runs = append(runs, sparse.Bytes(part).At(at*clusterSize)...)
	}
	return sparse.New(total*clusterSize, runs, nil)
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
