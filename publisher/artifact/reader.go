package artifact

import (
	"context"
	"errors"
	"io"
	"sync"
)

// Limits of a reader. Together they bound its memory to about 32 MiB.
const (
	runBlocks   = 4 // blocks that one request reads
	maxRuns     = 8 // unpacked runs that are kept
	maxRequests = 8 // at the same time
)

// A reader reads the blocks of a disk, in runs of neighbors, and verifies them.
// It implements [io.ReaderAt].
type reader struct {
	ctx      context.Context // of all reads, because ReadAt has none
	registry *registry
	digest   string // of the layer
	index    *Index

	mu     sync.Mutex
	runs   map[int32]*run // by number
	recent []int32        // the numbers, the last used one at the end
	free   sync.Pool      // of *[]byte for frames
	slots  chan struct{}
}

// A run is a number of blocks in a row. data is valid after done is closed.
type run struct {
	done chan struct{}
	data []byte
	err  error
}

func newReader(ctx context.Context, r *registry, digest string, index *Index) *reader {
	return &reader{ctx: ctx, registry: r, digest: digest, index: index, runs: map[int32]*run{}, slots: make(chan struct{}, maxRequests)}
}

// ReadAt implements [io.ReaderAt]. What it returns is verified.
func (r *reader) ReadAt(p []byte, at int64) (n int, err error) {
	if at < 0 {
		return 0, errors.New("negative offset")
	}
	for n < len(p) {
		if at >= r.index.Size {
			return n, io.EOF
		}
		block := int32(at / blockSize)
		start := at % blockSize
		piece := p[n:min(len(p), n+int(int64(r.index.length(block))-start))]
		if r.index.frame(block) == nil {
			clear(piece)
		} else {
			run, err := r.run(block / runBlocks)
			if err != nil {
				return n, err
			}
			copy(piece, run[int64(block%runBlocks)*blockSize+start:])
		}
		n += len(piece)
		at += int64(len(piece))
	}
	return n, nil
}

// run returns the data of a run.
func (r *reader) run(number int32) ([]byte, error) {
	r.mu.Lock()
	got, found := r.runs[number]
	if found && got.failed() {
		found = false
	}
	if !found {
		got = &run{done: make(chan struct{})}
		r.runs[number] = got
		go func() {
			got.data, got.err = r.load(number)
			close(got.done)
		}()
	}
	r.touch(number)
	r.mu.Unlock()
	select {
	case <-got.done:
		return got.data, got.err
	case <-r.ctx.Done():
		return nil, context.Cause(r.ctx)
	}
}

// failed reports whether the run could not be loaded.
func (r *run) failed() bool {
	select {
	case <-r.done:
		return r.err != nil
	default:
		return false
	}
}

// touch marks a run as used, and forgets the one that was not used for the
// longest time.
func (r *reader) touch(number int32) {
	for i, n := range r.recent {
		if n == number {
			r.recent = append(r.recent[:i], r.recent[i+1:]...)
			break
		}
	}
	r.recent = append(r.recent, number)
	if len(r.recent) > maxRuns {
		delete(r.runs, r.recent[0])
		r.recent = r.recent[1:]
	}
}

// load reads and unpacks a run.
func (r *reader) load(number int32) ([]byte, error) {
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	case <-r.ctx.Done():
		return nil, context.Cause(r.ctx)
	}
	data := make([]byte, runBlocks*blockSize)
	var frames []*Frame
	for i := number * runBlocks; i < min((number+1)*runBlocks, r.index.count()); i++ {
		if f := r.index.frame(i); f != nil {
			frames = append(frames, f)
		}
	}
	_, err := retry(r.ctx, r.registry.patience, func() (struct{}, error) { return struct{}{}, r.fill(data, frames) })
	return data, r.registry.explain(err)
}

// fill reads frames, which lie one after the other but for frames of zeros, and
// unpacks them to their places in data.
func (r *reader) fill(data []byte, frames []*Frame) error {
	first, last := frames[0], frames[len(frames)-1]
	length := last.Offset + int64(last.Length) - first.Offset
	if length > runBlocks*maxFrame {
		return permanent{errors.New("invalid index of the disk: its frames lie too far apart")}
	}
	buffer, _ := r.free.Get().(*[]byte)
	if buffer == nil {
		buffer = new([]byte)
		*buffer = make([]byte, runBlocks*maxFrame)
	}
	defer r.free.Put(buffer)
	in := (*buffer)[:length]
	if err := r.registry.readRange(r.ctx, r.digest, first.Offset, in); err != nil {
		return err
	}
	for _, f := range frames {
		at := f.Offset - first.Offset
		out := data[int64(f.Block%runBlocks)*blockSize:][:blockSize:blockSize]
		if err := unpack(in[at:at+int64(f.Length)], f, r.index.length(f.Block), out); err != nil {
			return err
		}
	}
	return nil
}
