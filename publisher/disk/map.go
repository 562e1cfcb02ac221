package disk

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/slipway-build/slipway/exporter/diskmap"
)

// readMap reads the map of the disk. It returns nil if there is no valid one.
//
// A publisher trusts a map in one respect only: whether zeros matter. scan compares it
// with the disk, so that the map of another disk has no effect.
func (d *Disk) readMap(path string) *diskmap.Map {
	ignored := func(why any) *diskmap.Map {
		d.warnings = append(d.warnings, fmt.Sprintf("%s is ignored: %v", path, why))
		return nil
	}
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return ignored(err)
	}
	defer file.Close()
	m, err := diskmap.Read(file)
	if err != nil {
		return ignored(err)
	}
	if m.Size != d.Size {
		return ignored(fmt.Sprintf("it is the map of a disk of %d bytes, this one has %d", m.Size, d.Size))
	}
	return &m
}

// fits reports whether a piece of the disk is zero wherever the map has no data.
func fits(m *diskmap.Map, at int64, piece []byte) bool {
	end := at + int64(len(piece))
	i, _ := slices.BinarySearchFunc(m.Extents, at, func(e diskmap.Extent, at int64) int { return cmp.Compare(e.End(), at+1) })
	for ; i < len(m.Extents) && m.Extents[i].Offset < end; i++ {
		e := m.Extents[i]
		if e.Type != diskmap.Data && !isZero(piece[max(e.Offset, at)-at:min(e.End(), end)-at]) {
			return false
		}
	}
	return true
}

// freeBlocks returns the blocks that are entirely free.
func freeBlocks(m *diskmap.Map) []extent {
	var free []extent
	start, end := int64(0), int64(0) // bytes
	flush := func() {
		if first, last := (start+BlockSize-1)/BlockSize, end/BlockSize; first < last {
			free = append(free, extent{first, last})
		}
	}
	for _, e := range m.Extents {
		if e.Type != diskmap.Free {
			continue
		}
		if e.Offset != end {
			flush()
			start = e.Offset
		}
		end = e.End()
	}
	flush()
	return free
}
