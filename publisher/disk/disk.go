// Package disk reads raw disks for publishers: in blocks with their digests, without
// holes and zeros. It also finds out how a disk boots.
package disk

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// BlockSize is the size of a block of EBS in bytes.
const BlockSize = 512 << 10

// MaxSize is the size of the largest volume of EBS in bytes.
const MaxSize = 16 << 40

// A Sum is the SHA-256 digest of a block.
type Sum [sha256.Size]byte

// Zero is the digest of a block of zeros.
var Zero = Sum(sha256.Sum256(make([]byte, BlockSize)))

// A Block is a block that is not all zeros. The last block of a disk is padded with
// zeros.
type Block struct {
	Index int32
	Sum   Sum
}

// An Extent is a part of a disk.
type Extent struct {
	Offset, Length int64 // bytes
}

// A Disk is a raw disk in a file or elsewhere, or only the map of one.
type Disk struct {
	Name   string // of the file, for messages
	Size   int64  // bytes
	Blocks []Block

	content  io.ReaderAt // nil if only the map is known
	file     *os.File    // the content, unless that is elsewhere
	temp     bool
	free     []extent // blocks that no program reads, see Free
	warnings []string

	verifying sync.Mutex
	claimed   atomic.Bool // Blocks has the digests of the map, which no one has verified
}

// Open reads a file, except holes, and computes its digests. The caller must close
// the disk.
//
// If there is a map of the disk, PATH.map, Free uses it. If the map is as new as
// the disk and has digests, Open takes these, and reads only the blocks that must be
// zero and a sample of the others. See Verify.
func Open(ctx context.Context, path string) (*Disk, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	d := &Disk{Name: path, content: file, file: file}
	if err := d.scan(ctx, path+".map"); err != nil {
		file.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return d, nil
}

// New returns a disk of which all is known, and content that cannot change. The
// blocks are those that are not zero, in order. The extents in free are parts of
// the disk that no program reads before it writes them.
func New(name string, size int64, blocks []Block, free []Extent, content io.ReaderAt) *Disk {
	d := &Disk{Name: name, Size: size, Blocks: blocks, content: content}
	for _, e := range free {
		first, end := (e.Offset+BlockSize-1)/BlockSize, (e.Offset+e.Length)/BlockSize
		if first < end {
			d.free = append(d.free, extent{first, end})
		}
	}
	return d
}

// Spool is like Open for input from a pipe. It buffers the input in a sparse temporary
// file in dir, because an upload needs the size and the digests in advance. Close
// removes the file.
func Spool(ctx context.Context, r io.Reader, dir string) (*Disk, error) {
	file, err := os.CreateTemp(dir, "slipway-disk-")
	if err != nil {
		return nil, err
	}
	// Without a name, the file goes even if the process is killed. Where an open
	// file cannot be removed, Close removes it.
	removed := os.Remove(file.Name()) == nil
	d := &Disk{Name: "standard input", content: file, file: file, temp: !removed}
	if err := spool(ctx, r, file); err != nil {
		d.Close()
		return nil, fmt.Errorf("copy standard input to %s: %w", file.Name(), err)
	}
	if err := d.scan(ctx, ""); err != nil {
		d.Close()
		return nil, fmt.Errorf("%s: %w", d.Name, err)
	}
	return d, nil
}

func spool(ctx context.Context, r io.Reader, file *os.File) error {
	block := make([]byte, BlockSize)
	for at := int64(0); ; {
		n, err := readFull(ctx, r, block)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !isZero(block[:n]) {
			if _, err := file.WriteAt(block[:n], at); err != nil {
				return err
			}
		}
		at += int64(n)
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return file.Truncate(at)
		}
		if err != nil {
			return err
		}
	}
}

// readFull is io.ReadFull that ends when ctx does, although r may be a pipe that
// delivers nothing. The read continues then, so that block must not be used.
func readFull(ctx context.Context, r io.Reader, block []byte) (int, error) {
	type result struct {
		n   int
		err error
	}
	done := make(chan result, 1)
	go func() {
		n, err := io.ReadFull(r, block)
		done <- result{n, err}
	}()
	select {
	case got := <-done:
		return got.n, got.err
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

// Close closes the file, and removes it if Spool created it.
func (d *Disk) Close() error {
	if d.file == nil {
		return nil
	}
	err := d.file.Close()
	if d.temp {
		err = errors.Join(err, os.Remove(d.file.Name()))
	}
	return err
}

// ReadAt implements io.ReaderAt.
func (d *Disk) ReadAt(p []byte, at int64) (int, error) {
	if d.content == nil {
		return 0, errMapOnly
	}
	return d.content.ReadAt(p, at)
}

// ReadBlock reads a block. After the end of the disk, it is padded with zeros.
func (d *Disk) ReadBlock(index int32, block *[BlockSize]byte) error {
	n, err := d.ReadAt(block[:], int64(index)*BlockSize)
	if err == io.EOF {
		err = nil
	}
	clear(block[n:])
	return err
}

// Digest returns a digest of the content, in hexadecimal: the SHA-256 of the size, and
// of the index and the digest of all blocks that are not zero. It does not depend on
// the holes of the file.
func (d *Disk) Digest() string {
	h := sha256.New()
	h.Write([]byte("slipway disk 1\n"))
	binary.Write(h, binary.BigEndian, d.Size)
	for _, block := range d.Blocks {
		binary.Write(h, binary.BigEndian, block)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Changed reads the file again and reports whether its content differs from what
// Open read.
func (d *Disk) Changed(ctx context.Context) (bool, error) {
	if d.temp || d.file == nil { // no one else has the file, or it cannot change
		return false, nil
	}
	now := &Disk{Name: d.Name, content: d.file, file: d.file}
	if err := now.scan(ctx, ""); err != nil {
		return false, fmt.Errorf("%s: %w", d.Name, err)
	}
	return now.Digest() != d.Digest(), nil
}

// Count returns the number of blocks of the disk, including those of zeros.
func (d *Disk) Count() int32 { return int32((d.Size + BlockSize - 1) / BlockSize) }

// extent is a range of blocks that may have data.
type extent struct{ first, end int64 }

// scan reads the disk, and its map if there is one.
func (d *Disk) scan(ctx context.Context, mapPath string) error {
	if err := d.measure(); err != nil {
		return err
	}
	extents, err := d.extents()
	if err != nil {
		return err
	}
	m := d.readMap(mapPath)
	if m != nil && m.Digests != nil {
		if err := d.takeDigests(ctx, m, mapPath, extents); err != nil || d.claimed.Load() {
			return err
		}
	}
	var mismatch atomic.Bool // between map and disk
	check := func(at int64, block []byte) {
		if m != nil && !fits(m, at, block) {
			mismatch.Store(true)
		}
	}
	if d.Blocks, err = d.digest(ctx, extents, check); err != nil {
		return err
	}
	if mismatch.Load() {
		d.warnings = append(d.warnings, mapPath+" is ignored: it is the map of another disk, because this one has data where the map has none")
	} else if m != nil {
		d.free = freeBlocks(m)
	}
	return nil
}

// measure sets the size of the disk. It fails if the file cannot be a disk.
func (d *Disk) measure() error {
	info, err := d.file.Stat()
	if err != nil {
		return err
	}
	if kind := info.Mode().Type(); kind != 0 && kind != fs.ModeDevice {
		return errors.New("it is neither a file nor a block device; use - for standard input")
	}
	if d.Size, err = d.file.Seek(0, io.SeekEnd); err != nil {
		return err
	}
	switch {
	case d.Size == 0:
		return errors.New("the file is empty; use the disk image of a finished build")
	case d.Size > MaxSize:
		return fmt.Errorf("a disk of %d GiB is larger than the largest volume (%d GiB); build a smaller one", d.Size>>30, MaxSize>>30)
	}
	return nil
}

// digest reads extents on all processors. It returns the blocks that are not zero,
// and calls check from several goroutines for each of these.
func (d *Disk) digest(ctx context.Context, extents []extent, check func(at int64, block []byte)) ([]Block, error) {
	// A worker reads 16 blocks in a row, so that the system reads ahead.
	const batch = 16
	var batches []extent
	for _, e := range extents {
		for first := e.first; first < e.end; first += batch {
			batches = append(batches, extent{first, min(first+batch, e.end)})
		}
	}
	var next atomic.Int64
	found := make([][]Block, runtime.GOMAXPROCS(0))
	group, ctx := errgroup.WithContext(ctx)
	for worker := range found {
		group.Go(func() error {
			block := new([BlockSize]byte)
			for n := next.Add(1) - 1; n < int64(len(batches)); n = next.Add(1) - 1 {
				if err := ctx.Err(); err != nil {
					return err
				}
				for i := batches[n].first; i < batches[n].end; i++ {
					if err := d.ReadBlock(int32(i), block); err != nil {
						return err
					}
					if !isZero(block[:]) {
						found[worker] = append(found[worker], Block{int32(i), sha256.Sum256(block[:])})
						check(i*BlockSize, block[:])
					}
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	blocks := slices.Concat(found...)
	slices.SortFunc(blocks, func(a, b Block) int { return int(a.Index) - int(b.Index) })
	return blocks, nil
}

// Free reports whether, according to the map of the disk, no program reads the block
// before it writes it. The block is zero in the file.
func (d *Disk) Free(index int32) bool { return isFree(d.free, index) }

func isFree(free []extent, index int32) bool {
	i, found := slices.BinarySearchFunc(free, int64(index), func(e extent, index int64) int { return cmp.Compare(e.first, index) })
	return found || i > 0 && int64(index) < free[i-1].end
}

// FreeExtents returns the blocks for which Free is true, as parts of the disk.
func (d *Disk) FreeExtents() []Extent {
	var free []Extent
	for _, e := range d.free {
		free = append(free, Extent{e.first * BlockSize, (e.end - e.first) * BlockSize})
	}
	return free
}

// extents returns the blocks that are not entirely in holes.
func (d *Disk) extents() ([]extent, error) {
	var extents []extent
	for at := int64(0); at < d.Size; {
		start, end, err := nextData(d.file, at, d.Size)
		if err != nil {
			return nil, err
		}
		if start >= end {
			break
		}
		e := extent{start / BlockSize, (end + BlockSize - 1) / BlockSize}
		if last := len(extents) - 1; last >= 0 && e.first <= extents[last].end {
			extents[last].end = max(extents[last].end, e.end)
		} else {
			extents = append(extents, e)
		}
		at = end
	}
	return extents, nil
}

var zeros [32 << 10]byte

func isZero(data []byte) bool {
	for len(data) > len(zeros) {
		if !bytes.Equal(data[:len(zeros)], zeros[:]) {
			return false
		}
		data = data[len(zeros):]
	}
	return bytes.Equal(data, zeros[:len(data)])
}
