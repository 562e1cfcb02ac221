package fat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path"
	"sort"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"
)

// Attributes of directory entries.
const (
	attrVolume    = 0x08
	attrDirectory = 0x10
	attrArchive   = 0x20
	attrLongName  = 0x0f
)

// A long name is stored in pieces of 13 UTF-16 units, one per directory entry.
const (
	longNamePiece = 13
	longNameMax   = 255
	longNameLast  = 0x40
)

type file struct {
	File
	chains []chain // of its parts
}

type directory struct {
	path     string
	parent   *directory // nil for the root
	chain    chain
	children []child
	label    bool // for the root: the volume has a label
}

// child is an entry of a directory: a file or a directory.
type child struct {
	name      string
	short     [11]byte // short name and extension, each padded with spaces
	file      *file    // nil for a directory
	directory *directory
}

// addFiles builds the directory tree of files.
func (v *Volume) addFiles(files []File) error {
	v.root = &directory{label: v.options.Label != ""}
	v.directories = []*directory{v.root}
	byPath := map[string]*directory{".": v.root}
	var mkdir func(name string) (*directory, error)
	mkdir = func(name string) (*directory, error) {
		if d, ok := byPath[name]; ok {
			return d, nil
		}
		parent, err := mkdir(path.Dir(name))
		if err != nil {
			return nil, err
		}
		d := &directory{path: name, parent: parent}
		if err := parent.add(child{name: path.Base(name), directory: d}); err != nil {
			return nil, err
		}
		byPath[name] = d
		v.directories = append(v.directories, d)
		return d, nil
	}
	for _, f := range files {
		if f.Path == "" || strings.HasPrefix(f.Path, "/") || path.Clean(f.Path) != f.Path || strings.HasPrefix(f.Path, "..") {
			return fmt.Errorf("%q is not a valid path on a FAT volume", f.Path)
		}
		if f.Size() > MaxFileSize {
			return fmt.Errorf("%s has %d bytes, but a file on FAT32 must be smaller than 4 GiB (%d bytes)", f.Path, f.Size(), int64(MaxFileSize)+1)
		}
		for i, p := range f.Parts {
			if i < len(f.Parts)-1 && p.Content.Size%PartAlignment != 0 {
				return fmt.Errorf("part %d of %s has %d bytes, which is not a multiple of %d", i, f.Path, p.Content.Size, PartAlignment)
			}
		}
		d, err := mkdir(path.Dir(f.Path))
		if err != nil {
			return err
		}
		stored := &file{File: f}
		if err := d.add(child{name: path.Base(f.Path), file: stored}); err != nil {
			return err
		}
		v.files = append(v.files, stored)
	}
	for _, d := range v.directories {
		if err := d.finish(); err != nil {
			return err
		}
	}
	return nil
}

func (d *directory) add(c child) error {
	if err := checkName(c.name); err != nil {
		return err
	}
	for _, other := range d.children {
		if strings.EqualFold(other.name, c.name) {
			return fmt.Errorf("%s and %s are the same name on FAT", path.Join(d.path, other.name), path.Join(d.path, c.name))
		}
	}
	d.children = append(d.children, c)
	return nil
}

func checkName(name string) error {
	if !utf8.ValidString(name) || len(utf16.Encode([]rune(name))) > longNameMax {
		return fmt.Errorf("name %q: FAT supports valid UTF-8 of up to %d UTF-16 units", name, longNameMax)
	}
	for _, r := range name {
		if r < ' ' || strings.ContainsRune(`"*/:<>?\|`, r) {
			return fmt.Errorf("name %q: FAT does not allow %q in names", name, r)
		}
	}
	if strings.HasSuffix(name, ".") || strings.HasSuffix(name, " ") {
		return fmt.Errorf("name %q: a name on FAT cannot end with a dot or a space", name)
	}
	return nil
}

func checkLabel(label string) error {
	if len(label) > 11 {
		return fmt.Errorf("label %q is longer than 11 characters", label)
	}
	for _, r := range label {
		if r >= 0x80 || r != ' ' && !isShortRune(r) {
			return fmt.Errorf("label %q: FAT does not allow %q in labels", label, r)
		}
	}
	return nil
}

func (o Options) labelOrNone() string {
	if o.Label == "" {
		return "NO NAME"
	}
	return o.Label
}

// label returns the label for the entry in the root, "" for other directories.
func (v *Volume) label(d *directory) string {
	if !d.label {
		return ""
	}
	return v.options.Label
}

// finish sorts the children and assigns short names.
func (d *directory) finish() error {
	sort.Slice(d.children, func(i, j int) bool { return d.children[i].name < d.children[j].name })
	taken := map[[11]byte]bool{}
	// Names that are valid short names come first, so that no alias takes them.
	for i := range d.children {
		if short, ok := exactShortName(d.children[i].name); ok {
			d.children[i].short = short
			taken[short] = true
		}
	}
	for i := range d.children {
		c := &d.children[i]
		if taken[c.short] {
			continue
		}
		short, err := alias(c.name, taken)
		if err != nil {
			return fmt.Errorf("%s: %w", d.path, err)
		}
		c.short = short
		taken[short] = true
	}
	return nil
}

// exactShortName returns the short name, and reports whether the name needs no long
// one: it has up to eight characters and up to three of extension, all in upper
// case.
func exactShortName(name string) ([11]byte, bool) {
	base, ext, dotted := strings.Cut(name, ".")
	if base == "" || len(base) > 8 || len(ext) > 3 || dotted && ext == "" {
		return [11]byte{}, false
	}
	for _, r := range base + ext {
		if !isShortRune(r) {
			return [11]byte{}, false
		}
	}
	return shortName(base, ext), true
}

func shortName(base, ext string) [11]byte {
	return [11]byte(append(padded(base, 8), padded(ext, 3)...))
}

func isShortRune(r rune) bool {
	return r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("$%'-_@~`!(){}^#&", r)
}

// alias returns a short name for a long one: the characters that are allowed, in
// upper case, and a number if that changes the name or the short name is taken.
func alias(name string, taken map[[11]byte]bool) ([11]byte, error) {
	stem, ext := name, ""
	if dot := strings.LastIndexByte(name, '.'); dot > 0 {
		stem, ext = name[:dot], name[dot+1:]
	}
	base, exact := shortRunes(stem, 8)
	ext, exactExt := shortRunes(ext, 3)
	if short := shortName(base, ext); exact && exactExt && base != "" && !taken[short] {
		return short, nil
	}
	for n := 1; n < 1e6; n++ {
		tail := fmt.Sprintf("~%d", n)
		short := shortName(base[:min(len(base), 8-len(tail))]+tail, ext)
		if !taken[short] {
			return short, nil
		}
	}
	return [11]byte{}, errors.New("too many files with similar names")
}

// shortRunes returns up to limit characters of s that a short name can have, and
// reports whether only their case changed.
func shortRunes(s string, limit int) (string, bool) {
	exact := true
	var kept strings.Builder
	for _, r := range strings.ToUpper(s) {
		switch {
		case kept.Len() == limit:
			exact = false
		case isShortRune(r):
			kept.WriteRune(r)
		case r == ' ' || r == '.':
			exact = false
		default:
			exact = false
			kept.WriteByte('_')
		}
	}
	return kept.String(), exact
}

// size returns the size of the directory in bytes.
func (d *directory) size() int64 {
	entries := 0
	if d.parent != nil {
		entries += 2 // . and ..
	}
	if d.label {
		entries++
	}
	for _, c := range d.children {
		entries += 1 + c.longEntries()
	}
	return int64(max(entries, 1)) * entrySize
}

// longEntries returns the number of entries for the long name.
func (c child) longEntries() int {
	if _, ok := exactShortName(c.name); ok {
		return 0
	}
	return (len(utf16.Encode([]rune(c.name))) + longNamePiece - 1) / longNamePiece
}

func (d *directory) encode(t time.Time, label string) []byte {
	var out []byte
	if label != "" {
		out = append(out, entry([11]byte(padded(label, 11)), attrVolume, 0, 0, t)...)
	}
	if d.parent != nil {
		parent := d.parent.chain.start()
		if d.parent.parent == nil {
			parent = 0 // stands for the root, whatever its cluster
		}
		out = append(out, entry(shortName(".", ""), attrDirectory, d.chain.start(), 0, t)...)
		out = append(out, entry(shortName("..", ""), attrDirectory, parent, 0, t)...)
	}
	for _, c := range d.children {
		out = append(out, c.longName()...)
		if c.directory != nil {
			out = append(out, entry(c.short, attrDirectory, c.directory.chain.start(), 0, t)...)
		} else {
			out = append(out, entry(c.short, attrArchive, c.file.start(), uint32(c.file.Size()), t)...)
		}
	}
	return out
}

// entry returns a directory entry with a short name.
func entry(name [11]byte, attr byte, cluster, size uint32, t time.Time) []byte {
	date, clock := timestamp(t)
	e := make([]byte, entrySize)
	copy(e, name[:])
	e[11] = attr
	binary.LittleEndian.PutUint16(e[14:], clock) // created
	binary.LittleEndian.PutUint16(e[16:], date)
	binary.LittleEndian.PutUint16(e[18:], date) // accessed
	binary.LittleEndian.PutUint16(e[20:], uint16(cluster>>16))
	binary.LittleEndian.PutUint16(e[22:], clock) // written
	binary.LittleEndian.PutUint16(e[24:], date)
	binary.LittleEndian.PutUint16(e[26:], uint16(cluster))
	binary.LittleEndian.PutUint32(e[28:], size)
	return e
}

// timestamp returns date and time as FAT stores them, within its years.
func timestamp(t time.Time) (date, clock uint16) {
	t = t.UTC()
	if first := time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC); t.Before(first) {
		t = first
	}
	if last := time.Date(2107, 12, 31, 23, 59, 58, 0, time.UTC); t.After(last) {
		t = last
	}
	return uint16((t.Year()-1980)<<9 | int(t.Month())<<5 | t.Day()),
		uint16(t.Hour()<<11 | t.Minute()<<5 | t.Second()/2)
}

// longName returns the entries of the long name, the last piece first, and nothing
// if the short name is exact.
func (c child) longName() []byte {
	pieces := c.longEntries()
	if pieces == 0 {
		return nil
	}
	units := utf16.Encode([]rune(c.name))
	if len(units)%longNamePiece != 0 {
		units = append(units, 0)
	}
	for len(units)%longNamePiece != 0 {
		units = append(units, 0xffff)
	}
	sum := shortNameSum(c.short)
	var out []byte
	for i := pieces; i >= 1; i-- {
		piece := units[(i-1)*longNamePiece : i*longNamePiece]
		e := make([]byte, entrySize)
		e[0] = byte(i)
		if i == pieces {
			e[0] |= longNameLast
		}
		e[11] = attrLongName
		e[13] = sum
		for j, unit := range piece {
			binary.LittleEndian.PutUint16(e[longNameOffset(j):], unit)
		}
		out = append(out, e...)
	}
	return out
}

// shortNameSum returns the checksum that ties the entries of a long name to the
// entry with the short one.
func shortNameSum(short [11]byte) byte {
	var sum byte
	for _, b := range short {
		sum = sum>>1 | sum<<7
		sum += b
	}
	return sum
}

// longNameOffset returns the offset of unit j of a piece in its entry in bytes.
func longNameOffset(j int) int {
	switch {
	case j < 5:
		return 1 + 2*j
	case j < 11:
		return 14 + 2*(j-5)
	}
	return 28 + 2*(j-11)
}
