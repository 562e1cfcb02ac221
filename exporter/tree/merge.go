package tree

import (
	"fmt"
	"path"
	"strings"
)

// Part is a tree that Merge puts over other trees.
type Part struct {
	Name    string // for error messages
	Entries []Entry
}

// Merge merges parts, in order, into one tree, sorted by path. A directory has the
// children of all parts and the attributes of its entry in the last part that has
// one. Other files come from the last part that has them. Hard links to one file
// remain so, unless a later part has an entry for one of the names. Directories
// without an entry in any part, including the root, have mode 0755 and owner root.
//
// It is an error if one part has a symbolic link or a file where another part has
// a directory that is not empty.
func Merge(parts []Part) ([]Entry, error) {
	m := merger{}
	var inodes uint64
	var spent budget
	for _, part := range parts {
		var highest uint64
		for _, e := range part.Entries {
			highest = max(highest, e.Inode)
			if e.Inode != 0 {
				e.Inode += inodes
			}
			if err := spent.spend(e.metadata()); err != nil {
				return nil, fmt.Errorf("the root filesystem has %w", err)
			}
			if err := m.add(e, part.Name); err != nil {
				return nil, err
			}
		}
		inodes += highest
	}
	entries := make([]Entry, 0, len(m))
	links := map[uint64]int{}
	for _, e := range m {
		entries = append(entries, e.Entry)
		links[e.Inode]++
	}
	for i, e := range entries {
		if links[e.Inode] == 1 {
			entries[i].Inode = 0
		}
	}
	Sort(entries)
	return entries, nil
}

// merger holds the entries of a tree by path.
type merger map[string]*merged

type merged struct {
	Entry
	part     string  // name
	child    *merged // one entry in the directory, or nil
	replaced *merged // what the directory replaced, if that was not a directory
}

func (m merger) add(e Entry, part string) error {
	added := &merged{Entry: e, part: part}
	if e.Path != "." {
		parent, err := m.parent(added)
		if err != nil {
			return err
		}
		parent.child = added
	}
	old := m[e.Path]
	switch {
	case old == nil:
	case old.Type == Dir && e.Type == Dir:
		added.child, added.replaced = old.child, old.replaced
	case old.Type == Dir && old.child != nil:
		return conflict(added, old.child)
	case e.Type == Dir:
		added.replaced = old
	}
	m[e.Path] = added
	return nil
}

// parent returns the directory that e is in.
func (m merger) parent(e *merged) (*merged, error) {
	dir := path.Dir(e.Path)
	parent := m[dir]
	switch {
	case parent == nil:
		if err := m.add(NewDir(dir), e.part); err != nil {
			return nil, err
		}
		return m[dir], nil
	case parent.Type != Dir:
		return nil, conflict(parent, e)
	case parent.replaced != nil && parent.replaced.Type == Symlink:
		return nil, conflict(parent.replaced, e)
	}
	return parent, nil
}

// conflict returns the error that the path of other is a directory too, which
// contains below.
func conflict(other, below *merged) error {
	if other.Type != Symlink {
		return fmt.Errorf("%s of %s is below %s, which is a %s in %s: remove one of them or choose another path",
			below.Path, below.part, other.Path, other.Type, other.part)
	}
	target := other.Link
	if !strings.HasPrefix(target, "/") {
		target = path.Join("/", path.Dir(other.Path), target)
	}
	real := path.Join(target, strings.TrimPrefix(below.Path, other.Path))
	return fmt.Errorf("%s of %s is below %s, which is a symlink to %s in %s: use the path %s",
		below.Path, below.part, other.Path, other.Link, other.part, strings.TrimPrefix(real, "/"))
}
