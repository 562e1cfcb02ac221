package sparse

import (
	"io"
	"sync"
)

// A BlockReader reads content that is stored in blocks, for example compressed
// ones. It implements io.ReaderAt, and several goroutines may use it at once.
type BlockReader struct {
	Size      int64 // bytes of the content
	BlockSize int64 // bytes of a block, except the last one
	// Block returns the content of a block. It may be shorter than the block:
	// the rest are zeros. The BlockReader keeps it until it needs another block.
	Block func(number int64) ([]byte, error)

	mu     sync.Mutex
	block  []byte
	number int64
	loaded bool
}

// ReadAt implements io.ReaderAt.
func (b *BlockReader) ReadAt(p []byte, off int64) (n int, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for n < len(p) && off < b.Size {
		number, within := off/b.BlockSize, off%b.BlockSize
		if !b.loaded || b.number != number {
			if b.block, err = b.Block(number); err != nil {
				b.loaded = false
				return n, err
			}
			b.number, b.loaded = number, true
		}
		part := p[n:min(int64(len(p)), int64(n)+min(b.BlockSize-within, b.Size-off))]
		clear(part)
		if within < int64(len(b.block)) {
			copy(part, b.block[within:])
		}
		n, off = n+len(part), off+int64(len(part))
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// An Assembly collects the runs of a disk in the order of the disk, from a file
// in which the disk is stored in pieces.
type Assembly struct {
	runs   []Run
	source []int64 // offset in the file of each run, or -1 for a block
}

// maxPieces limits the runs of a disk from a stranger.
const maxPieces = 1 << 20

// Add adds bytes that are in the file r at an offset. The next piece must be
// after them on the disk. Pieces that follow each other on the disk and in the
// file become one run. Add reports whether the disk has not too many runs.
func (a *Assembly) Add(offset, size int64, r io.ReaderAt, at int64) bool {
	if last := len(a.runs) - 1; last >= 0 && a.source[last] >= 0 &&
		a.runs[last].End() == offset && a.source[last]+a.runs[last].Size == at {
		size += a.runs[last].Size
		offset, at = a.runs[last].Offset, a.source[last]
		a.runs, a.source = a.runs[:last], a.source[:last]
	}
	a.runs = append(a.runs, Run{Offset: offset, Size: size, Data: io.NewSectionReader(r, at, size)})
	a.source = append(a.source, at)
	return len(a.runs) < maxPieces
}

// AddBlock adds a part of the disk that b has at the same offset.
func (a *Assembly) AddBlock(offset, size int64, b *BlockReader) bool {
	if last := len(a.runs) - 1; last >= 0 && a.source[last] < 0 && a.runs[last].End() == offset {
		size += a.runs[last].Size
		offset = a.runs[last].Offset
		a.runs, a.source = a.runs[:last], a.source[:last]
	}
	a.runs = append(a.runs, Run{Offset: offset, Size: size, Data: io.NewSectionReader(b, offset, size)})
	a.source = append(a.source, -1)
	return len(a.runs) < maxPieces
}

// Content returns the disk of size bytes. It fails where New does.
func (a *Assembly) Content(size int64) (Content, error) { return New(size, a.runs, nil) }
