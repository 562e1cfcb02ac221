package disk

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

var errNotFound = errors.New("not found")

// fatReader is a FAT12, FAT16 or FAT32 file system, as far as finding files by
// their short names needs it. Format: Microsoft FAT32 File System Specification
// 1.03, section "Boot Sector and BPB" and following.
type fatReader struct {
	r        io.ReaderAt
	table    int64 // bytes to the file allocation table
	data     int64 // bytes to cluster 2
	cluster  int64 // bytes
	clusters uint32
	bits     int // of an entry of the table
	root     place

	page   []byte // a piece of the table, and where in the table it is
	pageAt int64
}

// place is where a directory or a file starts: a cluster, or the fixed root
// directory of FAT12 and FAT16.
type place struct {
	cluster     uint32
	fixed, size int64 // of a fixed directory
	length      int64 // of a file
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
	const page = 64 << 10
	bit := int64(cluster) * int64(fs.bits)
	at := bit / 8
	if fs.page == nil || at < fs.pageAt || at+4 > fs.pageAt+int64(len(fs.page)) {
		fs.page, fs.pageAt = make([]byte, page), at
		n, err := fs.r.ReadAt(fs.page, fs.table+at)
		if n < 4 {
			return 0, err
		}
		fs.page = fs.page[:n]
	}
	entry := binary.LittleEndian.Uint32(fs.page[at-fs.pageAt:]) >> (bit % 8)
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
func (fs *fatReader) lookup(dir place, name string, directory bool) (found place, err error) {
	err = errNotFound
	walked := fs.walk(dir, func(entry fatEntry) bool {
		if entry.name == name && entry.directory == directory {
			found, err = entry.place, nil
		}
		return err != nil
	})
	return found, errors.Join(walked, err)
}

// file finds a file by its path. Only names that fit into 8.3 are found.
func (fs *fatReader) file(path string) (place, error) {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	at := fs.root
	for i, part := range parts {
		base, extension, _ := strings.Cut(strings.ToUpper(part), ".")
		if len(base) > 8 || len(extension) > 3 {
			return place{}, errNotFound
		}
		var err error
		if at, err = fs.lookup(at, fmt.Sprintf("%-8s%-3s", base, extension), i < len(parts)-1); err != nil {
			return place{}, err
		}
	}
	return at, nil
}

// fatEntry is an entry of a directory.
type fatEntry struct {
	name      string // 8.3, padded with spaces
	directory bool
	place
}

// walk shows the entries of a directory, except volume labels and long names,
// until visit returns false.
func (fs *fatReader) walk(dir place, visit func(fatEntry) bool) error {
	if dir.size > 0 {
		entries := make([]byte, dir.size)
		if _, err := fs.r.ReadAt(entries, dir.fixed); err != nil {
			return err
		}
		walkPiece(entries, visit)
		return nil
	}
	entries := make([]byte, fs.cluster)
	const most = 2 << 20 // bytes of a directory; more is a loop
	for size := int64(0); dir.cluster >= 2 && size < most; size += fs.cluster {
		if _, err := fs.r.ReadAt(entries, fs.offset(dir)); err != nil {
			return err
		}
		if !walkPiece(entries, visit) {
			return nil
		}
		var err error
		if dir.cluster, err = fs.next(dir.cluster); err != nil {
			return err
		}
	}
	return nil
}

// walkPiece tells whether the directory may go on behind this piece.
func walkPiece(entries []byte, visit func(fatEntry) bool) bool {
	const deleted, attrVolume, attrDirectory = 0xe5, 0x08, 0x10
	for ; len(entries) >= 32; entries = entries[32:] {
		if entries[0] == 0 {
			return false
		}
		attr := entries[11]
		if entries[0] == deleted || attr&attrVolume != 0 {
			continue
		}
		high, low := binary.LittleEndian.Uint16(entries[20:]), binary.LittleEndian.Uint16(entries[26:])
		entry := fatEntry{string(entries[:11]), attr&attrDirectory != 0, place{
			cluster: uint32(high)<<16 | uint32(low), length: int64(binary.LittleEndian.Uint32(entries[28:])),
		}}
		if !visit(entry) {
			return false
		}
	}
	return true
}

// open returns the content of a file.
func (fs *fatReader) open(file place) (*io.SectionReader, error) {
	content := fatFile{r: fs.r}
	at := int64(0)
	for cluster := file.cluster; at < file.length; at += fs.cluster {
		if cluster < 2 || len(content.runs) > 1<<16 {
			return nil, errors.New("a file is shorter than its directory says, or in too many pieces")
		}
		offset := fs.offset(place{cluster: cluster})
		if last := len(content.runs) - 1; last < 0 || content.runs[last].offset+at-content.runs[last].at != offset {
			content.runs = append(content.runs, fatRun{at, offset})
		}
		var err error
		if cluster, err = fs.next(cluster); err != nil {
			return nil, err
		}
	}
	content.end = at
	return io.NewSectionReader(content, 0, file.length), nil
}

// fatFile is a file in the runs of clusters that it is made of.
type fatFile struct {
	r    io.ReaderAt
	runs []fatRun
	end  int64
}

// fatRun is where in the file, and where on the volume, a run starts.
type fatRun struct{ at, offset int64 }

func (f fatFile) ReadAt(p []byte, at int64) (n int, err error) {
	for n < len(p) && at < f.end {
		i, found := slices.BinarySearchFunc(f.runs, at, func(r fatRun, at int64) int { return cmp.Compare(r.at, at) })
		if !found {
			i--
		}
		end := f.end
		if i+1 < len(f.runs) {
			end = f.runs[i+1].at
		}
		got, err := f.r.ReadAt(p[n:n+int(min(int64(len(p)-n), end-at))], f.runs[i].offset+at-f.runs[i].at)
		n, at = n+got, at+int64(got)
		if err != nil {
			return n, err
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}
