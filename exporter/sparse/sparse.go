// Package sparse describes files before they are written: as runs of bytes,
// with zeros between them.
//
// A disk image is laid out as a Content and then written, as it is or in a
// container such as qcow2. Contents stay in the files that they come from until
// then, so an image of any size costs memory for its runs only.
package sparse

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sort"
	"sync"

	"github.com/cespare/xxhash/v2"

	"github.com/slipway-build/slipway/exporter/diskmap"
)

// Run is a run of bytes in a Content.
type Run struct {
	Offset, Size int64       // bytes
	Data         io.ReaderAt // Size bytes, from its own offset 0 on
}

// End is the offset behind the run.
func (r Run) End() int64 { return r.Offset + r.Size }

// Range is a part of a Content.
type Range struct{ Offset, Size int64 }

// Content is the content of a file. New makes one from runs, and Bytes, Concat
// and Files.Open make simple ones.
type Content struct {
	Size int64
	// Runs are in order and do not overlap. What is between them reads as
	// zeros.
	Runs []Run
	// Free are the parts, in order, that nobody reads. They read as zeros.
	Free []Range
}

// New makes an image of runs in any order. It fails if runs overlap with each
// other or with what is free, or lie outside of the image.
func New(size int64, runs []Run, free []Range) (Content, error) {
	var i Content
	i.Size = size
	taken := make([]Range, 0, len(runs)+len(free))
	for _, r := range runs {
		if r.Size > 0 {
			i.Runs = append(i.Runs, r)
			taken = append(taken, Range{r.Offset, r.Size})
		}
	}
	for _, f := range free {
		if f.Size > 0 {
			i.Free = append(i.Free, f)
			taken = append(taken, f)
		}
	}
	slices.SortFunc(i.Runs, func(a, b Run) int { return compare(a.Offset, b.Offset) })
	for _, ranges := range [][]Range{i.Free, taken} {
		slices.SortFunc(ranges, func(a, b Range) int { return compare(a.Offset, b.Offset) })
	}
	var end int64
	for _, r := range taken {
		if r.Offset < end || r.Size > size-r.Offset {
			return Content{}, fmt.Errorf("sparse: %d bytes at %d overlap with others or lie outside of %d bytes", r.Size, r.Offset, size)
		}
		end = r.Offset + r.Size
	}
	return i, nil
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

// Bytes is an image with the given content.
func Bytes(b []byte) Content {
	i := Content{Size: int64(len(b))}
	if len(b) > 0 {
		i.Runs = []Run{{Size: i.Size, Data: bytes.NewReader(b)}}
	}
	return i
}

// Files opens files as images.
type Files struct{ open []*os.File }

// Open opens a file. The image is good until Close, if the file stays as it is.
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
	i := Content{Size: info.Size()}
	if i.Size > 0 {
		i.Runs = []Run{{Size: i.Size, Data: file}}
	}
	return i, nil
}

// Close closes all files.
func (f *Files) Close() {
	for _, file := range f.open {
		file.Close() // was only read
	}
}

// Concat puts images after each other.
func Concat(images ...Content) Content {
	var all Content
	for _, i := range images {
		all.Runs = append(all.Runs, i.At(all.Size)...)
		all.Size += i.Size
	}
	return all
}

// Pad makes the size a multiple of alignment, by zeros at the end.
func (i Content) Pad(alignment int64) Content {
	i.Size = RoundUp(i.Size, alignment)
	return i
}

// RoundUp gives the next multiple of alignment.
func RoundUp(size, alignment int64) int64 {
	return (size + alignment - 1) / alignment * alignment
}

// At gives the runs of the image in one that it is a part of, from offset on.
func (i Content) At(offset int64) []Run {
	runs := slices.Clone(i.Runs)
	for n := range runs {
		runs[n].Offset += offset
	}
	return runs
}

// ReadAt reads as of a file that has the image's content.
func (i Content) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("sparse: negative offset")
	}
	n := int(max(0, min(int64(len(p)), i.Size-off)))
	wanted := p[:n]
	clear(wanted)
	end := off + int64(n)
	first := sort.Search(len(i.Runs), func(k int) bool { return i.Runs[k].End() > off })
	for _, r := range i.Runs[first:] {
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

// NextData gives the first offset from off on that is in a run; false if there
// is none.
func (i Content) NextData(off int64) (int64, bool) {
	n := sort.Search(len(i.Runs), func(k int) bool { return i.Runs[k].End() > off })
	if n == len(i.Runs) {
		return 0, false
	}
	return max(off, i.Runs[n].Offset), true
}

// Reader reads the image from its start.
func (i Content) Reader() io.Reader { return io.NewSectionReader(i, 0, i.Size) }

// copySize is how many bytes are copied at once, where the kernel does not copy.
const copySize = 1 << 20

// WriteFile makes f, which must be empty, a file with the image's content.
// What is not in a run becomes a hole where the file system has holes.
func (i Content) WriteFile(f *os.File) error {
	if err := f.Truncate(i.Size); err != nil {
		return err
	}
	var buf []byte
	for _, r := range i.Runs {
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

// copyFile lets the kernel copy, which shares blocks where it can.
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

// Map tells data, zeros and what is free apart.
func (i Content) Map() diskmap.Map {
	m := diskmap.Map{Version: diskmap.Version, Size: i.Size}
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
	free := i.Free
	freeTo := func(to int64) {
		for len(free) > 0 && free[0].Offset < to {
			add(free[0].Offset, diskmap.Zero)
			add(free[0].Offset+free[0].Size, diskmap.Free)
			free = free[1:]
		}
		add(to, diskmap.Zero)
	}
	for _, r := range i.Runs {
		freeTo(r.Offset)
		add(r.End(), diskmap.Data)
	}
	freeTo(i.Size)
	return m
}

// Hash gives a number for the content of each image, by xxHash64 of its runs. It
// tells contents apart, and nothing more: whoever wants the same number for
// two contents can have it. All processors take part.
func Hash(images []Content) ([]uint64, error) {
	sums := make([]uint64, len(images))
	errs := make([]error, len(images))
	next := make(chan int)
	var workers sync.WaitGroup
	for range min(hashers, len(images)) {
		workers.Go(func() {
			buf := make([]byte, copySize)
			for n := range next {
				sums[n], errs[n] = images[n].hash(buf)
			}
		})
	}
	for n := range images {
		next <- n
	}
	close(next)
	workers.Wait()
	return sums, errors.Join(errs...)
}

// hashers is how many images are read at once.
const hashers = 4

func (i Content) hash(buf []byte) (uint64, error) {
	digest := xxhash.New()
	for _, r := range i.Runs {
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
