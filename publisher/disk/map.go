package disk

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync/atomic"
	"time"

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
	if d.Blocks, err = decodeDigests(&m); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return d, nil
}

// decodeDigests returns the digests of a map. Zero blocks need none.
func decodeDigests(m *diskmap.Map) ([]Block, error) {
	blocks := make([]Block, 0, len(m.Digests))
	for _, digest := range m.Digests {
		b := Block{Index: digest.Block}
		if _, err := hex.Decode(b.Sum[:], []byte(digest.SHA256)); err != nil { // checked by Read
			return nil, err
		}
		if b.Sum != Zero {
			blocks = append(blocks, b)
		}
	}
	return blocks, nil
}

// MapOnly reports whether OpenMap opened the disk.
func (d *Disk) MapOnly() bool { return d.content == nil }

// readMap reads the map of the disk. It returns nil if there is no valid one.
//
// A publisher trusts a map in one respect only: whether zeros matter. scan compares it
// with the disk, so that the map of another disk has no effect. Digests of a map are
// verified before they matter, see Verify.
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

// samples is the number of blocks whose digests takeDigests verifies.
const samples = 8

// takeDigests takes the digests of a map, if it is not older than the disk. Who
// wrote the map is not known, so the blocks without digests must be zero, and a
// sample of the others must match.
func (d *Disk) takeDigests(ctx context.Context, m *diskmap.Map, mapPath string, extents []extent) error {
	if info, err := d.file.Stat(); err != nil || !newer(mapPath, info.ModTime()) {
		return err
	}
	blocks, err := decodeDigests(m)
	if err != nil {
		return err
	}
	free := freeBlocks(m)
	var gaps []extent // blocks without digests, which may have data
	rest := blocks
	for _, e := range extents {
		first := e.first
		for len(rest) > 0 && int64(rest[0].Index) < e.end {
			if at := int64(rest[0].Index); at >= first {
				if at > first {
					gaps = append(gaps, extent{first, at})
				}
				first = at + 1
			}
			rest = rest[1:]
		}
		if first < e.end {
			gaps = append(gaps, extent{first, e.end})
		}
	}
	search, stop := context.WithCancel(ctx)
	defer stop()
	var found atomic.Bool // data in a block without a digest
	_, err = d.digest(search, gaps, func(int64, []byte) {
		found.Store(true)
		stop()
	})
	if err != nil && !found.Load() {
		return err
	}
	good := !found.Load()
	block := new([BlockSize]byte)
	for i := 0; i < len(blocks) && good; i += max(1, len(blocks)/samples) {
		if err := d.ReadBlock(blocks[i].Index, block); err != nil {
			return err
		}
		good = sha256.Sum256(block[:]) == blocks[i].Sum
	}
	for _, b := range blocks {
		good = good && !isFree(free, b.Index)
	}
	if good { // or else the caller says what is wrong, if it matters
		d.Blocks, d.free = blocks, free
		d.claimed.Store(true)
	}
	return nil
}

// newer reports whether a file is at least as new as a time.
func newer(path string, than time.Time) bool {
	info, err := os.Stat(path)
	return err == nil && !info.ModTime().Before(than)
}

// Verify reads the whole disk if Blocks has digests of a map, and fails if they are
// not those of the disk. A program must call it before it relies on a digest
// without anyone comparing it with the content. EBS compares what is uploaded.
func (d *Disk) Verify(ctx context.Context) error {
	d.verifying.Lock()
	defer d.verifying.Unlock()
	if !d.claimed.Load() {
		return nil
	}
	now := &Disk{Name: d.Name, content: d.file, file: d.file}
	if err := now.scan(ctx, ""); err != nil {
		return fmt.Errorf("%s: %w", d.Name, err)
	}
	if !slices.Equal(now.Blocks, d.Blocks) {
		return d.Mismatch()
	}
	d.claimed.Store(false)
	return nil
}

// Mismatch returns the error of a disk whose content differs from its digests:
// because it has changed or because its map is wrong.
func (d *Disk) Mismatch() error {
	if d.claimed.Load() {
		return fmt.Errorf("%s does not match its map: remove %s.map, or build the disk again", d.Name, d.Name)
	}
	return fmt.Errorf("%s changed during the upload; repeat it when the disk is complete", d.Name)
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
