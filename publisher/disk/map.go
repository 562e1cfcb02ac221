package disk

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/slipway-build/slipway/exporter/diskmap"
)

// errMapOnly is the error of reading a disk of which only the map is known.
var errMapOnly = errors.New("a map has only the digests of a disk, not its content")

// OpenMap reads the map of a disk instead of the disk. Only the size, the
// digests and Free of the result are known. It fails if the map has no digests.
func OpenMap(path string) (*Disk, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	m, err := diskmap.Read(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if m.Digests == nil {
		return nil, fmt.Errorf("%s: it has no digests of blocks: build the disk again with --build-arg MAP=true, or use the disk", path)
	}
	if m.Size > MaxSize {
		return nil, fmt.Errorf("%s: the disk is larger than the largest volume (%d GiB)", path, MaxSize>>30)
	}
	d := &Disk{Name: path, Size: m.Size, free: freeBlocks(&m)}
	for _, digest := range m.Digests {
		b := Block{Index: digest.Block}
		if _, err := hex.Decode(b.Sum[:], []byte(digest.SHA256)); err != nil { // checked by Read
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		d.Blocks = append(d.Blocks, b)
	}
	return d, nil
}

// MapOnly reports whether OpenMap opened the disk.
func (d *Disk) MapOnly() bool { return d.content == nil }

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
