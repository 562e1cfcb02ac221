package squashfs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"

	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"

	"github.com/slipway-build/slipway/exporter/sparse"
	"github.com/slipway-build/slipway/exporter/tree"
)

// ErrFormat is the error for a file that is not a SquashFS 4.0 file system, or is
// damaged.
var ErrFormat = errors.New("not a SquashFS file system")

// ErrUnsupported is the error for a compression that Read does not support.
var ErrUnsupported = errors.New("unsupported compression")

// Limits for file systems from strangers.
const (
	maxBlockSize = 1 << 20
	maxIDs       = 1 << 16
	maxFragments = 1 << 20
	maxBlocks    = 4 << 20 // of all files
	maxCached    = 4096    // metadata blocks, of 8 KiB
	maxXattrSize = 1 << 20 // bytes of the attributes of one file
)

// compressionNames are the compressions of the format by number.
var compressionNames = []string{1: "gzip", 2: "lzma", 3: "lzo", 4: "xz", 5: "lz4", 6: "zstd"}

// Read reads the tree of a file system of size bytes, with owners, modes,
// devices, hard links and extended attributes. The contents of files are read
// from r when they are opened. Blocks may be compressed with gzip or zstd.
//
// The error is ErrFormat for a file that is not a file system or is damaged,
// ErrUnsupported for other compressions, one of package tree for a tree that
// exceeds the limits of Linux or of a tree in memory, and the one of r if that
// fails.
func Read(r io.ReaderAt, size int64) ([]tree.Entry, error) {
	s, err := open(r, size)
	if err != nil {
		return nil, err
	}
	if err := s.directory(s.super.root, ".", true); err != nil {
		return nil, err
	}
	return s.tree.Entries(), nil
}

// reader reads one file system.
type reader struct {
	in        sparse.File
	super     superblock
	blockSize int64
	unpack    func(block []byte, limit int) ([]byte, error)

	ids       []uint32
	fragments []block
	xattrIDs  []byte // entries of the table of xattrs
	xattrsAt  int64  // first block of the attributes
	cache     map[int64]metadataBlock
	blocks    int // of all files
	tree      tree.Collector
}

// metadataBlock is an unpacked block and the offset of the next one.
type metadataBlock struct {
	content []byte
	next    int64
}

func invalidAt(at int64, format string, args ...any) error {
	return fmt.Errorf("%w: byte %d: %s", ErrFormat, at, fmt.Sprintf(format, args...))
}

func open(r io.ReaderAt, size int64) (*reader, error) {
	s := &reader{in: sparse.File{ReaderAt: r, Size: size, Format: "SquashFS", Err: ErrFormat}, cache: map[int64]metadataBlock{}}
	b, err := s.in.Bytes(0, superblockSize)
	if err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	if le.Uint32(b) != magic || le.Uint16(b[28:]) != 4 {
		return nil, invalidAt(0, "there is no superblock of version 4")
	}
	s.blockSize = int64(le.Uint32(b[12:]))
	if s.blockSize < 4096 || s.blockSize > maxBlockSize || bits.OnesCount64(uint64(s.blockSize)) != 1 {
		return nil, invalidAt(12, "blocks have %d bytes", s.blockSize)
	}
	if s.unpack, err = decompressor(int(le.Uint16(b[20:]))); err != nil {
		return nil, err
	}
	for i, field := range []*uint64{
		&s.super.root, &s.super.used, &s.super.idTable, &s.super.xattrTable,
		&s.super.inodeTable, &s.super.directoryTable, &s.super.fragmentTable, &s.super.exportTable,
	} {
		*field = le.Uint64(b[32+8*i:])
	}
	ids, err := s.table(s.super.idTable, int64(le.Uint16(b[26:])), 4, maxIDs)
	if err != nil {
		return nil, fmt.Errorf("owners: %w", err)
	}
	for ; len(ids) > 0; ids = ids[4:] {
		s.ids = append(s.ids, le.Uint32(ids))
	}
	fragments, err := s.table(s.super.fragmentTable, int64(le.Uint32(b[16:])), 16, maxFragments)
	if err != nil {
		return nil, fmt.Errorf("fragments: %w", err)
	}
	for ; len(fragments) > 0; fragments = fragments[16:] {
		s.fragments = append(s.fragments, block{int64(le.Uint64(fragments)), le.Uint32(fragments[8:])})
	}
	return s, s.openXattrs()
}

// decompressor returns a function that unpacks a block of up to limit bytes.
func decompressor(compression int) (func(block []byte, limit int) ([]byte, error), error) {
	name := fmt.Sprint("number ", compression)
	if compression > 0 && compression < len(compressionNames) {
		name = compressionNames[compression]
	}
	switch name {
	case "gzip":
		return func(block []byte, limit int) ([]byte, error) {
			z, err := zlib.NewReader(bytes.NewReader(block))
			if err != nil {
				return nil, err
			}
			return io.ReadAll(io.LimitReader(z, int64(limit)+1))
		}, nil
	case "zstd":
		z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(2*maxBlockSize), zstd.WithDecoderMaxWindow(2*maxBlockSize))
		if err != nil {
			return nil, err
		}
		return func(block []byte, limit int) ([]byte, error) { return z.DecodeAll(block, make([]byte, 0, limit)) }, nil
	}
	return nil, fmt.Errorf("SquashFS: %w %s: only gzip and zstd can be read", ErrUnsupported, name)
}

// metadata returns the metadata block at an offset.
func (s *reader) metadata(at int64) (metadataBlock, error) {
	if m, ok := s.cache[at]; ok {
		return m, nil
	}
	head, err := s.in.Bytes(at, 2)
	if err != nil {
		return metadataBlock{}, err
	}
	size := binary.LittleEndian.Uint16(head)
	stored := int(size &^ rawMetadata)
	if stored == 0 || stored > metadataSize {
		return metadataBlock{}, invalidAt(at, "a metadata block has %d bytes", stored)
	}
	content, err := s.in.Bytes(at+2, int64(stored))
	if err != nil {
		return metadataBlock{}, err
	}
	if size&rawMetadata == 0 {
		if content, err = s.unpack(content, metadataSize); err != nil {
			return metadataBlock{}, invalidAt(at, "a metadata block: %v", err)
		}
		if len(content) > metadataSize {
			return metadataBlock{}, invalidAt(at, "a metadata block unpacks to more than %d bytes", metadataSize)
		}
	}
	if len(s.cache) >= maxCached {
		clear(s.cache)
	}
	m := metadataBlock{content, at + 2 + int64(stored)}
	s.cache[at] = m
	return m, nil
}

// cursor reads a sequence of metadata blocks.
type cursor struct {
	s      *reader
	block  int64 // offset in the file
	offset int   // in the unpacked block
}

// next returns the next n bytes.
func (c *cursor) next(n int) ([]byte, error) {
	var out []byte
	for {
		m, err := c.s.metadata(c.block)
		if err != nil {
			return nil, err
		}
		if c.offset > len(m.content) {
			return nil, invalidAt(c.block, "a metadata block has %d bytes, not %d", len(m.content), c.offset)
		}
		part := m.content[c.offset:min(len(m.content), c.offset+n-len(out))]
		out = append(out, part...)
		c.offset += len(part)
		if len(out) == n {
			return out, nil
		}
		if len(m.content) < metadataSize {
			return nil, invalidAt(c.block, "the table ends too early")
		}
		c.block, c.offset = m.next, 0
	}
}

// at returns a cursor at a reference in a table.
func (s *reader) at(table uint64, reference uint64) *cursor {
	return &cursor{s, int64(table + reference>>16), int(reference & 0xffff)}
}

// table reads a table of count entries of size bytes, whose index is at an
// offset.
func (s *reader) table(index uint64, count, size, limit int64) ([]byte, error) {
	if count == 0 {
		return nil, nil
	}
	if count > limit {
		return nil, invalidAt(int64(index), "%d entries", count)
	}
	blocks := (count*size + metadataSize - 1) / metadataSize
	pointers, err := s.in.Bytes(int64(index), int64(8*blocks))
	if err != nil {
		return nil, err
	}
	var out []byte
	for ; len(pointers) > 0; pointers = pointers[8:] {
		m, err := s.metadata(int64(binary.LittleEndian.Uint64(pointers)))
		if err != nil {
			return nil, err
		}
		out = append(out, m.content...)
	}
	if int64(len(out)) < count*size {
		return nil, invalidAt(int64(index), "the table has %d bytes, not %d", len(out), count*size)
	}
	return out[:count*size], nil
}

// directory adds the directory whose inode is at a reference, and what is in it.
func (s *reader) directory(reference uint64, path string, root bool) error {
	n, err := s.inode(reference, path)
	if err != nil {
		return err
	}
	if n.Type != tree.Dir {
		return invalidAt(int64(s.super.inodeTable), "%q is not a directory", path)
	}
	if err := s.tree.Add(n.Entry); err != nil {
		return err
	}
	prefix := path + "/"
	if root {
		prefix = ""
	}
	le := binary.LittleEndian
	listing := s.at(s.super.directoryTable, uint64(n.listing)<<16|uint64(n.offset))
	for left := n.listingSize; left > 0; {
		header, err := listing.next(12)
		if err != nil {
			return err
		}
		count, start := int64(le.Uint32(header))+1, uint64(le.Uint32(header[4:]))
		if count > maxHeader {
			return invalidAt(listing.block, "a listing has a header for %d names", count)
		}
		left -= 12
		for range count {
			entry, err := listing.next(8)
			if err != nil {
				return err
			}
			name, err := listing.next(int(le.Uint16(entry[6:])) + 1)
			if err != nil {
				return err
			}
			left -= 8 + int64(len(name))
			if bytes.ContainsRune(name, '/') {
				return invalidAt(listing.block, "the name %q has a slash", name)
			}
			child, to := start<<16|uint64(le.Uint16(entry)), prefix+string(name)
			if le.Uint16(entry[4:]) == typeDir {
				err = s.directory(child, to, false)
			} else {
				err = s.file(child, to)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// file adds a file that is not a directory.
func (s *reader) file(reference uint64, path string) error {
	n, err := s.inode(reference, path)
	if err != nil {
		return err
	}
	if n.Type == tree.Dir {
		return invalidAt(int64(s.super.inodeTable), "%q is a directory, but its entry says otherwise", path)
	}
	return s.tree.Add(n.Entry)
}

// node is an inode.
type node struct {
	tree.Entry
	listing     uint32 // of a directory: offset of the block in the table
	offset      uint16 // in the block
	listingSize int64  // bytes
}

// treeTypes are the types of inodes.
var treeTypes = map[uint16]tree.Type{
	typeDir: tree.Dir, typeFile: tree.File, typeSymlink: tree.Symlink,
	typeBlock: tree.Block, typeChar: tree.Char, typeFIFO: tree.FIFO,
}

// inode reads the inode at a reference.
func (s *reader) inode(reference uint64, path string) (node, error) {
	n := node{Entry: tree.Entry{Path: path}}
	c := s.at(s.super.inodeTable, reference)
	at := c.block
	head, err := c.next(16)
	if err != nil {
		return n, err
	}
	le := binary.LittleEndian
	kind := le.Uint16(head)
	large := kind > extended
	if large {
		kind -= extended
	}
	if n.Type = treeTypes[kind]; n.Type == 0 {
		return n, invalidAt(at, "%q has the unknown type %d", path, le.Uint16(head))
	}
	n.Mode = uint32(le.Uint16(head[2:])) & tree.ModeMask
	for i, id := range []*uint32{&n.UID, &n.GID} {
		index := int(le.Uint16(head[4+2*i:]))
		if index >= len(s.ids) {
			return n, invalidAt(at, "%q has the owner %d of %d", path, index, len(s.ids))
		}
		*id = s.ids[index]
	}
	links, xattr := uint32(1), uint32(none)
	switch {
	case n.Type == tree.Dir && large:
		links, xattr, err = n.readLargeDir(c)
	case n.Type == tree.Dir:
		err = n.readDir(c)
	case n.Type == tree.File:
		links, xattr, err = s.readFile(c, &n, large)
	default:
		links, xattr, err = n.readSpecial(c, large)
	}
	if err != nil {
		return n, err
	}
	if links > 1 && n.Type != tree.Dir {
		n.Inode = reference + 1
	}
	n.Xattrs, err = s.xattrSet(xattr)
	return n, err
}

func (n *node) readDir(c *cursor) error {
	b, err := c.next(16)
	if err != nil {
		return err
	}
	le := binary.LittleEndian
	n.listing, n.listingSize, n.offset = le.Uint32(b), int64(le.Uint16(b[8:]))-listingExtra, le.Uint16(b[10:])
	return nil
}

func (n *node) readLargeDir(c *cursor) (links, xattr uint32, err error) {
	b, err := c.next(24)
	if err != nil {
		return 0, 0, err
	}
	le := binary.LittleEndian
	n.listing, n.listingSize, n.offset = le.Uint32(b[8:]), int64(le.Uint32(b[4:]))-listingExtra, le.Uint16(b[18:])
	return le.Uint32(b), le.Uint32(b[20:]), nil
}

// readSpecial reads the rest of a symbolic link, a device or a FIFO.
func (n *node) readSpecial(c *cursor, large bool) (links, xattr uint32, err error) {
	le := binary.LittleEndian
	xattr = none
	b, err := c.next(4)
	if err != nil {
		return 0, 0, err
	}
	links = le.Uint32(b)
	switch n.Type {
	case tree.Symlink:
		if b, err = c.next(4); err != nil {
			return 0, 0, err
		}
		length := le.Uint32(b)
		if length > 65535 {
			return 0, 0, invalidAt(c.block, "the target of %q has %d bytes", n.Path, length)
		}
		if b, err = c.next(int(length)); err != nil {
			return 0, 0, err
		}
		n.Link, n.Mode = string(b), 0o777
	case tree.Char, tree.Block:
		if b, err = c.next(4); err != nil {
			return 0, 0, err
		}
		device := le.Uint32(b)
		n.Major, n.Minor = device>>8&0xfff, device&0xff|device>>12&0xfff00
	}
	if large {
		if b, err = c.next(4); err != nil {
			return 0, 0, err
		}
		xattr = le.Uint32(b)
	}
	return links, xattr, nil
}

// readFile reads the rest of a regular file.
func (s *reader) readFile(c *cursor, n *node, large bool) (links, xattr uint32, err error) {
	le := binary.LittleEndian
	size := 16
	if large {
		size = 40
	}
	at := c.block
	b, err := c.next(size)
	if err != nil {
		return 0, 0, err
	}
	links, xattr = 1, none
	d := data{fragment: -1}
	var fragment uint32
	if large {
		d.start, n.Size = int64(le.Uint64(b)), int64(le.Uint64(b[8:]))
		links, fragment, d.offset, xattr = le.Uint32(b[24:]), le.Uint32(b[28:]), int(le.Uint32(b[32:])), le.Uint32(b[36:])
	} else {
		d.start, fragment, d.offset, n.Size = int64(le.Uint32(b)), le.Uint32(b[4:]), int(le.Uint32(b[8:])), int64(le.Uint32(b[12:]))
	}
	count := n.Size / s.blockSize
	if fragment == none && n.Size%s.blockSize != 0 {
		count++
	}
	if n.Size < 0 || count > int64(maxBlocks-s.blocks) {
		return 0, 0, invalidAt(at, "%q has %d bytes", n.Path, n.Size)
	}
	s.blocks += int(count)
	if fragment != none {
		if int64(fragment) >= int64(len(s.fragments)) {
			return 0, 0, invalidAt(at, "%q has the fragment %d of %d", n.Path, fragment, len(s.fragments))
		}
		d.fragment = int(fragment)
	}
	sizes, err := c.next(int(4 * count))
	if err != nil {
		return 0, 0, err
	}
	for ; len(sizes) > 0; sizes = sizes[4:] {
		d.blocks = append(d.blocks, le.Uint32(sizes))
	}
	if n.Size > 0 {
		path, length := n.Path, n.Size
		n.Open = func() (tree.Content, error) { return tree.NewContent(s.content(path, length, d), length), nil }
	}
	return links, xattr, nil
}

// content returns a reader of the content of a file.
func (s *reader) content(path string, size int64, d data) io.ReaderAt {
	offsets := make([]int64, len(d.blocks))
	next := d.start
	for i, b := range d.blocks {
		offsets[i] = next
		next += int64(b &^ rawData)
	}
	return &sparse.BlockReader{Size: size, BlockSize: s.blockSize, Block: func(number int64) ([]byte, error) {
		if number < int64(len(d.blocks)) {
			return s.block(block{offsets[number], d.blocks[number]})
		}
		if d.fragment < 0 {
			return nil, invalidAt(d.start, "%q has no block %d", path, number)
		}
		fragment, err := s.block(s.fragments[d.fragment])
		if err != nil {
			return nil, err
		}
		tail := int(size % s.blockSize)
		if d.offset < 0 || d.offset > len(fragment)-tail {
			return nil, invalidAt(s.fragments[d.fragment].start, "%q is not in its fragment", path)
		}
		return fragment[d.offset : d.offset+tail], nil
	}}
}

// block returns the content of a block of data. It is empty for zeros.
func (s *reader) block(b block) ([]byte, error) {
	stored := int64(b.size &^ rawData)
	if stored == 0 {
		return nil, nil
	}
	if stored > s.blockSize {
		return nil, invalidAt(b.start, "a block has %d bytes", stored)
	}
	content, err := s.in.Bytes(b.start, stored)
	if err != nil || b.size&rawData != 0 {
		return content, err
	}
	if content, err = s.unpack(content, int(s.blockSize)); err != nil {
		return nil, invalidAt(b.start, "a block: %v", err)
	}
	if int64(len(content)) > s.blockSize {
		return nil, invalidAt(b.start, "a block unpacks to more than %d bytes", s.blockSize)
	}
	return content, nil
}

// outOfLine is the bit in the type of an attribute whose value is elsewhere.
const outOfLine = 0x100

// openXattrs reads the table of the sets of extended attributes.
func (s *reader) openXattrs() error {
	if s.super.xattrTable == invalid {
		return nil
	}
	head, err := s.in.Bytes(int64(s.super.xattrTable), 16)
	if err != nil {
		return err
	}
	le := binary.LittleEndian
	s.xattrsAt = int64(le.Uint64(head))
	s.xattrIDs, err = s.table(s.super.xattrTable+16, int64(le.Uint32(head[8:])), 16, maxFragments)
	if err != nil {
		return fmt.Errorf("extended attributes: %w", err)
	}
	return nil
}

// xattrSet returns a set of extended attributes by its number.
func (s *reader) xattrSet(number uint32) (map[string]string, error) {
	if number == none {
		return nil, nil
	}
	if int64(number) >= int64(len(s.xattrIDs)/16) {
		return nil, invalidAt(s.xattrsAt, "there is no set of extended attributes %d", number)
	}
	le := binary.LittleEndian
	id := s.xattrIDs[16*number:]
	c := s.at(uint64(s.xattrsAt), le.Uint64(id))
	set, left := map[string]string{}, maxXattrSize
	for range le.Uint32(id[8:]) {
		head, err := c.next(4)
		if err != nil {
			return nil, err
		}
		kind, length := le.Uint16(head), int(le.Uint16(head[2:]))
		if int(kind&^outOfLine) >= len(xattrPrefixes) {
			return nil, invalidAt(c.block, "an extended attribute has the type %d", kind)
		}
		name, err := c.next(length)
		if err != nil {
			return nil, err
		}
		value, err := s.xattrValue(c, kind&outOfLine != 0, left)
		if err != nil {
			return nil, err
		}
		if left -= length + len(value); left < 0 {
			return nil, invalidAt(c.block, "the extended attributes of a file have more than %d bytes", maxXattrSize)
		}
		set[xattrPrefixes[kind&^outOfLine]+string(name)] = string(value)
	}
	return set, nil
}

func (s *reader) xattrValue(c *cursor, elsewhere bool, limit int) ([]byte, error) {
	le := binary.LittleEndian
	b, err := c.next(4)
	if err != nil {
		return nil, err
	}
	if elsewhere {
		if b, err = c.next(8); err != nil {
			return nil, err
		}
		c = s.at(uint64(s.xattrsAt), le.Uint64(b))
		if b, err = c.next(4); err != nil {
			return nil, err
		}
	}
	size := le.Uint32(b)
	if int64(size) > int64(limit) {
		return nil, invalidAt(c.block, "the value of an extended attribute has %d bytes", size)
	}
	return c.next(int(size))
}
