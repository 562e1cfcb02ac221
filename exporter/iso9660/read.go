package iso9660

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

// ErrFormat is the error for a file that is not an ISO 9660 file system, or is
// damaged.
var ErrFormat = errors.New("not an ISO 9660 file system")

// Limits for volumes from strangers.
const (
	maxDirectorySize = 32 << 20 // bytes
	maxContinuations = 64       // of the attributes of one file
	maxSections      = 100      // of one file, as in Linux
	maxLink          = 65535    // bytes
)

// Read reads the tree of a volume of size bytes. Names, owners, modes, devices,
// symbolic links and hard links are those of the Rock Ridge extension. On a
// volume without it, all files belong to root and can be read by everybody, and
// names are as ECMA-119 has them, without versions. Directories that Rock Ridge
// relocated are at their place.
//
// The error is ErrFormat for a file that is not a volume or is damaged, one of
// package tree for a tree that exceeds the limits of Linux or of a tree in
// memory, and the one of r if that fails.
func Read(r io.ReaderAt, size int64) ([]tree.Entry, error) {
	v := &reader{in: open(r, size), inodes: map[identity]uint64{}}
	b, err := v.in.Bytes(systemSectors*SectorSize, SectorSize)
	if err != nil {
		return nil, err
	}
	if string(b[:6]) != "\x01CD001" {
		return nil, invalidAt(systemSectors*SectorSize, "there is no primary volume descriptor")
	}
	if n := binary.LittleEndian.Uint16(b[128:]); n != SectorSize {
		return nil, invalidAt(systemSectors*SectorSize+128, "sectors have %d bytes", n)
	}
	root, err := v.record(b[156:190], systemSectors*SectorSize+156)
	if err != nil {
		return nil, err
	}
	if err := v.findRockRidge(root); err != nil {
		return nil, err
	}
	if err := v.directory(root, "."); err != nil {
		return nil, err
	}
	return v.tree.Entries(), nil
}

// reader reads one volume.
type reader struct {
	in        sparse.File
	rockRidge bool
	skip      int // bytes before the fields of each system use area
	inodes    map[identity]uint64
	tree      tree.Collector
}

// identity is the same for hard links.
type identity struct {
	serial, mode, uid, gid uint32
	extent                 uint32
	size                   int64
}

func open(r io.ReaderAt, size int64) sparse.File {
	return sparse.File{ReaderAt: r, Size: size, Format: "ISO 9660", Err: ErrFormat}
}

func invalidAt(at int64, format string, args ...any) error {
	return fmt.Errorf("%w: byte %d: %s", ErrFormat, at, fmt.Sprintf(format, args...))
}

// record is a directory record.
type record struct {
	at           int64 // offset in the file
	extent, size uint32
	flags        byte
	identifier   string
	system       []byte // system use area
}

// record parses the record at the start of b, which is at an offset.
func (v *reader) record(b []byte, at int64) (record, error) {
	length := int(b[0])
	if length < recordSize+1 || length > len(b) {
		return record{}, invalidAt(at, "a directory record has %d bytes", length)
	}
	b = b[:length]
	id := int(b[32])
	end := recordSize + id + (id+1)%2
	if id == 0 || end > length {
		return record{}, invalidAt(at, "an identifier has %d bytes", id)
	}
	le := binary.LittleEndian
	return record{
		at: at, extent: le.Uint32(b[2:]), size: le.Uint32(b[10:]), flags: b[25],
		identifier: string(b[recordSize : recordSize+id]), system: b[end:],
	}, nil
}

// findRockRidge finds out whether the root has the field that announces system
// use fields (SUSP 1.12, section 5.3), and its own attributes.
func (v *reader) findRockRidge(root record) error {
	records, err := v.records(root)
	if err != nil || len(records) == 0 {
		return err
	}
	if s := records[0].system; len(s) >= 7 && string(s[:2]) == "SP" && s[4] == 0xbe && s[5] == 0xef {
		v.rockRidge, v.skip = true, int(s[6])
	}
	return nil
}

// records returns the records of a directory.
func (v *reader) records(dir record) ([]record, error) {
	if dir.size > maxDirectorySize {
		return nil, invalidAt(dir.at, "a directory has %d bytes", dir.size)
	}
	start := int64(dir.extent) * SectorSize
	b, err := v.in.Bytes(start, int64(dir.size))
	if err != nil {
		return nil, err
	}
	var records []record
	for at := 0; at < len(b); {
		if b[at] == 0 {
			at = (at/SectorSize + 1) * SectorSize // records do not cross sectors
			continue
		}
		r, err := v.record(b[at:], start+int64(at))
		if err != nil {
			return nil, err
		}
		records = append(records, r)
		at += int(b[at])
	}
	return records, nil
}

// directory adds a directory and what is in it.
func (v *reader) directory(dir record, path string) error {
	records, err := v.records(dir)
	if err != nil {
		return err
	}
	if len(records) < 2 || records[0].identifier != selfIdentifier || records[1].identifier != upIdentifier {
		return invalidAt(int64(dir.extent)*SectorSize, "the directory %q has no records for itself and its parent", path)
	}
	self, err := v.attributes(records[0])
	if err != nil {
		return err
	}
	entry := tree.NewDir(path)
	if self.posix {
		entry.Mode, entry.UID, entry.GID = self.mode&tree.ModeMask, self.uid, self.gid
	}
	if err := v.tree.Add(entry); err != nil {
		return err
	}
	for records = records[2:]; len(records) > 0; {
		sections := 1
		for sections < len(records) && records[sections-1].flags&flagContinues != 0 {
			sections++
		}
		if err := v.entry(records[:sections], path); err != nil {
			return err
		}
		records = records[sections:]
	}
	return nil
}

// entry adds the file that consists of sections.
func (v *reader) entry(sections []record, dir string) error {
	first := sections[0]
	a, err := v.attributes(first)
	if err != nil {
		return err
	}
	if a.relocated {
		return nil // it is at its place too
	}
	path := a.name
	if path == "" {
		path, _, _ = strings.Cut(first.identifier, ";")
		path = strings.TrimSuffix(path, ".")
	}
	if strings.Contains(path, "/") {
		return invalidAt(first.at, "the name %q has a slash", path)
	}
	if dir != "." {
		path = dir + "/" + path
	}
	if a.child != 0 {
		return v.directory(record{at: first.at, extent: a.child, size: SectorSize}.whole(v), path)
	}
	if first.flags&flagDirectory != 0 {
		return v.directory(first, path)
	}
	e, err := v.file(sections, a, path)
	if err != nil {
		return err
	}
	return v.tree.Add(e)
}

// whole returns the record of a directory with the size that its record for
// itself has.
func (r record) whole(v *reader) record {
	if records, err := v.records(r); err == nil && len(records) > 0 && records[0].extent == r.extent {
		r.size = records[0].size
	}
	return r
}

// treeTypes are the types of files by the bits of their modes.
var treeTypes = func() map[uint32]tree.Type {
	types := map[uint32]tree.Type{}
	for t, bits := range posixType {
		types[bits] = t
	}
	return types
}()

// file returns the entry of a file that is not a directory.
func (v *reader) file(sections []record, a attributes, path string) (tree.Entry, error) {
	at := sections[0].at
	e := tree.Entry{Path: path, Type: tree.File, Mode: 0o444}
	if a.posix {
		e.Type, e.Mode, e.UID, e.GID = treeTypes[a.mode&0o170000], a.mode&tree.ModeMask, a.uid, a.gid
	}
	switch e.Type {
	case tree.Symlink:
		e.Link, e.Mode = a.link, 0o777
		return e, nil
	case tree.Char, tree.Block:
		e.Major, e.Minor = a.major, a.minor
	case tree.FIFO:
	case tree.File:
		content, err := v.content(sections)
		if err != nil {
			return e, err
		}
		if e.Size = content.Size; e.Size > 0 {
			e.Open = func() (tree.Content, error) { return tree.NewContent(content, content.Size), nil }
		}
	default:
		return e, invalidAt(at, "%q has the mode %#o", path, a.mode)
	}
	if a.links > 1 && a.serial != 0 {
		id := identity{a.serial, a.mode, a.uid, a.gid, sections[0].extent, e.Size}
		if v.inodes[id] == 0 {
			v.inodes[id] = uint64(len(v.inodes) + 1)
		}
		e.Inode = v.inodes[id]
	}
	return e, nil
}

// content returns the content of sections.
func (v *reader) content(sections []record) (sparse.Content, error) {
	if len(sections) > maxSections {
		return sparse.Content{}, invalidAt(sections[0].at, "a file has %d sections", len(sections))
	}
	var parts []sparse.Content
	for _, s := range sections {
		at, size := int64(s.extent)*SectorSize, int64(s.size)
		if size == 0 {
			continue
		}
		if at > v.in.Size-size {
			return sparse.Content{}, invalidAt(s.at, "%d bytes of a file are after the end of the volume", size)
		}
		parts = append(parts, sparse.Content{Size: size, Runs: []sparse.Run{{Size: size, Data: io.NewSectionReader(v.in.ReaderAt, at, size)}}})
	}
	return sparse.Concat(parts...), nil
}

// attributes are what system use fields say of a file.
type attributes struct {
	posix                         bool // there are the attributes of POSIX
	mode, links, uid, gid, serial uint32
	major, minor                  uint32
	name, link                    string
	child                         uint32 // sector of a relocated directory
	relocated                     bool
}

// attributes reads the system use fields of a record (SUSP 1.12 and RRIP 1.12).
func (v *reader) attributes(r record) (attributes, error) {
	var a attributes
	if !v.rockRidge || len(r.system) < v.skip {
		return a, nil
	}
	le := binary.LittleEndian
	var link linkReader
	area := r.system
	if r.identifier != selfIdentifier || len(area) < 2 || string(area[:2]) != "SP" {
		area = area[v.skip:]
	}
	for range maxContinuations {
		var next []byte
		for len(area) >= 4 {
			length := int(area[2])
			if length < 4 || length > len(area) {
				break // what follows the last field is not specified
			}
			f := area[:length]
			area = area[length:]
			switch signature := string(f[:2]); {
			case signature == "ST":
				area = nil
			case signature == "PX" && length >= 36:
				a.posix, a.mode, a.links, a.uid, a.gid = true, le.Uint32(f[4:]), le.Uint32(f[12:]), le.Uint32(f[20:]), le.Uint32(f[28:])
				if length >= 44 {
					a.serial = le.Uint32(f[36:])
				}
			case signature == "PN" && length >= 20:
				a.major, a.minor = le.Uint32(f[4:]), le.Uint32(f[12:])
				if a.major == 0 {
					a.major, a.minor = a.minor>>8, a.minor&0xff
				}
			case signature == "NM" && length >= 5:
				a.name += string(f[5:])
			case signature == "SL" && length >= 5:
				link.add(f[5:])
			case signature == "CL" && length >= 12:
				a.child = le.Uint32(f[4:])
			case signature == "RE":
				a.relocated = true
			case signature == "CE" && length >= 28:
				size := le.Uint32(f[20:])
				if size > SectorSize {
					return a, invalidAt(r.at, "a continuation area has %d bytes", size)
				}
				var err error
				if next, err = v.in.Bytes(int64(le.Uint32(f[4:]))*SectorSize+int64(le.Uint32(f[12:])), int64(size)); err != nil {
					return a, err
				}
			}
		}
		if next == nil {
			a.link = link.target.String()
			if len(a.name) > maxLink || len(a.link) > maxLink {
				return a, invalidAt(r.at, "a name has more than %d bytes", maxLink)
			}
			return a, nil
		}
		area = next
	}
	return a, invalidAt(r.at, "a file has more than %d continuation areas", maxContinuations)
}

// linkReader joins the components of the target of a symbolic link.
type linkReader struct {
	target bytes.Buffer
	joined bool // the next component needs no slash
	any    bool
}

// add adds the components of an SL field (RRIP 1.12, section 4.1.3).
func (l *linkReader) add(components []byte) {
	for len(components) >= 2 {
		flags, length := components[0], int(components[1])
		if 2+length > len(components) {
			return
		}
		text := components[2 : 2+length]
		components = components[2+length:]
		if l.any && !l.joined {
			l.target.WriteByte('/')
		}
		l.any, l.joined = true, flags&(continues|rootDir) != 0
		switch {
		case flags&rootDir != 0:
			l.target.WriteByte('/')
		case flags&parentDir != 0:
			l.target.WriteString("..")
		case flags&currentDir != 0:
			l.target.WriteByte('.')
		default:
			l.target.Write(text)
		}
	}
}
