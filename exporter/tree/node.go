package tree

import (
	"fmt"
	"path"
)

// Node is an entry with its place among the others, for writers of file
// systems.
type Node struct {
	Entry
	Name     string  // without the directories above; "" for the root
	Parent   *Node   // the directory that it is in; of the root itself
	Children []*Node // of a directory, by name
	// First is the first name of the same file, which most files are
	// themselves.
	First *Node
	// Links is the number of names of the file; of a directory 2, and one for
	// each directory in it. It counts in First alone.
	Links uint32
	// Number counts files from 1. All names of a file have the same.
	Number uint32
}

// Nodes gives the nodes of sorted entries, level by level, the root first: what
// is in one directory stands together. A root that is missing is added, 0755
// root. It fails if an entry is in no directory.
func Nodes(entries []Entry) ([]*Node, error) {
	root := &Node{Entry: NewDir("."), Links: 2}
	root.Parent, root.First = root, root
	directories := map[string]*Node{".": root}
	first := map[uint64]*Node{}
	for _, e := range entries {
		if e.Path == "." {
			root.Entry = e
			continue
		}
		n := &Node{Entry: e, Name: path.Base(e.Path), Parent: directories[path.Dir(e.Path)], Links: 1}
		if n.Parent == nil {
			return nil, fmt.Errorf("%s: there is no directory %s", e.Path, path.Dir(e.Path))
		}
		n.First = n
		n.Parent.Children = append(n.Parent.Children, n)
		switch other := first[e.Inode]; {
		case e.Type == Dir:
			directories[e.Path] = n
			n.Links = 2
			n.Parent.Links++
		case e.Inode != 0 && other != nil:
			n.First = other
			other.Links++
		default:
			first[e.Inode] = n
		}
	}
	nodes := []*Node{root}
	for i := 0; i < len(nodes); i++ {
		nodes = append(nodes, nodes[i].Children...)
	}
	// A name may come before the one that is first by its path.
	var number uint32
	for _, n := range nodes {
		if n.First.Number == 0 {
			number++
			n.First.Number = number
		}
		n.Number = n.First.Number
	}
	return nodes, nil
}
