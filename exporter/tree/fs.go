package tree

import (
	"errors"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"
)

// An FS is a tree as an fs.FS. Symbolic links are followed within the tree, as
// for a process whose root is the root of the tree. Directories may have no entry
// in the tree.
type FS struct {
	entries  map[string]Entry
	children map[string][]string // names by directory, sorted
}

// NewFS returns the file system of a tree.
func NewFS(entries []Entry) *FS {
	f := &FS{entries: map[string]Entry{".": NewDir(".")}, children: map[string][]string{}}
	for _, e := range AddParents(slices.Clone(entries)) {
		f.entries[e.Path] = e
		if e.Path != "." {
			dir := path.Dir(e.Path)
			f.children[dir] = append(f.children[dir], path.Base(e.Path))
		}
	}
	for _, names := range f.children {
		slices.Sort(names)
	}
	return f
}

// Lookup returns the entry that a name resolves to. The error is an
// *fs.PathError.
func (f *FS) Lookup(name string) (Entry, error) {
	fail := func(err error) (Entry, error) {
		return Entry{}, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	if !fs.ValidPath(name) {
		return fail(fs.ErrInvalid)
	}
	at, rest, links := ".", strings.Split(name, "/"), 0
	for len(rest) > 0 {
		element := rest[0]
		rest = rest[1:]
		switch element {
		case "", ".":
			continue
		case "..":
			at = path.Dir(at)
			continue
		}
		if f.entries[at].Type != Dir {
			return fail(fs.ErrNotExist)
		}
		e, ok := f.entries[path.Join(at, element)]
		if !ok {
			return fail(fs.ErrNotExist)
		}
		if e.Type != Symlink {
			at = e.Path
			continue
		}
		if links++; links > maxLinks {
			return fail(errors.New("too many symbolic links"))
		}
		if strings.HasPrefix(e.Link, "/") {
			at = "."
		}
		rest = append(strings.Split(e.Link, "/"), rest...)
	}
	return f.entries[at], nil
}

// Open implements fs.FS. Files implement io.ReaderAt.
func (f *FS) Open(name string) (fs.File, error) {
	e, err := f.Lookup(name)
	if err != nil {
		return nil, err
	}
	info := fileInfo{e, path.Base(name)}
	if e.Type == Dir {
		entries, err := f.ReadDir(name)
		return &openDir{openInfo{info}, entries}, err
	}
	if e.Size == 0 || e.Open == nil {
		return openFile{openInfo{info}, NewContent(strings.NewReader(""), 0)}, nil
	}
	content, err := e.Open()
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return openFile{openInfo{info}, content}, nil
}

// Stat implements fs.StatFS.
func (f *FS) Stat(name string) (fs.FileInfo, error) {
	e, err := f.Lookup(name)
	return fileInfo{e, path.Base(name)}, err
}

// ReadDir implements fs.ReadDirFS.
func (f *FS) ReadDir(name string) ([]fs.DirEntry, error) {
	dir, err := f.Lookup(name)
	if err != nil {
		return nil, err
	}
	if dir.Type != Dir {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: errors.New("not a directory")}
	}
	var entries []fs.DirEntry
	for _, child := range f.children[dir.Path] {
		entries = append(entries, fs.FileInfoToDirEntry(fileInfo{f.entries[path.Join(dir.Path, child)], child}))
	}
	return entries, nil
}

// fileInfo describes an entry.
type fileInfo struct {
	Entry
	name string
}

var fileModes = map[Type]fs.FileMode{
	Dir: fs.ModeDir, Symlink: fs.ModeSymlink, Char: fs.ModeDevice | fs.ModeCharDevice, Block: fs.ModeDevice, FIFO: fs.ModeNamedPipe,
}

func (i fileInfo) Name() string       { return i.name }
func (i fileInfo) Size() int64        { return i.Entry.Size }
func (i fileInfo) ModTime() time.Time { return time.Time{} }
func (i fileInfo) IsDir() bool        { return i.Type == Dir }
func (i fileInfo) Sys() any           { return i.Entry }
func (i fileInfo) Mode() fs.FileMode  { return Mode(i.Entry) }

// Mode returns the type and mode of an entry as an fs.FileMode.
func Mode(e Entry) fs.FileMode {
	mode := fileModes[e.Type] | fs.FileMode(e.Mode&0o777)
	for bit, m := range map[uint32]fs.FileMode{SetUID: fs.ModeSetuid, SetGID: fs.ModeSetgid, Sticky: fs.ModeSticky} {
		if e.Mode&bit != 0 {
			mode |= m
		}
	}
	return mode
}

type openInfo struct{ info fileInfo }

func (o openInfo) Stat() (fs.FileInfo, error) { return o.info, nil }

type openFile struct {
	openInfo
	Content
}

type openDir struct {
	openInfo
	left []fs.DirEntry
}

func (d *openDir) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.info.Path, Err: errors.New("is a directory")}
}
func (d *openDir) Close() error { return nil }

func (d *openDir) ReadDir(n int) ([]fs.DirEntry, error) {
	if n <= 0 {
		n = len(d.left)
	} else if len(d.left) == 0 {
		return nil, io.EOF
	}
	n = min(n, len(d.left))
	entries := d.left[:n]
	d.left = d.left[n:]
	return entries, nil
}
