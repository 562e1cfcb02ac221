package artifact

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"

	"github.com/slipway-build/slipway/publisher/disk"
)

// newEncoder returns an encoder whose output depends on the input only. Disks
// consist mostly of compressed data, for which higher levels gain nothing.
func newEncoder() *zstd.Encoder {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(blockSize))
	if err != nil {
		panic(err) // the options are valid
	}
	return e
}

// decoders unpack frames. Each works on one frame at a time.
var decoders = sync.Pool{New: func() any {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(blockSize), zstd.WithDecoderMaxWindow(blockSize))
	if err != nil {
		panic(err) // the options are valid
	}
	return d
}}

var errMismatch = errors.New("its content does not match its digest")

// unpack unpacks a frame into block, whose capacity is that of a block, and
// verifies it. The rest of the block is zero.
func unpack(frame []byte, f *Frame, length int, block []byte) error {
	d := decoders.Get().(*zstd.Decoder)
	defer decoders.Put(d)
	out, err := d.DecodeAll(frame, block[:0:blockSize])
	if err != nil {
		return fmt.Errorf("block %d: %w: %w", f.Block, errMismatch, err)
	}
	if len(out) != length {
		return fmt.Errorf("block %d: %w: it has %d bytes instead of %d", f.Block, errMismatch, len(out), length)
	}
	clear(block[length:blockSize])
	if Sum(sha256.Sum256(block[:blockSize])) != f.SHA256 {
		return fmt.Errorf("block %d: %w", f.Block, errMismatch)
	}
	return nil
}

// packed is a block that has been compressed.
type packed struct {
	frame []byte
	err   error
}

// pack compresses a disk on all processors and calls use for its blocks, in
// order. It fails if the disk has changed since it was opened.
func pack(ctx context.Context, d *disk.Disk, use func(block int32, frame []byte) error) error {
	workers := runtime.GOMAXPROCS(0)
	queue := make(chan chan packed, 2*workers)
	compressors := make(chan *compressor, workers)
	for range workers {
		compressors <- &compressor{encoder: newEncoder()}
	}
	zeros := compressZeros(blockSize)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(queue)
		rest := d.Blocks
		for i := range d.Count() {
			result := make(chan packed, 1)
			select {
			case queue <- result:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			if len(rest) == 0 || rest[0].Index != i {
				frame := zeros
				if n := d.Size - int64(i)*blockSize; n < blockSize {
					frame = compressZeros(int(n))
				}
				result <- packed{frame, nil}
				continue
			}
			block := rest[0]
			rest = rest[1:]
			c := <-compressors
			go func() {
				frame, err := c.compress(d, block)
				compressors <- c
				result <- packed{frame, err}
			}()
		}
		return nil
	})
	group.Go(func() error {
		block := int32(0)
		for result := range queue {
			p := <-result
			if p.err != nil {
				return p.err
			}
			if err := use(block, p.frame); err != nil {
				return err
			}
			block++
		}
		return nil
	})
	return group.Wait()
}

// compressZeros returns the frame of a block of zeros.
func compressZeros(length int) []byte { return newEncoder().EncodeAll(make([]byte, length), nil) }

// A compressor compresses one block at a time.
type compressor struct {
	encoder *zstd.Encoder
	block   [blockSize]byte
}

func (c *compressor) compress(d *disk.Disk, block disk.Block) ([]byte, error) {
	if err := d.ReadBlock(block.Index, &c.block); err != nil {
		return nil, err
	}
	if disk.Sum(sha256.Sum256(c.block[:])) != block.Sum {
		return nil, d.Mismatch()
	}
	length := min(blockSize, d.Size-int64(block.Index)*blockSize)
	return c.encoder.EncodeAll(c.block[:length], make([]byte, 0, maxFrame)), nil
}

// A layer is the layer of a disk. It implements [v1.Layer] of
// go-containerregistry and compresses the disk each time that it is read,
// instead of keeping a copy.
type layer struct {
	ctx    context.Context
	disk   *disk.Disk
	digest v1.Hash
	size   int64
}

// newLayer returns the layer of a disk and the places of its blocks.
func newLayer(ctx context.Context, d *disk.Disk) (*layer, []Frame, error) {
	l := &layer{ctx: ctx, disk: d}
	frames, h, rest := make([]Frame, 0, len(d.Blocks)), sha256.New(), d.Blocks
	err := pack(ctx, d, func(block int32, frame []byte) error {
		if len(rest) > 0 && rest[0].Index == block {
			frames = append(frames, Frame{block, l.size, int32(len(frame)), Sum(rest[0].Sum)})
			rest = rest[1:]
		}
		h.Write(frame)
		l.size += int64(len(frame))
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	l.digest = v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(h.Sum(nil))}
	return l, frames, nil
}

func (l *layer) Digest() (v1.Hash, error)             { return l.digest, nil }
func (l *layer) DiffID() (v1.Hash, error)             { return l.digest, nil }
func (l *layer) Size() (int64, error)                 { return l.size, nil }
func (l *layer) MediaType() (types.MediaType, error)  { return TypeData, nil }
func (l *layer) Uncompressed() (io.ReadCloser, error) { return l.Compressed() }

// Compressed returns the frames of all blocks, in order.
func (l *layer) Compressed() (io.ReadCloser, error) {
	r, w := io.Pipe()
	go func() {
		w.CloseWithError(pack(l.ctx, l.disk, func(_ int32, frame []byte) error {
			_, err := w.Write(frame)
			return err
		}))
	}()
	return r, nil
}
