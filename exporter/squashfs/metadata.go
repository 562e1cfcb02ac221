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

	// Bits in the size of a block that is not compressed.
	rawMetadata = 1 << 15
	rawData     = 1 << 24
)

// codec compresses blocks. Several goroutines may use it at once.
type codec struct {
	id    uint16
	zstd  *zstd.Encoder
	zlibs *sync.Pool // of *zlib.Writer
}

func newCodec(o Options) (*codec, error) {
	const gzipID, zstdID = 1, 6
	switch o.Compression {
	case "zstd":
		e, err := zstd.NewWriter(nil,
			zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(o.Level)),
			zstd.WithWindowSize(blockSize), // Linux supports no more
			zstd.WithSingleSegment(true),
			zstd.WithEncoderCRC(false))
		return &codec{id: zstdID, zstd: e}, err
	case "gzip":
		if _, err := zlib.NewWriterLevel(nil, o.Level); err != nil {
			return nil, err
		}
		return &codec{id: gzipID, zlibs: &sync.Pool{New: func() any {
			z, _ := zlib.NewWriterLevel(nil, o.Level) // the level is valid
			return z
		}}}, nil
	case "none":
		return &codec{id: gzipID}, nil // the format has no number for none
	}
	return nil, fmt.Errorf("unknown compression %q: use zstd, gzip or none", o.Compression)
}

// compress returns nil if the compressed block is not smaller.
func (c *codec) compress(block []byte) []byte {
	var out []byte
	switch {
	case c.zstd != nil:
		out = c.zstd.EncodeAll(block, nil)
	case c.zlibs != nil:
		var b bytes.Buffer
		z := c.zlibs.Get().(*zlib.Writer)
		z.Reset(&b)
		z.Write(block) // to memory, which does not fail
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

// metadataBlock returns a block with its header.
func (c *codec) metadataBlock(content []byte) []byte {
	out, flag := c.compress(content), 0
	if out == nil {
		out, flag = content, rawMetadata
	}
	return append(binary.LittleEndian.AppendUint16(nil, uint16(len(out)|flag)), out...)
}

// metadata is a table under construction, which is divided into blocks.
type metadata struct {
	codec  *codec
	blocks []byte // complete blocks
	open   []byte // content of the next block
}

// position returns the position of the next byte: the offset of its block in the
// table, and its offset in the uncompressed block, in bytes.
func (m *metadata) position() (start uint32, offset uint16) {
	return uint32(len(m.blocks)), uint16(len(m.open))
}

// reference returns the position as one number.
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

// finish returns all blocks.
func (m *metadata) finish() []byte {
	if len(m.open) > 0 {
		m.blocks = append(m.blocks, m.codec.metadataBlock(m.open)...)
		m.open = nil
	}
	return m.blocks
}
