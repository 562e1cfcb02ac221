// Package squashfs writes SquashFS 4.0 file systems.
//
// Format: Linux, Documentation/filesystems/squashfs.rst and fs/squashfs/squashfs_fs.h.
// Layout:
//
//	superblock
//	data blocks of files and fragment blocks, in the order of their paths
//	inode table       metadata blocks
//	directory table   metadata blocks
//	fragment table    metadata blocks, then the index of these
//	export table      likewise: inodes by number
//	id table          likewise: owners and groups
//	xattr table       metadata blocks; then those with their ids, and the index of these
//
// Blocks of files and metadata blocks are compressed each for itself. Files that
// are smaller than a block share fragment blocks; files with the same content
// share it. All processors compress; the bytes do not depend on their number.
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
	blockSize      = 128 << 10 // of files; the default of mksquashfs
	superblockSize = 96
	padding        = 4096 // of the whole, so that a block device can hold it

	magic   = 0x73717368
	invalid = math.MaxUint64 // a table that is missing

	flagNoXattrs   = 0x0200
	flagExportable = 0x0080
	flagDuplicates = 0x0040
)

// Options are the attributes of a file system.
type Options struct {
	Compression string    // "zstd", "gzip" or "none"
	Level       int       // of the compression, as its program knows it
	Time        time.Time // of all files, from 1970 to 2106
}

// writer writes one file system.
type writer struct {
	options Options
	codec   *codec
	out     io.WriterAt
	at      int64 // end of what is written

	nodes     []*tree.Node
	data      map[*tree.Node]*data // of first names
	fragments []block

	ids       ids
	xattrs    xattrs
	inodes    metadata
	listings  metadata
	inodeRefs []uint64 // by number, from 1
}

// Write writes a tree to out, which must read as zeros where nothing was written,
// and returns its size in bytes. Extended attributes whose names do not begin with user.,
// trusted. or security. have no place in the format: see SupportsXattr.
func Write(out *os.File, entries []tree.Entry, options Options) (int64, error) {
	if t := options.Time.Unix(); t < 0 || t > math.MaxUint32 {
		return 0, fmt.Errorf("SquashFS knows the years 1970 to 2106, not %d: choose another SOURCE_DATE_EPOCH", options.Time.UTC().Year())
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

// writeTables writes everything behind the data, and the superblock.
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

// writeTable writes metadata blocks and the index of these, after head. It
// returns where head starts.
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

// ids are the owners and groups of files.
type ids struct {
	list  []uint32
	index map[uint32]uint16
}

// add gives the place of an id in the table.
func (t *ids) add(id uint32) (uint16, error) {
	if i, ok := t.index[id]; ok {
		return i, nil
	}
	if len(t.list) > math.MaxUint16-1 {
		return 0, fmt.Errorf("the files have more than %d owners and groups, which SquashFS cannot hold", math.MaxUint16)
	}
	if t.index == nil {
		t.index = map[uint32]uint16{}
	}
	i := uint16(len(t.list))
	t.list, t.index[id] = append(t.list, id), i
	return i, nil
}
