package tree

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
)

// unpacker holds the tree that archives make when they are unpacked in order.
type unpacker struct {
	root  *node
	layer int // number of the current archive
	spent budget
}

// node is a name in the tree.
type node struct {
	// file is shared by all names of a file and has no Path. It is nil for a
	// directory without an entry in any archive.
	file     *Entry
	layer    int              // number of the last archive with an entry for the name
	children map[string]*node // nil unless the node is a directory
}

func newUnpacker() *unpacker {
	return &unpacker{root: &node{children: map[string]*node{}}}
}

// unpack adds an archive to the tree. If whiteouts is true, the archive is a
// layer.
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
			err = errors.New("it is below a whiteout")
		default:
			err = u.add(name, hdr, section)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
}

// add adds the entry of an archive whose header has just been read from section.
func (u *unpacker) add(name string, hdr *tar.Header, section *io.SectionReader) error {
	file, err := tarEntry(hdr)
	if err != nil {
		return err
	}
	if file == nil {
		return u.link(name, hdr.Linkname)
	}
	if file.Size > 0 {
		// tar.Reader reads whole blocks, so the content starts at the
		// current offset of the section.
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

// put adds a file under a name. It replaces what had the name before, with
// everything below it. A directory in place of a directory only replaces the
// attributes.
func (u *unpacker) put(name string, file *Entry) error {
	if name == "." {
		if file.Type != Dir {
			return fmt.Errorf("the root cannot be a %s", file.Type)
		}
		u.root.file = file
		return nil
	}
	dir, at, err := u.directory(path.Dir(name), true)
	if err != nil {
		return err
	}
	full := len(at) + len("/") + len(path.Base(name))
	if err := checkResolved(full, path.Base(name)); err != nil {
		return err
	}
	if err := u.spent.spend(full + file.metadata()); err != nil {
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

// link adds another name for the file that target currently names. The attributes
// in the header of a hard link are ignored.
func (u *unpacker) link(name, target string) error {
	clean, err := cleanTarName(target)
	if err != nil {
		return fmt.Errorf("target of hard link: %w", err)
	}
	dir, _, err := u.directory(path.Dir(clean), false)
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
		return fmt.Errorf("it is a hard link to %s, which has no earlier entry", target)
	}
	return u.put(name, old.file)
}

// entries returns the files with an entry in an archive, sorted by path.
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

// sectionContent is a section of an archive that is the content of a file.
type sectionContent struct{ *io.SectionReader }

func (sectionContent) Close() error { return nil }
