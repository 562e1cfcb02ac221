package erofs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/slipway-build/slipway/exporter/sparse"
	"github.com/slipway-build/slipway/exporter/tree"
)

// ErrFormat is the error for a file that is not an EROFS file system, or is
// damaged.
var ErrFormat = errors.New("not an EROFS file system")

// ErrUnsupported is the error for a compressed file system and for other
// features that Read does not support.
var ErrUnsupported = errors.New("unsupported feature")

// Limits for file systems from strangers.
const (
	minBlockBits, maxBlockBits = 9, 16
	maxDirectorySize           = 32 << 20 // bytes
)

// Read reads the tree of a file system of size bytes, with owners, modes,
// devices, hard links and extended attributes. The contents of files are read
// from r when they are opened.
//
// The error is ErrFormat for a file that is not a file system or is damaged,
// ErrUnsupported for compressed and chunk-based files and for long prefixes of
// extended attributes, one of package tree for a tree that exceeds the limits of
// Linux or of a tree in memory, and the one of r if that fails.
func Read(r io.ReaderAt, size int64) ([]tree.Entry, error) {
	e := &reader{in: sparse.File{ReaderAt: r, Size: size, Format: "EROFS", Err: ErrFormat}}
	b, err := e.in.Bytes(superOffset, superSize)
	if err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	if le.Uint32(b) != magic {
		return nil, invalidAt(superOffset, "there is no superblock")
	}
	if b[12] < minBlockBits || b[12] > maxBlockBits {
		return nil, invalidAt(superOffset+12, "blocks have 2^%d bytes", b[12])
	}
	e.blockSize = 1 << b[12]
	e.metadata = int64(le.Uint32(b[40:])) * e.blockSize
	e.shared = int64(le.Uint32(b[44:])) * e.blockSize
	if err := e.read(uint64(le.Uint16(b[14:])), ".", tree.Dir); err != nil {
		return nil, err
	}
	return e.tree.Entries(), nil
}

// reader reads one file system.
type reader struct {
	in        sparse.File
	blockSize int64
	metadata  int64 // offset in bytes of the inodes
	shared    int64 // offset in bytes of shared extended attributes
	tree      tree.Collector
}

func invalidAt(at int64, format string, args ...any) error {
	return fmt.Errorf("%w: byte %d: %s", ErrFormat, at, fmt.Sprintf(format, args...))
}

// read adds the file with a number, and what is in it if it is a directory.
func (e *reader) read(nid uint64, path string, kind tree.Type) error {
	n, err := e.inode(nid, path)
	if err != nil {
		return err
	}
	if n.Type != kind {
		return invalidAt(e.metadata, "%q is a %v, but its entry says %v", path, n.Type, kind)
	}
	if err := e.tree.Add(n.Entry); err != nil || kind != tree.Dir {
		return err
	}
	if n.content.Size > maxDirectorySize {
		return invalidAt(e.metadata, "the directory %q has %d bytes", path, n.content.Size)
	}
	for at := int64(0); at < n.content.Size; at += e.blockSize {
		block := make([]byte, min(e.blockSize, n.content.Size-at))
		if _, err := n.content.ReadAt(block, at); err != nil {
			return fmt.Errorf("EROFS: directory %q: %w", path, err)
		}
		if err := e.listing(block, path); err != nil {
			return err
		}
	}
	return nil
}

// treeTypes are the types of directory entries.
var treeTypes = func() map[byte]tree.Type {
	types := map[byte]tree.Type{}
	for t, number := range direntType {
		types[number] = t
	}
	return types
}()

// listing reads a block of a directory.
func (e *reader) listing(block []byte, path string) error {
	le := binary.LittleEndian
	invalid := func() error { return invalidAt(e.metadata, "the directory %q is damaged", path) }
	if len(block) < direntSize {
		return invalid()
	}
	first := int(le.Uint16(block[8:]))
	if first < direntSize || first%direntSize != 0 || first > len(block) {
		return invalid()
	}
	for at := 0; at < first; at += direntSize {
		start, end := int(le.Uint16(block[at+8:])), len(block)
		if at+direntSize < first {
			end = int(le.Uint16(block[at+direntSize+8:]))
		}
		if start < first || end < start || end > len(block) {
			return invalid()
		}
		name, _, _ := strings.Cut(string(block[start:end]), "\x00")
		if name == "." || name == ".." {
			continue
		}
		kind := treeTypes[block[at+10]]
		if kind == 0 || name == "" || strings.Contains(name, "/") {
			return invalidAt(e.metadata, "the directory %q has the entry %q of type %d", path, name, block[at+10])
		}
		to := name
		if path != "." {
			to = path + "/" + name
		}
		if err := e.read(le.Uint64(block[at:]), to, kind); err != nil {
			return err
		}
	}
	return nil
}

// file is an inode with its content.
type file struct {
	tree.Entry
	content sparse.Content
}

// inode reads an inode.
func (e *reader) inode(nid uint64, path string) (file, error) {
	n := file{Entry: tree.Entry{Path: path}}
	if nid > uint64(e.in.Size/slotSize) {
		return n, invalidAt(e.metadata, "%q has the inode %d", path, nid)
	}
	at := e.metadata + int64(nid)*slotSize
	b, err := e.in.Bytes(at, compactSize)
	if err != nil {
		return n, err
	}
	le := binary.LittleEndian
	head, links, size := int64(compactSize), uint32(le.Uint16(b[6:])), int64(le.Uint32(b[8:]))
	n.UID, n.GID = uint32(le.Uint16(b[24:])), uint32(le.Uint16(b[26:]))
	format := le.Uint16(b)
	if format&1 != 0 {
		head = extendedSize
		if b, err = e.in.Bytes(at, extendedSize); err != nil {
			return n, err
		}
		size, n.UID, n.GID, links = int64(le.Uint64(b[8:])), le.Uint32(b[24:]), le.Uint32(b[28:]), le.Uint32(b[44:])
	}
	mode := le.Uint16(b[4:])
	for t, bits := range posixType {
		if mode&0o170000 == bits {
			n.Type = t
		}
	}
	if n.Type == 0 || size < 0 {
		return n, invalidAt(at, "%q has the mode %#o and %d bytes", path, mode, size)
	}
	n.Mode = uint32(mode) & tree.ModeMask
	if links > 1 && n.Type != tree.Dir {
		n.Inode = nid + 1
	}
	if count := int64(le.Uint16(b[2:])); count > 0 {
		length := xattrHeader + 4*(count-1)
		if n.Xattrs, err = e.xattrs(at+head, length); err != nil {
			return n, fmt.Errorf("%q: %w", path, err)
		}
		head += length
	}
	where := le.Uint32(b[16:])
	switch n.Type {
	case tree.Char, tree.Block:
		n.Major, n.Minor = where>>8&0xfff, where&0xff|where>>12&0xfff00
		return n, nil
	case tree.FIFO:
		return n, nil
	}
	if n.content, err = e.content(format>>1&7, size, int64(where), at+head); err != nil {
		return n, fmt.Errorf("%q: %w", path, err)
	}
	return n, n.setContent()
}

// content locates the content of an inode: whole blocks from a block on, and the
// rest at an offset.
func (e *reader) content(layout uint16, size, block, rest int64) (sparse.Content, error) {
	whole := size
	switch layout {
	case layoutPlain:
		rest = 0
	case layoutInline:
		whole = max(0, (size-1)/e.blockSize*e.blockSize)
	default:
		return sparse.Content{}, fmt.Errorf("EROFS: %w: data layout %d, for example of compressed files", ErrUnsupported, layout)
	}
	var runs []sparse.Run
	for _, part := range []struct{ to, at, size int64 }{{0, block * e.blockSize, whole}, {whole, rest, size - whole}} {
		if part.size == 0 {
			continue
		}
		if part.at < 0 || part.at > e.in.Size-part.size {
			return sparse.Content{}, invalidAt(part.at, "%d bytes of content are after the end of the file, which has %d", part.size, e.in.Size)
		}
		runs = append(runs, sparse.Run{Offset: part.to, Size: part.size, Data: io.NewSectionReader(e.in.ReaderAt, part.at, part.size)})
	}
	return sparse.New(size, runs, nil)
}

// setContent sets the fields of the entry that depend on the content.
func (n *file) setContent() error {
	switch n.Type {
	case tree.Symlink:
		if n.content.Size > 65535 {
			return invalidAt(0, "the target of %q has %d bytes", n.Path, n.content.Size)
		}
		link := make([]byte, n.content.Size)
		if _, err := n.content.ReadAt(link, 0); err != nil {
			return fmt.Errorf("EROFS: %q: %w", n.Path, err)
		}
		n.Link, n.Mode = string(link), 0o777
	case tree.File:
		if n.Size = n.content.Size; n.Size > 0 {
			content := n.content
			n.Open = func() (tree.Content, error) { return tree.NewContent(content, content.Size), nil }
		}
	}
	return nil
}

// xattrs reads the extended attributes of an inode: a header, the numbers of
// shared attributes, and attributes.
func (e *reader) xattrs(at, length int64) (map[string]string, error) {
	b, err := e.in.Bytes(at, length)
	if err != nil {
		return nil, err
	}
	set := map[string]string{}
	shared := int64(b[4])
	if xattrHeader+4*shared > length {
		return nil, invalidAt(at, "there are %d shared extended attributes", shared)
	}
	for n := range shared {
		id := int64(binary.LittleEndian.Uint32(b[xattrHeader+4*n:]))
		entry, err := e.sharedXattr(e.shared + 4*id)
		if err != nil {
			return nil, err
		}
		if _, err := addXattr(set, entry); err != nil {
			return nil, err
		}
	}
	for b = b[xattrHeader+4*shared:]; len(bytes.Trim(b, "\x00")) > 0; {
		if b, err = addXattr(set, b); err != nil {
			return nil, err
		}
	}
	return set, nil
}

// sharedXattr returns the attribute at an offset.
func (e *reader) sharedXattr(at int64) ([]byte, error) {
	head, err := e.in.Bytes(at, 4)
	if err != nil {
		return nil, err
	}
	return e.in.Bytes(at, 4+int64(head[0])+int64(binary.LittleEndian.Uint16(head[2:])))
}

// addXattr adds the first attribute in b to a set, and returns the rest.
func addXattr(set map[string]string, b []byte) ([]byte, error) {
	if len(b) < 4 {
		return nil, fmt.Errorf("%w: an extended attribute is truncated", ErrFormat)
	}
	name, prefix, value := int(b[0]), int(b[1]), int(binary.LittleEndian.Uint16(b[2:]))
	if prefix >= len(xattrPrefixes) || xattrPrefixes[prefix] == "" {
		return nil, fmt.Errorf("EROFS: %w: extended attributes with prefix %d", ErrUnsupported, prefix)
	}
	end := 4 + name + value
	if end > len(b) {
		return nil, fmt.Errorf("%w: an extended attribute is truncated", ErrFormat)
	}
	set[xattrPrefixes[prefix]+string(b[4:4+name])] = string(b[4+name : end])
	return b[min(len(b), int(sparse.RoundUp(int64(end), 4))):], nil
}
