// Package sparse describes the content of a file before it is written, as runs of
// bytes with zeros between them.
//
// The format packages lay out a disk as a Content, which is then written raw or in
// a container, for example qcow2. The bytes stay in their source files until then,
// so a Content needs memory for its list of runs only.
package sparse

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"sort"
	"sync"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/sync/errgroup"

	"github.com/slipway-build/slipway/exporter/diskmap"
)

// A Run is a run of bytes in a Content.
type Run struct {
	Offset, Size int64       // bytes
	Data         io.ReaderAt // has the bytes at its offsets 0 to Size
}

// End returns the offset of the end of the run in bytes.
func (r Run) End() int64 { return r.Offset + r.Size }

// A Range is a part of a Content, in bytes.
type Range struct{ Offset, Size int64 }

// Content is the content of a file. Its zero value is an empty file. New makes one
// from runs, and Bytes, Concat and Files.Open make simple ones.
type Content struct {
	Size int64 // bytes
	// Runs are in order and do not overlap. The bytes between them are zeros.
	Runs []Run
	// Free are the parts that no reader of the file looks at, for example the
	// unused clusters of a file system, in order. They read as zeros.
	Free []Range
}

// New returns a content of size bytes with runs in any order. It fails if runs
// overlap with each other or with free ranges, or lie outside of the content.
func New(size int64, runs []Run, free []Range) (Content, error) {
	var c Content
	c.Size = size
	taken := make([]Range, 0, len(runs)+len(free))
	for _, r := range runs {
		if r.Size > 0 {
			c.Runs = append(c.Runs, r)
			taken = append(taken, Range{r.Offset, r.Size})
		}
	}
	for _, f := range free {
		if f.Size > 0 {
			c.Free = append(c.Free, f)
			taken = append(taken, f)
		}
	}
	slices.SortFunc(c.Runs, func(a, b Run) int { return compare(a.Offset, b.Offset) })
	for _, ranges := range [][]Range{c.Free, taken} {
		slices.SortFunc(ranges, func(a, b Range) int { return compare(a.Offset, b.Offset) })
	}
	var end int64
	for _, r := range taken {
		if r.Offset < end || r.Size > size-r.Offset {
			return Content{}, fmt.Errorf("sparse: %d bytes at %d overlap with others or lie outside of the %d bytes", r.Size, r.Offset, size)
		}
		end = r.Offset + r.Size
	}
	return c, nil
}

func compare(a, b int64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// Bytes returns the content of a byte slice, which must not change.
func Bytes(b []byte) Content {
	c := Content{Size: int64(len(b))}
	if len(b) > 0 {
		c.Runs = []Run{{Size: c.Size, Data: bytes.NewReader(b)}}
	}
	return c
}

// Files opens files as contents, and closes them together.
type Files struct{ open []*os.File }

// Open opens a file. The content is valid until Close, if the file does not
// change.
func (f *Files) Open(name string) (Content, error) {
	file, err := os.Open(name)
	if err != nil {
		return Content{}, err
	}
	f.open = append(f.open, file)
	info, err := file.Stat()
	if err != nil {
		return Content{}, err
	}
	c := Content{Size: info.Size()}
	if c.Size > 0 {
		c.Runs = []Run{{Size: c.Size, Data: file}}
	}
	return c, nil
}

// Close closes all files.
func (f *Files) Close() {
	for _, file := range f.open {
		file.Close() // no data can be lost: it was only read
	}
}

// FromReader returns the content of size bytes that r has.
func FromReader(r io.ReaderAt, size int64) Content {
	return Content{Size: size, Runs: []Run{{Size: size, Data: r}}}
}

// Concat returns contents one after another.
func Concat(contents ...Content) Content {
	var all Content
	for _, c := range contents {
		all.Runs = append(all.Runs, c.At(all.Size)...)
		all.Size += c.Size
	}
	return all
}

// Pad rounds the size up to a multiple of alignment, with zeros at the end. The
// alignment is in bytes.
func (c Content) Pad(alignment int64) Content {
	c.Size = RoundUp(c.Size, alignment)
	return c
}

// RoundUp rounds a size up to a multiple of alignment.
func RoundUp(size, alignment int64) int64 {
	return (size + alignment - 1) / alignment * alignment
}

// At returns the runs of the content, moved to an offset in another one.
func (c Content) At(offset int64) []Run {
	runs := slices.Clone(c.Runs)
	for n := range runs {
		runs[n].Offset += offset
	}
	return runs
}

// ReadAt implements io.ReaderAt.
func (c Content) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("sparse: negative offset")
	}
	n := int(max(0, min(int64(len(p)), c.Size-off)))
	wanted := p[:n]
	clear(wanted)
	end := off + int64(n)
	first := sort.Search(len(c.Runs), func(k int) bool { return c.Runs[k].End() > off })
	for _, r := range c.Runs[first:] {
		if r.Offset >= end {
			break
		}
		from, to := max(r.Offset, off), min(r.End(), end)
		if err := readFull(r.Data, wanted[from-off:to-off], from-r.Offset); err != nil {
			return 0, err
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func readFull(r io.ReaderAt, p []byte, off int64) error {
	n, err := r.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return fmt.Errorf("read %d of %d bytes", off+int64(n), off+int64(len(p)))
	}
	return err
}

// NextData returns the first offset at or after off that is in a run, and false if
// there is none.
func (c Content) NextData(off int64) (int64, bool) {
	n := sort.Search(len(c.Runs), func(k int) bool { return c.Runs[k].End() > off })
	if n == len(c.Runs) {
		return 0, false
	}
	return max(off, c.Runs[n].Offset), true
}

// Reader returns a reader of the whole content.
func (c Content) Reader() io.Reader { return io.NewSectionReader(c, 0, c.Size) }

// copySize is how many bytes are copied at once if the kernel cannot copy.
const copySize = 1 << 20

// WriteFile writes the content to f, which must be empty. The bytes between runs
// become holes if the file system supports that.
func (c Content) WriteFile(f *os.File) error {
	if err := f.Truncate(c.Size); err != nil {
		return err
	}
	var buf []byte
	for _, r := range c.Runs {
		if src, ok := r.Data.(*os.File); ok {
			if err := copyFile(f, src, r); err != nil {
				return err
			}
			continue
		}
		if buf == nil {
			buf = make([]byte, copySize)
		}
		for done := int64(0); done < r.Size; {
			n := min(copySize, r.Size-done)
			if err := readFull(r.Data, buf[:n], done); err != nil {
				return err
			}
			if _, err := f.WriteAt(buf[:n], r.Offset+done); err != nil {
				return err
			}
			done += n
		}
	}
	return nil
}

// copyFile lets the kernel copy, which shares blocks if the file system supports
// that.
func copyFile(dst, src *os.File, r Run) error {
	if _, err := dst.Seek(r.Offset, io.SeekStart); err != nil {
		return err
	}
	if _, err := src.Seek(0, io.SeekStart); err != nil {
		return err
	}
	n, err := io.CopyN(dst, src, r.Size)
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: read %d of %d bytes", src.Name(), n, r.Size)
	}
	return err
}

// Map returns the map of a disk with this content: which parts have data, are
// zeros or are free.
func (c Content) Map() diskmap.Map {
	m := diskmap.Map{Version: diskmap.Version, Size: c.Size}
	var end int64
	add := func(to int64, t diskmap.Type) {
		if to <= end {
			return
		}
		if last := len(m.Extents) - 1; last >= 0 && m.Extents[last].Type == t {
			m.Extents[last].Length += to - end
		} else {
			m.Extents = append(m.Extents, diskmap.Extent{Offset: end, Length: to - end, Type: t})
		}
		end = to
	}
	free := c.Free
	freeTo := func(to int64) {
		for len(free) > 0 && free[0].Offset < to {
			add(free[0].Offset, diskmap.Zero)
			add(free[0].Offset+free[0].Size, diskmap.Free)
			free = free[1:]
		}
		add(to, diskmap.Zero)
	}
	for _, r := range c.Runs {
		freeTo(r.Offset)
		add(r.End(), diskmap.Data)
	}
	freeTo(c.Size)
	return m
}

// Digests returns the digests of the blocks of a disk with this content, for its
// map. It reads the content on all processors.
func (c Content) Digests() ([]diskmap.Digest, error) {
	var blocks []int64 // that may have data
	for _, r := range c.Runs {
		for n := r.Offset / diskmap.BlockSize; n*diskmap.BlockSize < r.End(); n++ {
			if last := len(blocks) - 1; last < 0 || blocks[last] < n {
				blocks = append(blocks, n)
			}
		}
	}
	digests := make([]diskmap.Digest, len(blocks))
	zero := make([]byte, diskmap.BlockSize)
	var group errgroup.Group
	var next atomic.Int64
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() error {
			buf := make([]byte, diskmap.BlockSize)
			for i := next.Add(1) - 1; i < int64(len(blocks)); i = next.Add(1) - 1 {
				n, err := c.ReadAt(buf, blocks[i]*diskmap.BlockSize)
				if err != nil && err != io.EOF {
					return err
				}
				clear(buf[n:])
				if !bytes.Equal(buf, zero) {
					digests[i] = diskmap.Digest{Block: int32(blocks[i]), SHA256: fmt.Sprintf("%x", sha256.Sum256(buf))}
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(digests, func(d diskmap.Digest) bool { return d.SHA256 == "" }), nil
}

// Hash returns the xxHash64 of the runs of each content. It tells contents apart,
// but it is not a cryptographic hash: anyone can construct collisions. It reads
// several contents at once.
func Hash(contents []Content) ([]uint64, error) {
	sums := make([]uint64, len(contents))
	errs := make([]error, len(contents))
	next := make(chan int)
	var workers sync.WaitGroup
	for range min(hashers, len(contents)) {
		workers.Go(func() {
			buf := make([]byte, copySize)
			for n := range next {
				sums[n], errs[n] = contents[n].hash(buf)
			}
		})
	}
	for n := range contents {
		next <- n
	}
	close(next)
	workers.Wait()
	return sums, errors.Join(errs...)
}

// hashers is how many contents are read at once.
const hashers = 4

func (c Content) hash(buf []byte) (uint64, error) {
	digest := xxhash.New()
	for _, r := range c.Runs {
		fmt.Fprintf(digest, "%d %d\n", r.Offset, r.Size)
		for done := int64(0); done < r.Size; {
			n := min(int64(len(buf)), r.Size-done)
			if err := readFull(r.Data, buf[:n], done); err != nil {
				return 0, err
			}
			digest.Write(buf[:n])
			done += n
		}
	}
	return digest.Sum64(), nil
}
