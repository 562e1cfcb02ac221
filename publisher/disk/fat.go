package disk

import (
	"encoding/binary"
	"errors"
	"io"
)

var errNotFound = errors.New("not found")

// fatReader is a FAT12, FAT16 or FAT32 file system, as far as looking for short names
// needs it. Format: Microsoft FAT32 File System Specification 1.03, section
// "Boot Sector and BPB" and following.
type fatReader struct {
	r        io.ReaderAt
	table    int64 // bytes to the file allocation table
	data     int64 // bytes to cluster 2
	cluster  int64 // bytes
	clusters uint32
	bits     int // of an entry of the table
	root     place
}

// place is where a directory or a file starts: a cluster, or the fixed root
// directory of FAT12 and FAT16.
type place struct {
	cluster     uint32
	fixed, size int64
}

func openFAT(r io.ReaderAt) (*fatReader, error) {
	b := make([]byte, sector)
	if _, err := r.ReadAt(b, 0); err != nil {
		return nil, err
	}
	bytesPerSector := int64(binary.LittleEndian.Uint16(b[11:]))
	sectorsPerCluster := int64(b[13])
	reserved := int64(binary.LittleEndian.Uint16(b[14:]))
	tables := int64(b[16])
	rootEntries := int64(binary.LittleEndian.Uint16(b[17:]))
	total := int64(binary.LittleEndian.Uint16(b[19:]))
	if total == 0 {
		total = int64(binary.LittleEndian.Uint32(b[32:]))
	}
	tableSectors := int64(binary.LittleEndian.Uint16(b[22:]))
	if tableSectors == 0 {
		tableSectors = int64(binary.LittleEndian.Uint32(b[36:]))
	}
	if b[510] != 0x55 || b[511] != 0xaa || bytesPerSector < sector || bytesPerSector > 4096 || sectorsPerCluster == 0 || tables == 0 || tableSectors == 0 {
		return nil, errors.New("no FAT file system")
	}
	rootSectors := (rootEntries*32 + bytesPerSector - 1) / bytesPerSector
	rootStart := reserved + tables*tableSectors
	fs := &fatReader{
		r:       r,
		table:   reserved * bytesPerSector,
		data:    (rootStart + rootSectors) * bytesPerSector,
		cluster: sectorsPerCluster * bytesPerSector,
	}
	// The kind follows from the number of clusters and nothing else.
	clusters := (total - rootStart - rootSectors) / sectorsPerCluster
	if clusters <= 0 {
		return nil, errors.New("no FAT file system")
	}
	fs.clusters = uint32(clusters)
	switch {
	case clusters < 4085:
		fs.bits = 12
	case clusters < 65525:
		fs.bits = 16
	default:
		fs.bits = 32
	}
	fs.root = place{fixed: rootStart * bytesPerSector, size: rootEntries * 32}
	if fs.bits == 32 {
		fs.root = place{cluster: binary.LittleEndian.Uint32(b[44:])}
	}
	return fs, nil
}

func (fs *fatReader) offset(p place) int64 { return fs.data + int64(p.cluster-2)*fs.cluster }

// next returns the cluster after a cluster, or 0.
func (fs *fatReader) next(cluster uint32) (uint32, error) {
	var b [4]byte
	bit := int64(cluster) * int64(fs.bits)
	if _, err := fs.r.ReadAt(b[:], fs.table+bit/8); err != nil {
		return 0, err
	}
	entry := binary.LittleEndian.Uint32(b[:]) >> (bit % 8)
	switch fs.bits {
	case 12:
		entry &= 0xfff
	case 16:
		entry &= 0xffff
	default:
		entry &= 0x0fffffff
	}
	if entry < 2 || entry >= fs.clusters+2 {
		return 0, nil
	}
	return entry, nil
}

// lookup finds an entry of a directory by its 8.3 name, padded with spaces.
func (fs *fatReader) lookup(dir place, name string, directory bool) (place, error) {
	if dir.size > 0 {
		entries := make([]byte, dir.size)
		if _, err := fs.r.ReadAt(entries, dir.fixed); err != nil {
			return place{}, err
		}
		found, _, err := find(entries, name, directory)
		return found, err
	}
	entries := make([]byte, fs.cluster)
	const most = 2 << 20 // bytes of a directory; more is a loop
	for size := int64(0); dir.cluster >= 2 && size < most; size += fs.cluster {
		if _, err := fs.r.ReadAt(entries, fs.offset(dir)); err != nil {
			return place{}, err
		}
		found, end, err := find(entries, name, directory)
		if err == nil || end {
			return found, err
		}
		if dir.cluster, err = fs.next(dir.cluster); err != nil {
			return place{}, err
		}
	}
	return place{}, errNotFound
}

// find searches a piece of a directory; end tells that it was the last one.
func find(entries []byte, name string, directory bool) (found place, end bool, err error) {
	const attrVolume, attrDirectory = 0x08, 0x10
	for ; len(entries) >= 32; entries = entries[32:] {
		if entries[0] == 0 {
			return place{}, true, errNotFound
		}
		attr := entries[11]
		if string(entries[:11]) == name && attr&attrVolume == 0 && (attr&attrDirectory != 0) == directory {
			high, low := binary.LittleEndian.Uint16(entries[20:]), binary.LittleEndian.Uint16(entries[26:])
			return place{cluster: uint32(high)<<16 | uint32(low)}, false, nil
		}
	}
	return place{}, false, errNotFound
}
