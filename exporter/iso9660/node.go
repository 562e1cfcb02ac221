package iso9660

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/slipway-build/slipway/exporter/tree"
)

// node is a file or directory of the volume.
type node struct {
	*tree.Node
	identifier string // name in ISO 9660, unique in the directory
	sortKey    string
	parent     *node
	first      *node // first hard link, which has the content
	extent     uint32

	// The following fields are for directories.
	children    []*node // by identifier
	number      int     // in the path tables, from 1
	depth       int
	recordsSize int64 // bytes

	attributes area // in the record in its parent
	self, up   area // in the records of a directory for itself and its parent
}

// addEntries creates the nodes.
func (v *Volume) addEntries(entries []tree.Entry) error {
	nodes, err := tree.Nodes(entries)
	if err != nil {
		return err
	}
	of := map[*tree.Node]*node{}
	for _, n := range nodes {
		of[n] = &node{Node: n}
		v.names[n.Path] = of[n]
	}
	for _, treeNode := range nodes {
		n := of[treeNode]
		n.parent, n.first = of[n.Parent], of[n.First]
		if n.Type == tree.Dir {
			n.depth = n.parent.depth + 1
			v.directories = append(v.directories, n)
		}
		for _, child := range n.Children {
			n.children = append(n.children, of[child])
		}
	}
	for _, e := range entries {
		n := v.names[e.Path]
		if e.Type == tree.File && e.Size > maxFileSize {
			return fmt.Errorf("%s has %d bytes, but ISO 9660 supports files of %d", e.Path, e.Size, int64(maxFileSize))
		}
		if _, elsewhere := v.options.InTail[e.Path]; e.Type == tree.File && e.Size > 0 && n.first == n && !elsewhere {
			v.files = append(v.files, n)
		}
	}
	for _, d := range v.directories {
		d.nameChildren()
	}
	return nil
}

// identifierCharacters are the d-characters (ECMA-119, section 7.4.1).
const identifierCharacters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"

// Lengths of identifiers (ECMA-119, sections 7.5 and 7.6): of name and extension of
// a file together, and of the name of a directory.
const (
	fileIdentifier      = 30
	directoryIdentifier = 31
	extensionIdentifier = 8 // at most, so that there is room for the name
)

// nameChildren assigns identifiers to the children, for readers without Rock Ridge,
// and sorts them (ECMA-119, section 9.3).
func (n *node) nameChildren() {
	taken := map[string]bool{}
	for _, child := range n.children {
		name, ext := child.Name, ""
		limit := directoryIdentifier
		if child.Type != tree.Dir {
			limit = fileIdentifier
			if dot := strings.LastIndexByte(name, '.'); dot > 0 {
				name, ext = name[:dot], identifier(name[dot+1:], extensionIdentifier)
			}
		}
		suffix := ""
		for number := 0; ; number++ {
			if number > 0 {
				suffix = fmt.Sprintf("_%d", number)
			}
			id := identifier(name, limit-len(ext)-len(suffix)) + suffix
			if child.Type != tree.Dir {
				id += "." + ext + ";1"
			}
			if !taken[id] {
				taken[id] = true
				child.identifier, child.sortKey = id, sortKey(id)
				break
			}
		}
	}
	slices.SortFunc(n.children, func(a, b *node) int { return cmp.Compare(a.sortKey, b.sortKey) })
}

// sortKey returns a key that sorts by name, then by extension, each padded with
// spaces.
func sortKey(identifier string) string {
	name, ext, _ := strings.Cut(strings.TrimSuffix(identifier, ";1"), ".")
	return fmt.Sprintf("%-*s%-*s", directoryIdentifier, name, extensionIdentifier, ext)
}

// identifier converts a name to the characters of identifiers.
func identifier(name string, limit int) string {
	id := strings.Map(func(r rune) rune {
		if strings.ContainsRune(identifierCharacters, r) {
			return r
		}
		return '_'
	}, strings.ToUpper(name))
	return id[:min(len(id), limit)]
}
