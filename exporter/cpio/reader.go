package cpio

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// ErrFormat is the error for input that is not in the format, or is damaged.
var ErrFormat = errors.New("not a cpio archive in the newc format")

// A Reader reads one archive. It needs no more memory than the longest name.
//
// The names in the headers are those of the archive. They may be absolute or
// lead out of a directory, so use os.Root to unpack an archive from a stranger.
type Reader struct {
	r       io.Reader
	at      int64 // bytes read
	left    int64 // bytes of the current content not yet read
	padding int64 // bytes after it
	err     error
}

// NewReader returns a Reader for the archive that starts at r. The Reader stops
// after the trailer and reads no byte that follows it.
func NewReader(r io.Reader) *Reader {
	return &Reader{r: r}
}

// Next skips the rest of the current content and returns the header of the next
// member. It returns io.EOF after the trailer, ErrFormat for damaged input and
// io.ErrUnexpectedEOF for an archive that ends too early. Errors name the offset
// in the archive in bytes.
//
// Next accepts the variant with checksums too (magic 070702), and does not
// verify them.
func (r *Reader) Next() (*Header, error) {
	if r.err != nil {
		return nil, r.err
	}
	h, err := r.next()
	r.err = err
	return h, err
}

func (r *Reader) next() (*Header, error) {
	n, err := io.CopyN(io.Discard, r.r, r.left+r.padding)
	r.at += n
	if err != nil {
		return nil, r.failure(err)
	}
	r.left, r.padding = 0, 0
	start := r.at
	var header [headerSize]byte
	if err := r.readFull(header[:]); err != nil {
		return nil, err
	}
	if m := string(header[:len(magic)]); m != magic && m != magicChecksum {
		return nil, fmt.Errorf("byte %d: %w: it starts with %q", start, ErrFormat, m)
	}
	var fields [13]uint32
	for i := range fields {
		at := len(magic) + 8*i
		value, err := strconv.ParseUint(string(header[at:at+8]), 16, 32)
		if err != nil {
			return nil, fmt.Errorf("byte %d: %w: %q is not a hexadecimal number", start+int64(at), ErrFormat, header[at:at+8])
		}
		fields[i] = uint32(value)
	}
	nameSize := fields[11]
	if nameSize < 1 || nameSize > nameMax {
		return nil, fmt.Errorf("byte %d: %w: a name has %d bytes", start, ErrFormat, nameSize)
	}
	name := make([]byte, int64(nameSize)+padding(int64(headerSize)+int64(nameSize)))
	if err := r.readFull(name); err != nil {
		return nil, err
	}
	text, _, terminated := bytes.Cut(name[:nameSize], []byte{0})
	if !terminated {
		return nil, fmt.Errorf("byte %d: %w: a name has no NUL at its end", start, ErrFormat)
	}
	h := &Header{
		Name: string(text), Inode: fields[0], Mode: fields[1], UID: fields[2], GID: fields[3], Links: fields[4],
		MTime: fields[5], Size: int64(fields[6]), Major: fields[9], Minor: fields[10],
	}
	if h.Name == trailer {
		return nil, io.EOF
	}
	r.left, r.padding = h.Size, padding(h.Size)
	return h, nil
}

// Read reads content of the current member. It returns io.EOF at its end.
func (r *Reader) Read(p []byte) (int, error) {
	if r.err != nil && !errors.Is(r.err, io.EOF) {
		return 0, r.err
	}
	if r.left == 0 {
		return 0, io.EOF
	}
	n, err := r.r.Read(p[:min(int64(len(p)), r.left)])
	r.at, r.left = r.at+int64(n), r.left-int64(n)
	switch {
	case err == io.EOF && r.left == 0:
		err = nil // the next call returns it
	case err != nil:
		r.err = r.failure(err)
		err = r.err
	}
	return n, err
}

func (r *Reader) readFull(p []byte) error {
	n, err := io.ReadFull(r.r, p)
	r.at += int64(n)
	if err != nil {
		return r.failure(err)
	}
	return nil
}

// failure adds the offset. An archive that ends before its trailer is truncated.
func (r *Reader) failure(err error) error {
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("byte %d: %w", r.at, err)
}

// padding returns how many NULs follow size bytes.
func padding(size int64) int64 { return -size & 3 }
