// Package qcow2 puts disks into QEMU's copy-on-write format.
//
// Format: QEMU, docs/interop/qcow2.txt, version 3. Numbers are big-endian.
// Layout of a file, in clusters of 64 KiB:
//
//	0    header
//	1 …  L1 table, which points to L2 tables
//	…    refcount table, which points to refcount blocks
//	…    refcount blocks: how often each cluster of the file is used, always once
//	…    L2 tables, which point to clusters of data, in the disk's order
//	…    the clusters of the disk that have data, in its order
//
// Clusters of zeros are not stored. Nothing is compressed: what is on a disk
// mostly is already.
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

	// usedOnce is set in entries of tables whose cluster nobody else uses.
	usedOnce = 1 << 63
	// maxSize is what L1 tables of the most common limit (32 MiB) reach.
	maxSize = 4 << 20 * l2Entries * clusterSize
)

// Image puts a disk into a qcow2 file. It fails if the disk is no multiple of
// 512 bytes or has more than 2 EiB.
func Image(disk sparse.Content) (sparse.Content, error) {
	if disk.Size%512 != 0 || disk.Size <= 0 || disk.Size > maxSize {
		return sparse.Content{}, fmt.Errorf("qcow2: a disk has a multiple of 512 bytes, up to %d, not %d", int64(maxSize), disk.Size)
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
	// Blocks and table count themselves too.
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

// extent is a run of clusters.
type extent struct{ first, count int64 }

// dataClusters lists what of the disk is stored. No run is in two extents.
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

// divide rounds up.
func divide(a, b int64) int64 { return (a + b - 1) / b }
