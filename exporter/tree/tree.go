// Package tree reads and merges file trees.
//
// A tree is a list of entries. ReadDir reads it from a directory, ReadLayers from
// the layers of an image and ReadTar from a tar archive; Merge merges several.
// Writers open the contents one by one, so the memory that a tree needs does not
// depend on the sizes of its files.
package tree

import (
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
)

// Type is the type of a file.
type Type uint8

// The types of files in a root filesystem. There is none for sockets, because no
// archive format can store them.
const (
	File Type = iota + 1
	Dir
	Symlink
	Char
	Block
	FIFO
)

var typeNames = map[Type]string{File: "file", Dir: "dir", Symlink: "symlink", Char: "char", Block: "block", FIFO: "fifo"}

// String returns the name that spec files and error messages use.
func (t Type) String() string {
	if s, ok := typeNames[t]; ok {
		return s
	}
	return fmt.Sprintf("type(%d)", uint8(t))
}

// Mode bits besides the permissions, as in chmod(2).
const (
	SetUID uint32 = 0o4000
	SetGID uint32 = 0o2000
	Sticky uint32 = 0o1000

	// ModeMask has all bits that Entry.Mode can have.
	ModeMask uint32 = 0o7777
)

// Entry is one file of a tree.
type Entry struct {
	// Path is relative to the root of the tree, clean, and has no leading slash.
	// The root is ".".
	Path string
	Type Type
	// Mode has the permissions, SetUID, SetGID and Sticky.
	Mode     uint32
	UID, GID uint32
	// Major and Minor are the device number of Char and Block.
	Major, Minor uint32
	// Link is the target of a Symlink, unchanged.
	Link string
	// Size is the length of a File's content in bytes.
	Size int64
	// Inode is the same, and not 0, for hard links to one file. They have the
	// same attributes and content.
	Inode uint64
	// Xattrs are the extended attributes by full name.
	Xattrs map[string]string
	// Open opens the content of a File, which has Size bytes. It is nil if Size
	// is 0.
	Open func() (Content, error)
}

// Content is the open content of a file.
type Content interface {
	io.Reader
	io.ReaderAt
	io.Closer
}

// ReaderAt returns a reader of the content of a File. It opens the content for each
// read, so the number of readers is not limited by open files.
func (e Entry) ReaderAt() io.ReaderAt { return opener{e} }

type opener struct{ Entry }

func (o opener) ReadAt(p []byte, off int64) (int, error) {
	content, err := o.Open()
	if err != nil {
		return 0, fmt.Errorf("%s: %w", o.Path, err)
	}
	defer content.Close()
	n, err := content.ReadAt(p, off)
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("%s: %w", o.Path, err)
	}
	return n, err
}

// NewDir returns a directory with mode 0755 and owner root.
func NewDir(path string) Entry {
	return Entry{Path: path, Type: Dir, Mode: 0o755}
}

// NewFile returns a file with the given content and owner root.
func NewFile(path string, mode uint32, content string) Entry {
	return Entry{Path: path, Type: File, Mode: mode, Size: int64(len(content)), Open: func() (Content, error) {
		return sectionContent{io.NewSectionReader(strings.NewReader(content), 0, int64(len(content)))}, nil
	}}
}

// NewSymlink returns a symbolic link with owner root.
func NewSymlink(path, target string) Entry {
	return Entry{Path: path, Type: Symlink, Mode: 0o777, Link: target}
}

// Sort sorts entries by the bytes of their paths, with the root first. Directories
// come before their children, because their paths are prefixes.
func Sort(entries []Entry) {
	slices.SortFunc(entries, func(a, b Entry) int {
		return strings.Compare(sortKey(a.Path), sortKey(b.Path))
	})
}

func sortKey(path string) string {
	if path == "." {
		return ""
	}
	return path
}

// AddParents adds the missing directories of entries, except for the root, with
// mode 0755 and owner root. It sorts the result.
func AddParents(entries []Entry) []Entry {
	exists := map[string]bool{".": true}
	for _, e := range entries {
		exists[e.Path] = true
	}
	for _, e := range entries {
		for dir := path.Dir(e.Path); !exists[dir]; dir = path.Dir(dir) {
			exists[dir] = true
			entries = append(entries, NewDir(dir))
		}
	}
	Sort(entries)
	return entries
}
