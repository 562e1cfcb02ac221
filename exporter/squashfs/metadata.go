package squashfs

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
)

const (
	metadataSize = 8 << 10 // of a block of metadata before compression

	// Where sizes of blocks say that a block is not compressed.
	rawMetadata = 1 << 15
	rawData     = 1 << 24
)

// codec compresses blocks. It may be used by several goroutines at once.
type codec struct {
	id    uint16
	zstd  *zstd.Encoder
	zlibs *sync.Pool // of *zlib.Writer; nil for no compression
}

func newCodec(o Options) (*codec, error) {
	const gzipID, zstdID = 1, 6
	switch o.Compression {
	case "zstd":
		e, err := zstd.NewWriter(nil,
			zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(o.Level)),
			zstd.WithWindowSize(blockSize), // Linux has no room for more
			zstd.WithSingleSegment(true),
			zstd.WithEncoderCRC(false))
		return &codec{id: zstdID, zstd: e}, err
	case "gzip":
		if _, err := zlib.NewWriterLevel(nil, o.Level); err != nil {
			return nil, err
		}
		return &codec{id: gzipID, zlibs: &sync.Pool{New: func() any {
			z, _ := zlib.NewWriterLevel(nil, o.Level) // the level is right
			return z
		}}}, nil
	case "none":
		return &codec{id: gzipID}, nil // some algorithm must be named
	}
	return nil, fmt.Errorf("compression %q: SquashFS has zstd, gzip and none", o.Compression)
}

// compress returns nil if a block does not get smaller.
func (c *codec) compress(block []byte) []byte {
	var out []byte
	switch {
	case c.zstd != nil:
		out = c.zstd.EncodeAll(block, nil)
	case c.zlibs != nil:
		var b bytes.Buffer
		z := c.zlibs.Get().(*zlib.Writer)
		z.Reset(&b)
		z.Write(block) // into memory
		z.Close()
		c.zlibs.Put(z)
		out = b.Bytes()
	default:
		return nil
	}
	if len(out) >= len(block) {
		return nil
	}
	return out
}

// metadataBlock is a block with its header.
func (c *codec) metadataBlock(content []byte) []byte {
	out, flag := c.compress(content), 0
	if out == nil {
		out, flag = content, rawMetadata
	}
	return append(binary.LittleEndian.AppendUint16(nil, uint16(len(out)|flag)), out...)
}

// metadata is a table in the making: a sequence of bytes that is cut into
// blocks.
type metadata struct {
	codec  *codec
	blocks []byte // finished ones
	open   []byte
}

// position of the next byte: start of its block in the table, and offset in the
// block before compression.
func (m *metadata) position() (start uint32, offset uint16) {
	return uint32(len(m.blocks)), uint16(len(m.open))
}

// reference is a position as one number.
func (m *metadata) reference() uint64 {
	start, offset := m.position()
	return uint64(start)<<16 | uint64(offset)
}

func (m *metadata) write(b []byte) {
	m.open = append(m.open, b...)
	for len(m.open) >= metadataSize {
		m.blocks = append(m.blocks, m.codec.metadataBlock(m.open[:metadataSize])...)
		m.open = append([]byte(nil), m.open[metadataSize:]...)
	}
}

// finish gives all blocks.
func (m *metadata) finish() []byte {
	if len(m.open) > 0 {
		m.blocks = append(m.blocks, m.codec.metadataBlock(m.open)...)
		m.open = nil
	}
	return m.blocks
}
