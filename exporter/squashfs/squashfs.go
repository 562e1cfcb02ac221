// Package squashfs writes and reads SquashFS 4.0 file systems.
//
// Format: Linux, Documentation/filesystems/squashfs.rst and
// fs/squashfs/squashfs_fs.h. Numbers are little-endian. Layout:
//
//	superblock
//	data blocks of files and fragment blocks, in the order of their paths
//	inode table       metadata blocks
//	directory table   metadata blocks
//	fragment table    metadata blocks, then their index
//	export table      the same, with inodes by number
//	id table          the same, with owners and groups
//	xattr table       metadata blocks with attributes, then with ids, then an index
//
// Each block is compressed separately. Files smaller than a block share fragment
// blocks, and files with the same content share it. Write compresses on all
// processors, and their number does not change the result.
package squashfs

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"math/bits"
	"os"
	"time"

	"github.com/slipway-build/slipway/exporter/tree"
)

const (
	blockSize      = 128 << 10 // bytes of a block of files; the default of mksquashfs
	superblockSize = 96
	padding        = 4096 // alignment of the size, for block devices

	magic   = 0x73717368
	invalid = math.MaxUint64 // offset of a missing table

	flagNoXattrs   = 0x0200
	flagExportable = 0x0080
	flagDuplicates = 0x0040
)

// Options are the attributes of a file system.
type Options struct {
	Compression string    // "zstd", "gzip" or "none"
	Level       int       // as in the command-line tool of the compression
	Time        time.Time // of all files; its year must be 1970 to 2106
}

// writer writes one file system.
type writer struct {
	options Options
	codec   *codec
	out     io.WriterAt
	at      int64 // bytes written

	nodes     []*tree.Node
	data      map[*tree.Node]*data // by first hard link
	fragments []block

	ids       ids
	xattrs    xattrs
	inodes    metadata
	listings  metadata
	inodeRefs []uint64 // by number, from 1
}

// Write writes a tree to an empty file and returns its size in bytes. It fails for
// options, owners and device numbers that the format does not support, and if a file
// has fewer bytes than its entry says. It skips extended attributes that the format
// does not support: see SupportsXattr.
func Write(out *os.File, entries []tree.Entry, options Options) (int64, error) {
	if t := options.Time.Unix(); t < 0 || t > math.MaxUint32 {
		return 0, fmt.Errorf("SquashFS supports the years 1970 to 2106, not %d: choose another SOURCE_DATE_EPOCH", options.Time.UTC().Year())
	}
	codec, err := newCodec(options)
	if err != nil {
		return 0, err
	}
	nodes, err := tree.Nodes(entries)
	if err != nil {
		return 0, err
	}
	w := &writer{options: options, codec: codec, out: out, at: superblockSize, nodes: nodes}
	w.inodes.codec, w.listings.codec = codec, codec
	if err := w.writeData(); err != nil {
		return 0, err
	}
	if err := w.writeTables(); err != nil {
		return 0, err
	}
	size := (w.at + padding - 1) / padding * padding
	return size, out.Truncate(size)
}

// append writes at the end.
func (w *writer) append(b []byte) error {
	_, err := w.out.WriteAt(b, w.at)
	w.at += int64(len(b))
	return err
}

// writeTables writes everything after the data, and the superblock.
func (w *writer) writeTables() error {
	root, err := w.encodeInodes()
	if err != nil {
		return err
	}
	s := superblock{root: root, idTable: invalid, xattrTable: invalid, exportTable: invalid, fragmentTable: invalid}
	for _, table := range []struct {
		start *uint64
		bytes []byte
	}{
		{&s.inodeTable, w.inodes.finish()},
		{&s.directoryTable, w.listings.finish()},
	} {
		*table.start = uint64(w.at)
		if err := w.append(table.bytes); err != nil {
			return err
		}
	}

	var fragments, exports, owners []byte
	for _, f := range w.fragments {
		fragments = binary.LittleEndian.AppendUint64(fragments, uint64(f.start))
		fragments = binary.LittleEndian.AppendUint32(fragments, f.size)
		fragments = binary.LittleEndian.AppendUint32(fragments, 0)
	}
	for _, ref := range w.inodeRefs[1:] {
		exports = binary.LittleEndian.AppendUint64(exports, ref)
	}
	for _, id := range w.ids.list {
		owners = binary.LittleEndian.AppendUint32(owners, id)
	}
	for _, table := range []struct {
		start   *uint64
		entries []byte
	}{
		{&s.fragmentTable, fragments}, {&s.exportTable, exports}, {&s.idTable, owners},
	} {
		if len(table.entries) == 0 {
			continue
		}
		if *table.start, err = w.writeTable(table.entries, nil); err != nil {
			return err
		}
	}
	if len(w.xattrs.sets) > 0 {
		if s.xattrTable, err = w.writeXattrs(); err != nil {
			return err
		}
	}
	s.used = uint64(w.at)
	_, err = w.out.WriteAt(w.encodeSuperblock(s), 0)
	return err
}

// writeTable writes metadata blocks, head and the index of the blocks. It returns
// the offset of head in bytes.
func (w *writer) writeTable(entries, head []byte) (uint64, error) {
	index := head
	for len(entries) > 0 {
		part := entries[:min(len(entries), metadataSize)]
		entries = entries[len(part):]
		index = binary.LittleEndian.AppendUint64(index, uint64(w.at))
		if err := w.append(w.codec.metadataBlock(part)); err != nil {
			return 0, err
		}
	}
	start := uint64(w.at)
	return start, w.append(index)
}

type superblock struct {
	root, used                                                                  uint64
	idTable, xattrTable, inodeTable, directoryTable, fragmentTable, exportTable uint64
}

func (w *writer) encodeSuperblock(s superblock) []byte {
	flags := uint16(flagExportable | flagDuplicates)
	if len(w.xattrs.sets) == 0 {
		flags |= flagNoXattrs
	}
	le := binary.LittleEndian
	b := le.AppendUint32(nil, magic)
	b = le.AppendUint32(b, uint32(len(w.inodeRefs)-1))
	b = le.AppendUint32(b, uint32(w.options.Time.Unix()))
	b = le.AppendUint32(b, blockSize)
	b = le.AppendUint32(b, uint32(len(w.fragments)))
	b = le.AppendUint16(b, w.codec.id)
	b = le.AppendUint16(b, uint16(bits.TrailingZeros(blockSize)))
	b = le.AppendUint16(b, flags)
	b = le.AppendUint16(b, uint16(len(w.ids.list)))
	b = le.AppendUint16(b, 4) // version 4.0
	b = le.AppendUint16(b, 0)
	for _, value := range []uint64{s.root, s.used, s.idTable, s.xattrTable, s.inodeTable, s.directoryTable, s.fragmentTable, s.exportTable} {
		b = le.AppendUint64(b, value)
	}
	return b
}

// ids is the table of the owners and groups of files.
type ids struct {
	list  []uint32
	index map[uint32]uint16
}

// add returns the index of an id in the table.
func (t *ids) add(id uint32) (uint16, error) {
	if i, ok := t.index[id]; ok {
		return i, nil
	}
	if len(t.list) > math.MaxUint16-1 {
		return 0, fmt.Errorf("the files have more than %d owners and groups, which SquashFS does not support", math.MaxUint16)
	}
	if t.index == nil {
		t.index = map[uint32]uint16{}
	}
	i := uint16(len(t.list))
	t.list, t.index[id] = append(t.list, id), i
	return i, nil
}
