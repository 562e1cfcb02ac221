package tree

import (
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/slipway-build/slipway/internal/contract"
)

// maxLinks is the number of symbolic links that Linux follows in one path
// (path_resolution(7)).
const maxLinks = 40

// directory returns the directory that name resolves to, and its path. If create
// is true, it creates missing directories.
func (u *unpacker) directory(name string, create bool) (*node, string, error) {
	n, at, err := u.resolve(name, create)
	if err == nil && n.children == nil {
		err = errBelow(at, n)
	}
	return n, at, err
}

// checkResolved returns an error if Linux cannot have a file with the given
// name and length of its path in bytes. The path in the archive can be short
// and lead here through symbolic links.
func checkResolved(length int, name string) error {
	if length > contract.MaxPath {
		return fmt.Errorf("symbolic links lead to a path of %d bytes: Linux allows %d", length, contract.MaxPath)
	}
	return checkName(name)
}

// errBelow is the error for a path below a file that is not a directory.
func errBelow(at string, n *node) error {
	return fmt.Errorf("it is below %s, which is a %s", at, n.file.Type)
}

// resolve returns what name resolves to, and its path, as for a process whose root
// is the root of the tree: symbolic links never lead out of it. If create is true,
// it creates missing directories, also in place of other files of lower layers.
func (u *unpacker) resolve(name string, create bool) (n *node, at string, err error) {
	way := []*node{u.root}
	var names []string
	length := 0 // of names joined by slashes, with a final one
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
				length -= len(names[len(names)-1]) + 1
				way, names = way[:len(way)-1], names[:len(names)-1]
			}
			continue
		}
		child := dir.children[part]
		if child == nil && !create {
			return nil, "", fmt.Errorf("%s: %w", path.Join(append(names, part)...), fs.ErrNotExist)
		}
		if child == nil || create && child.children == nil && child.layer < u.layer {
			if err := checkResolved(length+len(part), part); err != nil {
				return nil, "", err
			}
			if err := u.spent.spend(length + len(part)); err != nil {
				return nil, "", err
			}
			created := &node{layer: u.layer, children: map[string]*node{}}
			if child != nil {
				created.file = u.linked(child, path.Join(append(names, part)...))
			}
			child = created
			dir.children[part] = child
		}
		if child.children != nil || child.file.Type != Symlink {
			way, names = append(way, child), append(names, part)
			length += len(part) + 1
			continue
		}
		if links++; links > maxLinks {
			return nil, "", fmt.Errorf("%s: too many symbolic links", name)
		}
		if strings.HasPrefix(child.file.Link, "/") {
			way, names, length = way[:1], names[:0], 0
		}
		rest = append(strings.Split(child.file.Link, "/"), rest...)
	}
	return way[len(way)-1], path.Join(names...), nil
}

// linked returns the attributes of a directory that takes the place of a file of
// a lower layer: those of the directory in the same layer to which the file, at
// the given path, is a symbolic link, or else nil.
func (u *unpacker) linked(n *node, at string) *Entry {
	if n.file.Type != Symlink {
		return nil
	}
	target, _, err := u.resolve(at, false)
	if err != nil || target.children == nil || target.file == nil || target.layer != n.layer {
		return nil
	}
	file := *target.file
	return &file
}

// Find returns the file that name resolves to in a tree, as for a process whose
// root is the root of the tree: symbolic links never lead out of it. The error is
// fs.ErrNotExist if there is no such file.
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
