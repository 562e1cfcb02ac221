package tree

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
)

// unpacker holds the tree that archives give when they are unpacked one after
// the other.
type unpacker struct {
	root  *node
	layer int // number of the archive
}

// node is a name in the tree.
type node struct {
	file     *Entry           // shared by the names of one file; its Path is not set. Nil for a directory that no archive describes
	layer    int              // which archive made the name, or described it last
	children map[string]*node // of a directory, else nil
}

func newUnpacker() *unpacker {
	return &unpacker{root: &node{children: map[string]*node{}}}
}

// Names with a meaning in layers (OCI image specification, Image Layer
// Filesystem Changeset, Whiteouts).
const (
	whiteoutPrefix = ".wh."
	whiteoutOpaque = ".wh..wh..opq"
	// aufsPrefix starts the names of the bookkeeping of AUFS, which old
	// images contain.
	aufsPrefix = ".wh..wh."
)

// unpack adds an archive to the tree. With whiteouts, it is a layer.
func (u *unpacker) unpack(section *io.SectionReader, whiteouts bool) error {
	u.layer++
	archive := tar.NewReader(section)
	for {
		hdr, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("not an uncompressed tar archive, or damaged: %w", err)
		}
		if hdr.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		name, err := cleanTarName(hdr.Name)
		if err != nil {
			return err
		}
		switch base := path.Base(name); {
		case whiteouts && strings.HasPrefix(base, whiteoutPrefix):
			err = u.whiteout(path.Dir(name), base)
		case whiteouts && strings.HasPrefix(name, aufsPrefix):
		case whiteouts && strings.Contains("/"+name, "/"+whiteoutPrefix):
			err = errors.New("it lies below a whiteout")
		default:
			err = u.add(name, hdr, section)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
}

// add adds the entry of an archive that section has been read to.
func (u *unpacker) add(name string, hdr *tar.Header, section *io.SectionReader) error {
	file, err := tarEntry(hdr)
	if err != nil {
		return err
	}
	if file == nil {
		return u.link(name, hdr.Linkname)
	}
	if file.Size > 0 {
		// tar.Reader reads whole blocks only, so after a header the
		// section stands at the first byte of the content.
		offset, err := section.Seek(0, io.SeekCurrent)
		if err != nil {
			return err
		}
		size := file.Size
		file.Open = func() (Content, error) {
			return sectionContent{io.NewSectionReader(section, offset, size)}, nil
		}
	}
	return u.put(name, file)
}

// put gives a name to a file. What had the name before loses it, together with
// everything below it, except that a directory only gets new attributes from
// another one.
func (u *unpacker) put(name string, file *Entry) error {
	if name == "." {
		if file.Type != Dir {
			return fmt.Errorf("the root cannot be a %s", file.Type)
		}
		u.root.file = file
		return nil
	}
	dir, err := u.directory(path.Dir(name), true)
	if err != nil {
		return err
	}
	if old := dir.children[path.Base(name)]; old != nil && old.children != nil && file.Type == Dir {
		old.file, old.layer = file, u.layer
		return nil
	}
	n := &node{file: file, layer: u.layer}
	if file.Type == Dir {
		n.children = map[string]*node{}
	}
	dir.children[path.Base(name)] = n
	return nil
}

// link gives another name to the file that target names at this moment. The
// attributes in the header of a hard link do not count.
func (u *unpacker) link(name, target string) error {
	clean, err := cleanTarName(target)
	if err != nil {
		return fmt.Errorf("target of hard link: %w", err)
	}
	dir, err := u.directory(path.Dir(clean), false)
	if err != nil {
		return fmt.Errorf("target of hard link: %w", err)
	}
	old := dir.children[path.Base(clean)]
	switch {
	case clean == name:
		return nil
	case clean == "." || old != nil && old.children != nil:
		return fmt.Errorf("it is a hard link to %s, which is a directory", target)
	case old == nil:
		return fmt.Errorf("it is a hard link to %s, which does not come before it", target)
	}
	return u.put(name, old.file)
}

// whiteout hides what lower layers put into dir: everything, or one name.
func (u *unpacker) whiteout(dir, base string) error {
	name := strings.TrimPrefix(base, whiteoutPrefix)
	if base != whiteoutOpaque && (name == "" || name == "." || name == "..") {
		return errors.New("a whiteout must name a file")
	}
	parent, err := u.directory(dir, false)
	if err != nil {
		return nil // where nothing is, nothing is to be hidden
	}
	if base == whiteoutOpaque {
		for name, child := range parent.children {
			if !child.hide(u.layer) {
				delete(parent.children, name)
			}
		}
		return nil
	}
	if child := parent.children[name]; child != nil && !child.hide(u.layer) {
		delete(parent.children, name)
	}
	return nil
}

// hide removes what lower layers put into n and tells whether something of the
// present layer is left of it.
func (n *node) hide(layer int) bool {
	for name, child := range n.children {
		if !child.hide(layer) {
			delete(n.children, name)
		}
	}
	if n.layer == layer {
		return true
	}
	if len(n.children) == 0 {
		return false
	}
	// A directory that the layer only used.
	n.file, n.layer = nil, layer
	return true
}

// maxLinks is how many symbolic links Linux follows in one path (path_resolution(7)).
const maxLinks = 40

// directory finds the directory that name leads to. With create, it makes what
// is missing.
func (u *unpacker) directory(name string, create bool) (*node, error) {
	n, at, err := u.resolve(name, create)
	if err == nil && n.children == nil {
		err = errBelow(at, n)
	}
	return n, err
}

func errBelow(at string, n *node) error {
	return fmt.Errorf("it lies below %s, which is a %s", at, n.file.Type)
}

// resolve finds what name leads to, and its path, for a process whose root is
// the root of the tree: symbolic links are followed, but never out of it. With
// create, it makes the directories that are missing.
func (u *unpacker) resolve(name string, create bool) (n *node, at string, err error) {
	way := []*node{u.root}
	var names []string
	rest := strings.Split(name, "/")
	for links := 0; len(rest) > 0; {
		part := rest[0]
		rest = rest[1:]
		if part == "" || part == "." {
			continue
		}
		dir := way[len(way)-1]
		if dir.children == nil {
			return nil, "", errBelow(path.Join(names...), dir)
		}
		if part == ".." {
			if len(names) > 0 {
				way, names = way[:len(way)-1], names[:len(names)-1]
			}
			continue
		}
		child := dir.children[part]
		if child == nil {
			if !create {
				return nil, "", fmt.Errorf("%s: %w", path.Join(append(names, part)...), fs.ErrNotExist)
			}
			child = &node{layer: u.layer, children: map[string]*node{}}
			dir.children[part] = child
		}
		if child.children != nil || child.file.Type != Symlink {
			way, names = append(way, child), append(names, part)
			continue
		}
		if links++; links > maxLinks {
			return nil, "", fmt.Errorf("%s: too many symbolic links", name)
		}
		if strings.HasPrefix(child.file.Link, "/") {
			way, names = way[:1], names[:0]
		}
		rest = append(strings.Split(child.file.Link, "/"), rest...)
	}
	return way[len(way)-1], path.Join(names...), nil
}

// Find returns the file that name leads to in a tree, as a process would find
// it whose root the tree is: through symbolic links. The error is
// fs.ErrNotExist if there is none.
func Find(entries []Entry, name string) (Entry, error) {
	u := newUnpacker()
	for i := range entries {
		if err := u.put(entries[i].Path, &entries[i]); err != nil {
			return Entry{}, err
		}
	}
	n, at, err := u.resolve(name, false)
	if err != nil {
		return Entry{}, err
	}
	if n.file == nil {
		return NewDir(path.Join(".", at)), nil
	}
	return *n.file, nil
}

// entries lists what the archives describe, sorted by path.
func (u *unpacker) entries() []Entry {
	var all []Entry
	var files []*Entry
	names := map[*Entry]int{}
	var walk func(n *node, at string)
	walk = func(n *node, at string) {
		if n.file != nil {
			e := *n.file
			e.Path = at
			all, files = append(all, e), append(files, n.file)
			names[n.file]++
		}
		for _, name := range slices.Sorted(maps.Keys(n.children)) {
			walk(n.children[name], path.Join(at, name))
		}
	}
	walk(u.root, ".")
	inodes := map[*Entry]uint64{}
	for i, file := range files {
		if names[file] == 1 {
			continue
		}
		if inodes[file] == 0 {
			inodes[file] = uint64(len(inodes) + 1)
		}
		all[i].Inode = inodes[file]
	}
	Sort(all)
	return all
}

// sectionContent is a piece of an archive as the content of a file.
type sectionContent struct{ *io.SectionReader }

func (sectionContent) Close() error { return nil }
