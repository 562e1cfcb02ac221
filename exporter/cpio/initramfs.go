package cpio

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// ErrTooLarge is the error for an initramfs that has more bytes than the limit.
var ErrTooLarge = errors.New("initramfs is too large")

// errTruncated is not io.ErrUnexpectedEOF, which the decoder may take for the end
// of its input.
var errTruncated = fmt.Errorf("%w: a zstd frame is truncated", ErrFormat)

// maxWindow limits the history that a zstd frame may require, in bytes.
const maxWindow = 32 << 20

// An InitramfsReader reads the members of an initramfs: a sequence of archives,
// each plain or compressed with gzip or zstd, with any number of NULs between
// them (buffer-format.rst). Later members replace earlier ones of the same name.
//
// Its memory is bounded by 32 MiB for the history of a zstd frame.
type InitramfsReader struct {
	streams []*stream // the file and, in a compressed part, what it unpacks to
	archive *Reader   // nil between archives
	left    int64     // bytes until the limit
	part    int64     // see Part
	err     error
}

// stream is a sequence of archives.
type stream struct {
	*bufio.Reader
	start int64  // offset in bytes of the compressed part in the file
	read  int64  // bytes that the bufio.Reader has taken
	close func() // may be nil
}

// offset returns the number of bytes consumed.
func (s *stream) offset() int64 { return s.read - int64(s.Buffered()) }

// NewInitramfsReader returns a reader for the initramfs in r. The limit is in
// bytes, and counts what is read and what is unpacked. Close the reader when
// done.
func NewInitramfsReader(r io.Reader, limit int64) *InitramfsReader {
	i := &InitramfsReader{left: limit}
	i.push(r, 0, nil)
	return i
}

func (i *InitramfsReader) push(r io.Reader, start int64, closer func()) {
	s := &stream{start: start, close: closer}
	s.Reader = bufio.NewReaderSize(readerFunc(func(p []byte) (int, error) {
		if i.left <= 0 {
			return 0, ErrTooLarge
		}
		n, err := r.Read(p[:min(int64(len(p)), i.left)])
		i.left -= int64(n)
		s.read += int64(n)
		return n, err
	}), 64<<10)
	i.streams = append(i.streams, s)
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func (i *InitramfsReader) pop() {
	last := len(i.streams) - 1
	if end := i.streams[last].close; end != nil {
		end()
	}
	i.streams = i.streams[:last]
}

// Close releases the memory of the decompressor. It does not close the
// underlying reader.
func (i *InitramfsReader) Close() error {
	for len(i.streams) > 0 {
		i.pop()
	}
	i.archive, i.err = nil, errors.New("initramfs: reader is closed")
	return nil
}

// Next skips the rest of the current content and returns the header of the next
// member of any archive. It returns io.EOF at the end, ErrTooLarge at the limit,
// and ErrFormat for what is neither an archive nor compressed with gzip or zstd.
// Errors name the offset in the file in bytes.
func (i *InitramfsReader) Next() (*Header, error) {
	for i.err == nil {
		if i.archive == nil {
			i.err = i.nextArchive()
			continue
		}
		h, err := i.archive.Next()
		if err == nil {
			return h, nil
		}
		i.archive = nil
		if err != io.EOF {
			i.err = i.failure(err)
		}
	}
	return nil, i.err
}

// Part returns the offset in the file, in bytes, of the archive that the current
// member is in, or of the compressed part that this archive is in.
func (i *InitramfsReader) Part() int64 { return i.part }

// Read reads content of the current member. It returns io.EOF at its end.
func (i *InitramfsReader) Read(p []byte) (int, error) {
	if i.archive == nil {
		return 0, io.EOF
	}
	n, err := i.archive.Read(p)
	if err != nil && err != io.EOF {
		i.err = i.failure(err)
		err = i.err
	}
	return n, err
}

func (i *InitramfsReader) failure(err error) error {
	s := i.streams[len(i.streams)-1]
	if len(i.streams) == 1 {
		return fmt.Errorf("initramfs: byte %d: %w", s.offset(), err)
	}
	return fmt.Errorf("initramfs: compressed archive at byte %d: unpacked byte %d: %w", s.start, s.offset(), err)
}

// nextArchive finds the next archive, or the next compressed part.
func (i *InitramfsReader) nextArchive() error {
	s := i.streams[len(i.streams)-1]
	magic, err := s.Peek(4)
	compressed := len(i.streams) > 1
	switch {
	case len(magic) == 0 && err == io.EOF && compressed:
		i.pop()
		return nil
	case len(magic) == 0 && err == io.EOF:
		return io.EOF
	case len(magic) > 0 && magic[0] == 0:
		_, _ = s.Discard(1)
		return nil
	case err == io.EOF:
		return i.failure(ErrFormat)
	case err != nil:
		return i.failure(err)
	case bytes.HasPrefix(magic, []byte("0707")):
		if !compressed {
			i.part = s.offset()
		}
		i.archive = NewReader(s)
		return nil
	case bytes.HasPrefix(magic, []byte("\x1f\x8b")) && !compressed:
		start := s.offset()
		z, err := gzip.NewReader(s.Reader)
		if err != nil {
			return i.failure(err)
		}
		z.Multistream(false)
		i.part = start
		i.push(z, start, nil)
		return nil
	case bytes.HasPrefix(magic, []byte("\x28\xb5\x2f\xfd")) && !compressed:
		start := s.offset()
		z, err := zstd.NewReader(&zstdFrame{r: s.Reader}, zstd.WithDecoderConcurrency(1),
			zstd.WithDecoderMaxWindow(maxWindow), zstd.IgnoreChecksum(true))
		if err != nil {
			return i.failure(err)
		}
		i.part = start
		i.push(z, start, z.Close)
		return nil
	}
	return i.failure(ErrFormat)
}

// zstdFrame reads one frame and nothing after it: a header, blocks with headers
// of three bytes, and a checksum (RFC 8878, 3.1.1).
type zstdFrame struct {
	r       *bufio.Reader
	started bool
	left    int64 // bytes of the piece that is being read
	last    bool  // the piece is the last block, or the checksum
	sum     int64 // bytes of the checksum
}

func (f *zstdFrame) Read(p []byte) (int, error) {
	switch {
	case f.left > 0:
	case !f.started:
		head, _ := f.r.Peek(zstd.HeaderMaxSize)
		var h zstd.Header
		if h.Decode(head) != nil {
			// Not the decoder's own error, which the decoder may take for the
			// end of the input.
			return 0, ErrFormat
		}
		f.started, f.left = true, int64(h.HeaderSize)
		if h.HasCheckSum {
			f.sum = 4
		}
	case !f.last:
		head, err := f.r.Peek(3)
		if err != nil {
			return 0, errTruncated
		}
		block := uint32(head[0]) | uint32(binary.LittleEndian.Uint16(head[1:]))<<8
		const typeRLE = 1 // one byte, however often it is repeated
		f.last, f.left = block&1 != 0, 3+int64(block>>3)
		if block>>1&3 == typeRLE {
			f.left = 3 + 1
		}
	default:
		f.left, f.sum = f.sum, 0
		if f.left == 0 {
			return 0, io.EOF
		}
	}
	n, err := f.r.Read(p[:min(int64(len(p)), f.left)])
	f.left -= int64(n)
	if err == io.EOF {
		err = errTruncated
	}
	return n, err
}
