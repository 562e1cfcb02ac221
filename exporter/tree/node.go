package tree

import (
	"fmt"
	"path"
)

// Node is an entry with its relations to others, for writers of file systems.
type Node struct {
	Entry
	Name     string  // last element of the path; "" for the root
	Parent   *Node   // directory of the entry; the root for the root
	Children []*Node // sorted by name
	// First is the first name of the same file: the node itself, unless it is a
	// hard link.
	First *Node
	// Links is the number of names of the file. For a directory, it is 2 and the
	// number of directories in it. It is valid in First only.
	Links uint32
	// Number is the number of the file, from 1. It is the same for all its names.
	Number uint32
}

// Nodes returns the nodes of sorted entries, level by level from the root, with
// the children of a directory next to each other. If the root has no entry, it has
// mode 0755 and owner root. It is an error if the directory of an entry is missing.
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
	// In this order, First is not always the first name of a file.
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
