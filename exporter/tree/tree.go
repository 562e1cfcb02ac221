// Package tree models a file tree that is about to be written in some format.
//
// A tree is a list of entries. It can be read from a directory (ReadDir), from
// the layers of an image (ReadLayers) or from a tar archive (ReadTar), and
// trees can be merged (Merge); the writers of formats see no difference.
// Contents are opened one by one when a writer reaches them, so a tree of any
// size costs memory for its names only.
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

// The types of files that a root filesystem can hold. Sockets are missing on
// purpose: no archive format can carry them.
const (
	File Type = iota + 1
	Dir
	Symlink
	Char
	Block
	FIFO
)

var typeNames = map[Type]string{File: "file", Dir: "dir", Symlink: "symlink", Char: "char", Block: "block", FIFO: "fifo"}

// String returns the word that spec files and error messages use.
func (t Type) String() string {
	if s, ok := typeNames[t]; ok {
		return s
	}
	return fmt.Sprintf("type(%d)", uint8(t))
}

// Permission bits beyond the nine of rwx, as chmod(2) numbers them.
const (
	SetUID uint32 = 0o4000
	SetGID uint32 = 0o2000
	Sticky uint32 = 0o1000

	// ModeMask covers all bits that Entry.Mode can have.
	ModeMask uint32 = 0o7777
)

// Entry is one file of a tree.
type Entry struct {
	// Path is relative to the root of the tree: clean, with slashes, without
	// leading slash. The root itself is ".".
	Path string
	Type Type
	// Mode holds the permission bits with SetUID, SetGID and Sticky.
	Mode     uint32
	UID, GID uint32
	// Major and Minor are the device number of Char and Block.
	Major, Minor uint32
	// Link is the target of a Symlink, as it is.
	Link string
	// Size is the length of a File's content in bytes.
	Size int64
	// Inode is the same, and not 0, for entries that are hard links of one
	// file. All of them then have the same attributes and content.
	Inode uint64
	// Xattrs are extended attributes by their full name.
	Xattrs map[string]string
	// Open opens the content of a File: Size bytes. Nil if Size is 0.
	Open func() (Content, error)
}

// Content is the content of a file, opened.
type Content interface {
	io.Reader
	io.ReaderAt
	io.Closer
}

// ReaderAt reads the content of a File, which is opened for each read, so that any
// number of files can be waiting to be written.
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

// NewDir returns a directory with mode 0755 that belongs to root.
func NewDir(path string) Entry {
	return Entry{Path: path, Type: Dir, Mode: 0o755}
}

// NewFile returns a file of root with the given content.
func NewFile(path string, mode uint32, content string) Entry {
	return Entry{Path: path, Type: File, Mode: mode, Size: int64(len(content)), Open: func() (Content, error) {
		return sectionContent{io.NewSectionReader(strings.NewReader(content), 0, int64(len(content)))}, nil
	}}
}

// NewSymlink returns a symbolic link of root.
func NewSymlink(path, target string) Entry {
	return Entry{Path: path, Type: Symlink, Mode: 0o777, Link: target}
}

// Sort orders entries by the bytes of their paths, the root first. A directory
// then comes before everything in it, because its path is a prefix of theirs.
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

// AddParents adds the directories that entries are in and that are missing,
// 0755 root, and sorts the result. The root is not added.
func AddParents(entries []Entry) []Entry {
	there := map[string]bool{".": true}
	for _, e := range entries {
		there[e.Path] = true
	}
	for _, e := range entries {
		for dir := path.Dir(e.Path); !there[dir]; dir = path.Dir(dir) {
			there[dir] = true
			entries = append(entries, NewDir(dir))
		}
	}
	Sort(entries)
	return entries
}

// pathMax is Linux's PATH_MAX: the longest path in bytes, with the final NUL.
const pathMax = 4096

// CheckPath returns an error unless p is the path of a file below the root, as
// Entry.Path wants it.
func CheckPath(p string) error {
	switch {
	case p == "" || p == ".":
		return fmt.Errorf("path %q names the root, not a file in it", p)
	case strings.HasPrefix(p, "/"):
		return fmt.Errorf("path %q must be relative to the root: remove the leading slash", p)
	case len(p) >= pathMax:
		return fmt.Errorf("path %q… has %d bytes; Linux takes %d", p[:64], len(p), pathMax-1)
	case strings.ContainsRune(p, 0):
		return fmt.Errorf("path %q contains a NUL byte", p)
	case p == ".." || strings.HasPrefix(p, "../"):
		return fmt.Errorf("path %q leads out of the root", p)
	case path.Clean(p) != p:
		return fmt.Errorf("path %q is not clean: write %q", p, path.Clean(p))
	}
	return nil
}
