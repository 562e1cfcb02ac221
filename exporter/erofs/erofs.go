// Package erofs writes and reads EROFS file systems without compression.
//
// Format: Linux, Documentation/filesystems/erofs.rst and fs/erofs/erofs_fs.h.
// Numbers are little-endian. Layout in blocks of 4 KiB:
//
//	0   superblock, at byte 1024
//	1…  inodes in slots of 32 bytes, the root first. An inode is followed by
//	    its extended attributes and, if it fits into the block, by the rest of
//	    its content after the last full block
//	…   contents in whole blocks, in the order of the inodes
//
// Linux 5.4, the first release with EROFS, can mount the file systems.
package erofs

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"math"
	"math/bits"
	"slices"
	"strings"
	"time"

	"github.com/slipway-build/slipway/exporter/sparse"
	"github.com/slipway-build/slipway/exporter/tree"
)

const (
	blockSize   = 4096
	slotSize    = 32 // inode numbers count slots
	superOffset = 1024
	superSize   = 128
	magic       = 0xe0f5e1e2

	compatChecksum = 1

	metadataBlock = 1 // the first block with inodes

	compactSize, extendedSize = 32, 64 // bytes of an inode

	// Data layouts of inodes.
	layoutPlain  = 0
	layoutInline = 2

	direntSize = 12
)

var (
	posixType  = map[tree.Type]uint16{tree.File: 0o100000, tree.Dir: 0o040000, tree.Symlink: 0o120000, tree.Char: 0o020000, tree.Block: 0o060000, tree.FIFO: 0o010000}
	direntType = map[tree.Type]byte{tree.File: 1, tree.Dir: 2, tree.Char: 3, tree.Block: 4, tree.FIFO: 5, tree.Symlink: 7}
)

// inode is an inode with its place in the file system.
type inode struct {
	*tree.Node
	xattrs   []byte
	extended bool
	size     int64 // bytes of the content
	inline   bool  // the end of the content follows the inode
	offset   int64 // bytes from the start of the inodes
	block    int64 // first block of the content
	listing  [][]*tree.Node
}

// headSize returns the size of the inode and its extended attributes in bytes.
func (n *inode) headSize() int64 {
	if n.extended {
		return extendedSize + int64(len(n.xattrs))
	}
	return compactSize + int64(len(n.xattrs))
}

// nid returns the number of the inode.
func (n *inode) nid() uint64 { return uint64(n.offset / slotSize) }

// blocks returns the number of blocks of the content.
func (n *inode) blocks() int64 {
	if n.inline {
		return n.size / blockSize
	}
	return sparse.RoundUp(n.size, blockSize) / blockSize
}

// builder lays out one file system.
type builder struct {
	inodes []*inode
	of     map[*tree.Node]*inode // by first hard link
	time   time.Time
	blocks int64
}

// New returns a file system with a tree. The time is that of all files. New fails for
// a time before 1970, and for sizes, device numbers and extended attributes that
// exceed the format. It skips extended attributes that the format does not support:
// see SupportsXattr.
func New(entries []tree.Entry, t time.Time) (sparse.Content, error) {
	if t.Unix() < 0 {
		return sparse.Content{}, fmt.Errorf("EROFS supports no time before 1970: choose another SOURCE_DATE_EPOCH than %d", t.Unix())
	}
	nodes, err := tree.Nodes(entries)
	if err != nil {
		return sparse.Content{}, err
	}
	l := builder{of: map[*tree.Node]*inode{}, time: t}
	for _, n := range nodes {
		if n.First != n {
			continue
		}
		i, err := newInode(n)
		if err != nil {
			return sparse.Content{}, fmt.Errorf("%s: %w", n.Path, err)
		}
		l.inodes, l.of[n] = append(l.inodes, i), i
	}
	l.place()
	if l.blocks > math.MaxUint32 {
		return sparse.Content{}, fmt.Errorf("the file system has %d blocks of %d bytes, but EROFS supports %d", l.blocks, blockSize, uint32(math.MaxUint32))
	}
	return l.image()
}

func newInode(n *tree.Node) (*inode, error) {
	i := &inode{Node: n, size: n.Size}
	var err error
	if i.xattrs, err = encodeXattrs(n.Xattrs); err != nil {
		return nil, err
	}
	switch n.Type {
	case tree.Symlink:
		i.size = int64(len(n.Link))
	case tree.Dir:
		i.list()
	case tree.Char, tree.Block:
		if n.Major >= 1<<12 || n.Minor >= 1<<20 {
			return nil, fmt.Errorf("device %d,%d: Linux supports numbers up to 4095,1048575", n.Major, n.Minor)
		}
	}
	i.extended = n.UID > math.MaxUint16 || n.GID > math.MaxUint16 || n.Links > math.MaxUint16 || i.size > math.MaxUint32
	return i, nil
}

// place assigns places to inodes and contents.
func (l *builder) place() {
	var end int64
	for _, n := range l.inodes {
		n.offset = sparse.RoundUp(end, slotSize)
		end = n.offset + n.headSize()
		rest := n.size % blockSize
		if rest == 0 || n.headSize()+rest > blockSize {
			continue
		}
		n.inline = true
		if end/blockSize != (end+rest-1)/blockSize {
			// The next block has room for all of it.
			n.offset = sparse.RoundUp(end, blockSize)
			end = n.offset + n.headSize()
		}
		end += rest
	}
	next := metadataBlock + sparse.RoundUp(end, blockSize)/blockSize
	for _, n := range l.inodes {
		n.block = next
		next += n.blocks()
	}
	l.blocks = next
}

// image returns the content of the file system.
func (l *builder) image() (sparse.Content, error) {
	const start = metadataBlock * blockSize
	var runs []sparse.Run
	digest := sha256.New()
	for _, n := range l.inodes {
		head := l.encode(n)
		digest.Write(head)
		var content io.ReaderAt
		switch n.Type {
		case tree.Dir:
			listing := l.encodeListing(n)
			digest.Write(listing)
			content = strings.NewReader(string(listing))
		case tree.Symlink:
			content = strings.NewReader(n.Link)
		default:
			content = n.ReaderAt()
		}
		whole := n.size
		if n.inline {
			whole = n.size / blockSize * blockSize
			runs = append(runs, sparse.Run{
				Offset: start + n.offset + n.headSize(), Size: n.size - whole,
				Data: io.NewSectionReader(content, whole, n.size-whole),
			})
		}
		runs = append(runs,
			sparse.Run{Offset: start + n.offset, Size: int64(len(head)), Data: strings.NewReader(string(head))},
			sparse.Run{Offset: n.block * blockSize, Size: whole, Data: content})
	}
	super := l.superblock([16]byte(digest.Sum(nil)))
	runs = append(runs, sparse.Bytes(super).At(superOffset)...)
	return sparse.New(l.blocks*blockSize, runs, nil)
}

// superblock returns the superblock with the fields of Linux 5.4.
func (l *builder) superblock(id [16]byte) []byte {
	id[6], id[8] = id[6]&0x0f|0x80, id[8]&0x3f|0x80 // UUID of version 8, RFC 9562
	le := binary.LittleEndian
	b := le.AppendUint32(nil, magic)
	b = le.AppendUint32(b, 0) // checksum
	b = le.AppendUint32(b, compatChecksum)
	b = append(b, byte(bits.TrailingZeros(blockSize)), 0)
	b = le.AppendUint16(b, uint16(l.inodes[0].nid()))
	b = le.AppendUint64(b, uint64(len(l.inodes)))
	b = le.AppendUint64(b, uint64(l.time.Unix()))
	b = le.AppendUint32(b, 0)
	b = le.AppendUint32(b, uint32(l.blocks))
	b = le.AppendUint32(b, metadataBlock)
	b = le.AppendUint32(b, 0) // shared extended attributes
	b = append(b, id[:]...)
	b = append(b, "SLIPWAY"...)
	b = append(b, make([]byte, superSize-len(b))...)
	// The checksum covers the rest of the block, which is zero.
	block := append(slices.Clone(b), make([]byte, blockSize-superOffset-superSize)...)
	le.PutUint32(b[4:], ^crc32.Checksum(block, crc32.MakeTable(crc32.Castagnoli)))
	return b
}

// encode returns an inode with its extended attributes.
func (l *builder) encode(n *inode) []byte {
	le := binary.LittleEndian
	format := uint16(layoutPlain << 1)
	if n.inline {
		format = layoutInline << 1
	}
	if n.extended {
		format |= 1
	}
	at := uint32(n.block)
	switch n.Type {
	case tree.Char, tree.Block:
		at = n.Minor&0xff | n.Major<<8 | n.Minor&^0xff<<12
	case tree.FIFO:
		at = 0
	}
	var xattrs uint16
	if len(n.xattrs) > 0 {
		xattrs = uint16((len(n.xattrs)-xattrHeader)/4 + 1)
	}
	b := le.AppendUint16(nil, format)
	b = le.AppendUint16(b, xattrs)
	b = le.AppendUint16(b, posixType[n.Type]|uint16(n.Mode))
	if n.extended {
		b = le.AppendUint16(b, 0)
		b = le.AppendUint64(b, uint64(n.size))
		for _, v := range []uint32{at, n.Number, n.UID, n.GID} {
			b = le.AppendUint32(b, v)
		}
		b = le.AppendUint64(b, uint64(l.time.Unix()))
		b = le.AppendUint32(b, 0)
		b = le.AppendUint32(b, n.Links)
		b = append(b, make([]byte, 16)...)
	} else {
		b = le.AppendUint16(b, uint16(n.Links))
		for _, v := range []uint32{uint32(n.size), 0, at, n.Number} {
			b = le.AppendUint32(b, v)
		}
		b = le.AppendUint16(b, uint16(n.UID))
		b = le.AppendUint16(b, uint16(n.GID))
		b = le.AppendUint32(b, 0)
	}
	return append(b, n.xattrs...)
}

// list divides the names of a directory into blocks and computes the size.
func (n *inode) list() {
	self := &tree.Node{Name: ".", First: n.Node}
	self.Type = tree.Dir
	up := &tree.Node{Name: "..", First: n.Parent}
	up.Type = tree.Dir
	names := append(slices.Clone(n.Children), self, up)
	slices.SortFunc(names, func(a, b *tree.Node) int { return cmp.Compare(a.Name, b.Name) })
	var block []*tree.Node
	used := 0
	for _, c := range names {
		need := direntSize + len(c.Name)
		if used+need > blockSize {
			n.listing = append(n.listing, block)
			block, used = nil, 0
		}
		block, used = append(block, c), used+need
	}
	n.listing = append(n.listing, block)
	n.size = int64(len(n.listing)-1)*blockSize + int64(used)
}

// encodeListing returns the content of a directory.
func (l *builder) encodeListing(n *inode) []byte {
	le := binary.LittleEndian
	content := make([]byte, 0, n.size)
	for _, block := range n.listing {
		content = append(content, make([]byte, -len(content)&(blockSize-1))...)
		at := direntSize * len(block)
		var names []byte
		for _, c := range block {
			content = le.AppendUint64(content, l.of[c.First].nid())
			content = le.AppendUint16(content, uint16(at+len(names)))
			content = append(content, direntType[c.Type], 0)
			names = append(names, c.Name...)
		}
		content = append(content, names...)
	}
	return content
}

const (
	xattrHeader   = 12
	maxXattrs     = 65535 * 4 // bytes of one file: a count of words in 16 bits
	maxXattrValue = math.MaxUint16
)

// xattrPrefixes are the prefixes of names that the format supports, by number. The
// empty ones are not in use.
var xattrPrefixes = []string{1: "user.", 2: "system.posix_acl_access", 3: "system.posix_acl_default", 4: "trusted.", 6: "security."}

// SupportsXattr reports whether the format supports an extended attribute of this
// name: an access control list, or one in the namespaces user, trusted and security.
func SupportsXattr(xattr string) bool {
	return slices.ContainsFunc(xattrPrefixes, func(prefix string) bool { return prefix != "" && strings.HasPrefix(xattr, prefix) })
}

func encodeXattrs(attributes map[string]string) ([]byte, error) {
	le := binary.LittleEndian
	b := make([]byte, xattrHeader)
	for _, name := range slices.Sorted(maps.Keys(attributes)) {
		value := attributes[name]
		for number, prefix := range xattrPrefixes {
			rest, ok := strings.CutPrefix(name, prefix)
			if prefix == "" || !ok {
				continue
			}
			if len(value) > maxXattrValue {
				return nil, fmt.Errorf("extended attribute %s has %d bytes, but EROFS supports %d", name, len(value), maxXattrValue)
			}
			b = append(b, byte(len(rest)), byte(number))
			b = le.AppendUint16(b, uint16(len(value)))
			b = append(append(b, rest...), value...)
			b = append(b, make([]byte, -len(b)&3)...)
		}
	}
	switch {
	case len(b) == xattrHeader:
		return nil, nil
	case len(b) > maxXattrs:
		return nil, fmt.Errorf("the extended attributes have %d bytes, but EROFS supports %d", len(b), maxXattrs)
	}
	return b, nil
}
