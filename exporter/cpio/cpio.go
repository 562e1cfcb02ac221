// Package cpio writes and reads cpio archives in the "new ASCII" format, newc, and
// initramfs files, which are made of such archives.
//
// Format: Linux, Documentation/driver-api/early-userspace/buffer-format.rst;
// cpio(5), "New ASCII Format". An archive is a sequence of members. A member is a
// header of 110 characters (the magic number 070701 and 13 numbers of eight
// hexadecimal digits each), the name with a NUL, and the content. NULs pad the name
// and the content to multiples of four bytes. The member TRAILER!!! ends the
// archive.
package cpio

import (
	"errors"
	"fmt"
	"io"
	"math"
)

// File types. Header.Mode combines one of them with the permission bits.
const (
	TypeFIFO    uint32 = 0o010000
	TypeChar    uint32 = 0o020000
	TypeDir     uint32 = 0o040000
	TypeBlock   uint32 = 0o060000
	TypeFile    uint32 = 0o100000
	TypeSymlink uint32 = 0o120000
	TypeMask    uint32 = 0o170000 // the bits of Header.Mode with the type
)

// MaxSize is the size of the largest content in bytes. The field has 32 bits.
const MaxSize = math.MaxUint32

// nameMax is the size of the longest name that Linux accepts, with its NUL, in
// bytes. Linux silently skips members with longer names.
const nameMax = 4096

const (
	magic         = "070701"
	magicChecksum = "070702" // the header's last number is a sum of the content
	headerSize    = len(magic) + 13*8
	trailer       = "TRAILER!!!"
)

// A Header describes one member. Members with the same Inode and with Links of at
// least 2 are hard links to one file. The last of them has the content.
type Header struct {
	Name  string // path without leading slash
	Inode uint32
	Mode  uint32 // type and permission bits
	UID   uint32
	GID   uint32
	Links uint32
	Size  int64  // bytes of content; the content of a symlink is its target
	Major uint32 // device number, for TypeChar and TypeBlock
	Minor uint32
	MTime uint32 // seconds since 1970
}

// A Writer writes one archive.
type Writer struct {
	w    io.Writer
	name string // of the current member
	left int64  // bytes of its content not yet written
	pad  int64  // bytes of NULs after the content
	err  error
}

// NewWriter returns a Writer that writes an archive to w.
func NewWriter(w io.Writer) *Writer {
	return &Writer{w: w}
}

// WriteHeader starts a member. The caller must then write h.Size bytes of content.
// It fails if the content of the previous member is incomplete, if h.Size is over
// MaxSize, and if the name is empty, longer than 4095 bytes or that of the trailer.
func (w *Writer) WriteHeader(h Header) error {
	switch {
	case h.Name == "" || h.Name == trailer:
		return fmt.Errorf("cpio: the name %q cannot be stored", h.Name)
	case len(h.Name)+1 > nameMax:
		return fmt.Errorf("cpio: the name %.64q… has %d bytes; Linux accepts %d", h.Name, len(h.Name), nameMax-1)
	case h.Size < 0:
		return fmt.Errorf("cpio: %s: negative size", h.Name)
	case h.Size > MaxSize:
		return fmt.Errorf("cpio: %s has %d bytes, but a file in an initramfs must be smaller than 4 GiB (%d bytes)",
			h.Name, h.Size, int64(MaxSize)+1)
	}
	if err := w.endMember(); err != nil {
		return err
	}
	return w.writeHeader(h)
}

func (w *Writer) writeHeader(h Header) error {
	buf := make([]byte, 0, headerSize+len(h.Name)+4)
	buf = fmt.Appendf(buf, "%s%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00", magic,
		h.Inode, h.Mode, h.UID, h.GID, h.Links, h.MTime, h.Size,
		0, 0, // device with the file: the archive is one device
		h.Major, h.Minor, len(h.Name)+1,
		0, // checksum: not used with this magic number
		h.Name)
	for len(buf)%4 != 0 {
		buf = append(buf, 0)
	}
	w.name, w.left, w.pad = h.Name, h.Size, padding(h.Size)
	return w.write(buf)
}

// Write writes content of the current member. It fails if there is more than
// Header.Size.
func (w *Writer) Write(p []byte) (int, error) {
	if int64(len(p)) > w.left {
		return 0, fmt.Errorf("cpio: %s: the content is longer than the size in the header by %d bytes", w.name, int64(len(p))-w.left)
	}
	if err := w.write(p); err != nil {
		return 0, err
	}
	w.left -= int64(len(p))
	return len(p), nil
}

// Close writes the trailer. It does not close the underlying writer.
func (w *Writer) Close() error {
	if err := w.endMember(); err != nil {
		return err
	}
	if err := w.writeHeader(Header{Name: trailer, Links: 1}); err != nil {
		return err
	}
	w.err = errors.New("cpio: the archive is closed")
	return nil
}

func (w *Writer) endMember() error {
	if w.err != nil {
		return w.err
	}
	if w.left > 0 {
		return fmt.Errorf("cpio: %s: the content is shorter than the size in the header by %d bytes", w.name, w.left)
	}
	return w.write(make([]byte, w.pad))
}

func (w *Writer) write(p []byte) error {
	if w.err != nil {
		return w.err
	}
	_, w.err = w.w.Write(p)
	return w.err
}
