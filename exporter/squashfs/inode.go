package squashfs

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/slipway-build/slipway/exporter/tree"
)

// Types of inodes. The type of an inode with more fields is larger by extended.
const (
	typeDir = iota + 1
	typeFile
	typeSymlink
	typeBlock
	typeChar
	typeFIFO

	extended = 7
)

var inodeType = map[tree.Type]uint16{
	tree.Dir: typeDir, tree.File: typeFile, tree.Symlink: typeSymlink,
	tree.Block: typeBlock, tree.Char: typeChar, tree.FIFO: typeFIFO,
}

const (
	none = math.MaxUint32 // stands for no fragment and for no xattrs

	maxHeader    = 256 // entries after one header of a listing
	maxDevMajor  = 1<<12 - 1
	maxDevMinor  = 1<<20 - 1
	listingExtra = 3 // what the size of a listing adds for . and ..
)

// encodeInodes fills the tables of inodes and directories. It returns the reference
// of the root.
func (w *writer) encodeInodes() (root uint64, err error) {
	var last uint32
	for _, n := range w.nodes {
		last = max(last, n.Number)
	}
	w.inodeRefs = make([]uint64, last+1)
	// Backward, so that a directory comes after its children.
	for i := len(w.nodes) - 1; i >= 0; i-- {
		n := w.nodes[i]
		if n.First != n {
			continue
		}
		var listing listing
		if n.Type == tree.Dir {
			listing = w.encodeListing(n)
		}
		inode, err := w.encodeInode(n, listing)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", n.Path, err)
		}
		w.inodeRefs[n.Number] = w.inodes.reference()
		w.inodes.write(inode)
	}
	return w.inodeRefs[w.nodes[0].Number], nil
}

func (w *writer) encodeInode(n *tree.Node, l listing) ([]byte, error) {
	xattr := w.xattrs.add(n.Xattrs)
	uid, err := w.ids.add(n.UID)
	if err != nil {
		return nil, err
	}
	gid, err := w.ids.add(n.GID)
	if err != nil {
		return nil, err
	}
	d := w.data[n]
	large := xattr != none
	switch n.Type {
	case tree.Dir:
		large = large || l.size+listingExtra > math.MaxUint16 || len(l.index) > 0
	case tree.File:
		large = large || n.Links > 1 || n.Size > math.MaxUint32 || d.start > math.MaxUint32
	}
	le := binary.LittleEndian
	kind := inodeType[n.Type]
	if large {
		kind += extended
	}
	b := le.AppendUint16(nil, kind)
	b = le.AppendUint16(b, uint16(n.Mode))
	b = le.AppendUint16(b, uid)
	b = le.AppendUint16(b, gid)
	b = le.AppendUint32(b, uint32(w.options.Time.Unix()))
	b = le.AppendUint32(b, n.Number)
	u32 := func(values ...uint32) {
		for _, v := range values {
			b = le.AppendUint32(b, v)
		}
	}
	switch n.Type {
	case tree.Dir:
		if !large {
			u32(l.start, n.Links)
			b = le.AppendUint16(b, uint16(l.size+listingExtra))
			b = le.AppendUint16(b, l.offset)
			u32(n.Parent.Number)
			break
		}
		u32(n.Links, l.size+listingExtra, l.start, n.Parent.Number)
		b = le.AppendUint16(b, uint16(len(l.index)))
		b = le.AppendUint16(b, l.offset)
		u32(xattr)
		for _, i := range l.index {
			u32(i.at, i.start, uint32(len(i.name)-1))
			b = append(b, i.name...)
		}
		return b, nil
	case tree.File:
		fragment := uint32(none)
		if d.fragment >= 0 {
			fragment = uint32(d.fragment)
		}
		if large {
			const holes = 0 // bytes in no block, which is for statistics only
			for _, v := range []uint64{uint64(d.start), uint64(n.Size), holes} {
				b = le.AppendUint64(b, v)
			}
			u32(n.Links, fragment, uint32(d.offset), xattr)
		} else {
			u32(uint32(d.start), fragment, uint32(d.offset), uint32(n.Size))
		}
		u32(d.blocks...)
		return b, nil
	case tree.Symlink:
		u32(n.Links, uint32(len(n.Link)))
		b = append(b, n.Link...)
	case tree.Char, tree.Block:
		if n.Major > maxDevMajor || n.Minor > maxDevMinor {
			return nil, fmt.Errorf("device %d,%d: SquashFS supports numbers up to %d,%d", n.Major, n.Minor, maxDevMajor, maxDevMinor)
		}
		u32(n.Links, n.Minor&0xff|n.Major<<8|n.Minor&^0xff<<12)
	case tree.FIFO:
		u32(n.Links)
	}
	if large {
		u32(xattr)
	}
	return b, nil
}

// listing locates the names of a directory.
type listing struct {
	start  uint32 // offset of its block in the directory table in bytes
	offset uint16 // in that block, in bytes
	size   uint32 // bytes
	index  []listingIndex
}

// listingIndex is an entry of the index of a long listing.
type listingIndex struct {
	at    uint32 // offset in the listing in bytes
	start uint32 // offset of the block in the directory table in bytes
	name  string // the first name there
}

// encodeListing writes the names of a directory, which are sorted.
func (w *writer) encodeListing(n *tree.Node) listing {
	le := binary.LittleEndian
	var l listing
	l.start, l.offset = w.listings.position()
	block := l.start
	write := func(b []byte) {
		w.listings.write(b)
		l.size += uint32(len(b))
	}
	for children := n.Children; len(children) > 0; {
		start, _ := w.listings.position()
		if start != block {
			l.index = append(l.index, listingIndex{l.size, start, children[0].Name})
			block = start
		}
		// A header is for entries whose inodes are in one block and whose
		// numbers differ by 16 bits. Each block starts with one, for the
		// index.
		_, offset := w.listings.position()
		first := children[0].First.Number
		inodes := w.inodeRefs[first] >> 16
		var entries []byte
		count := 0
		for _, c := range children {
			delta := int64(c.Number) - int64(first)
			if count == maxHeader || w.inodeRefs[c.Number]>>16 != inodes || delta != int64(int16(delta)) ||
				count > 0 && int(offset)+len(entries) > metadataSize {
				break
			}
			entries = le.AppendUint16(entries, uint16(w.inodeRefs[c.Number]))
			entries = le.AppendUint16(entries, uint16(delta))
			entries = le.AppendUint16(entries, inodeType[c.Type])
			entries = le.AppendUint16(entries, uint16(len(c.Name)-1))
			entries = append(entries, c.Name...)
			count++
		}
		header := le.AppendUint32(nil, uint32(count-1))
		header = le.AppendUint32(header, uint32(inodes))
		header = le.AppendUint32(header, first)
		write(append(header, entries...))
		children = children[count:]
	}
	return l
}
