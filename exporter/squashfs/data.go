package squashfs

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"

	"github.com/slipway-build/slipway/exporter/tree"
)

// block is the offset of a block in bytes, and its size as the format stores it: with
// the bit rawData if it is not compressed.
type block struct {
	start int64
	size  uint32
}

// data locates the content of a file.
type data struct {
	start  int64
	blocks []uint32 // sizes; 0 for a block of zeros
	// fragment is the number of the fragment block with the content of a small
	// file, or -1.
	fragment int
	offset   int // in the fragment block, in bytes
}

// job is a block to compress and write.
type job struct {
	raw        []byte
	file       *data // nil for a fragment block
	first      bool  // the first block of the file
	compressed chan []byte
}

// writeData writes the contents of files.
func (w *writer) writeData() error {
	duplicates, err := w.findDuplicates()
	if err != nil {
		return err
	}
	w.data = map[*tree.Node]*data{}
	// Workers compress blocks, which are read and written in order.
	workers := runtime.GOMAXPROCS(0)
	queue, work := make(chan *job, 2*workers), make(chan *job)
	failed := make(chan error, 1)
	stop := make(chan struct{})
	defer close(stop)
	for range workers {
		go func() {
			for j := range work {
				j.compressed <- w.codec.compress(j.raw)
			}
		}()
	}
	go func() {
		defer close(work)
		defer close(queue)
		failed <- w.readData(duplicates, func(j *job) bool {
			j.compressed = make(chan []byte, 1)
			select {
			case queue <- j:
			case <-stop:
				return false
			}
			select {
			case work <- j:
				return true
			case <-stop:
				return false
			}
		})
	}()
	for j := range queue {
		if err := w.writeBlock(j); err != nil {
			return err
		}
	}
	return <-failed
}

func (w *writer) writeBlock(j *job) error {
	out := <-j.compressed
	size := uint32(len(out))
	if out == nil {
		out, size = j.raw, uint32(len(j.raw))|rawData
	}
	if j.file == nil {
		w.fragments = append(w.fragments, block{w.at, size})
		return w.append(out)
	}
	if j.first {
		j.file.start = w.at
	}
	if isZero(j.raw) {
		j.file.blocks = append(j.file.blocks, 0)
		return nil
	}
	j.file.blocks = append(j.file.blocks, size)
	return w.append(out)
}

var errStopped = errors.New("stopped")

// readData divides files into blocks.
func (w *writer) readData(duplicates map[*tree.Node]*tree.Node, emit func(*job) bool) error {
	var fragment []byte
	fragments := 0
	flush := func() error {
		if len(fragment) > 0 && !emit(&job{raw: fragment}) {
			return errStopped
		}
		fragment = nil
		fragments++
		return nil
	}
	files := slices.DeleteFunc(slices.Clone(w.nodes), func(n *tree.Node) bool { return n.Type != tree.File || n.First != n })
	slices.SortFunc(files, func(a, b *tree.Node) int { return strings.Compare(a.Path, b.Path) })
	for _, n := range files {
		d := &data{fragment: -1}
		w.data[n] = d
		if n.Size == 0 {
			continue
		}
		if same := duplicates[n]; same != nil {
			w.data[n] = w.data[same]
			continue
		}
		if n.Size < blockSize && len(fragment)+int(n.Size) > blockSize {
			if err := flush(); err != nil {
				return err
			}
		}
		content, err := n.Open()
		if err != nil {
			return err
		}
		err = func() error {
			defer content.Close()
			for left := n.Size; left > 0; {
				raw := make([]byte, min(left, blockSize))
				if got, err := io.ReadFull(content, raw); err != nil {
					if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
						return fmt.Errorf("%s: read %d of %d bytes", n.Path, n.Size-left+int64(got), n.Size)
					}
					return fmt.Errorf("%s: %w", n.Path, err)
				}
				if n.Size < blockSize {
					d.fragment, d.offset = fragments, len(fragment)
					fragment = append(fragment, raw...)
				} else if !emit(&job{raw: raw, file: d, first: left == n.Size}) {
					return errStopped
				}
				left -= int64(len(raw))
			}
			return nil
		}()
		if err != nil {
			return err
		}
	}
	return flush()
}

// findDuplicates returns, for each file whose content a file before it has, the first
// of these. It reads files of the same size only.
func (w *writer) findDuplicates() (map[*tree.Node]*tree.Node, error) {
	sizes := map[int64][]*tree.Node{}
	for _, n := range w.nodes {
		if n.Type == tree.File && n.First == n && n.Size > 0 {
			sizes[n.Size] = append(sizes[n.Size], n)
		}
	}
	duplicates := map[*tree.Node]*tree.Node{}
	buf := make([]byte, blockSize)
	for _, nodes := range sizes {
		if len(nodes) == 1 {
			continue
		}
		slices.SortFunc(nodes, func(a, b *tree.Node) int { return strings.Compare(a.Path, b.Path) })
		first := map[[sha256.Size]byte]*tree.Node{}
		for _, n := range nodes {
			sum, err := hash(n, buf)
			if err != nil {
				return nil, err
			}
			if same := first[sum]; same != nil {
				duplicates[n] = same
			} else {
				first[sum] = n
			}
		}
	}
	return duplicates, nil
}

func hash(n *tree.Node, buf []byte) (sum [sha256.Size]byte, err error) {
	content, err := n.Open()
	if err != nil {
		return sum, err
	}
	defer content.Close()
	digest := sha256.New()
	if _, err := io.CopyBuffer(struct{ io.Writer }{digest}, struct{ io.Reader }{content}, buf); err != nil {
		return sum, fmt.Errorf("%s: %w", n.Path, err)
	}
	return [sha256.Size]byte(digest.Sum(nil)), nil
}

var zeros [blockSize]byte

func isZero(b []byte) bool {
	return bytes.Equal(b, zeros[:len(b)])
}
