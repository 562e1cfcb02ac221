package iso9660

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/slipway-build/slipway/exporter/tree"
)

// node is a file of the volume.
type node struct {
	*tree.Node
	identifier string // ISO 9660's name, unique in the directory
	sortKey    string
	parent     *node
	first      *node // whose content it shares
	extent     uint32

	// Of directories.
	children    []*node // by identifier
	number      int     // in the path tables, from 1
	depth       int
	recordsSize int64 // bytes

	attributes area // of its record in the directory above
	self, up   area // of the records that a directory has for itself and the one above
}

// addEntries makes the nodes.
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
			return fmt.Errorf("%s has %d bytes; a file on ISO 9660 can have %d", e.Path, e.Size, int64(maxFileSize))
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

// identifierCharacters are d-characters (ECMA-119, 7.4.1).
const identifierCharacters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"

// Lengths of identifiers (ECMA-119, 7.5 and 7.6): of name and extension of a
// file together, and of the name of a directory.
const (
	fileIdentifier      = 30
	directoryIdentifier = 31
	extensionIdentifier = 8 // of fileIdentifier, so that the name has room
)

// nameChildren gives the files in a directory their identifiers, for readers
// that do not know Rock Ridge, and sorts them as ECMA-119, 9.3, wants it.
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

// sortKey orders by name, then by extension, each as if filled up with blanks.
func sortKey(identifier string) string {
	name, ext, _ := strings.Cut(strings.TrimSuffix(identifier, ";1"), ".")
	return fmt.Sprintf("%-*s%-*s", directoryIdentifier, name, extensionIdentifier, ext)
}

// identifier brings a name into the characters of identifiers.
func identifier(name string, limit int) string {
	id := strings.Map(func(r rune) rune {
		if strings.ContainsRune(identifierCharacters, r) {
			return r
		}
		return '_'
	}, strings.ToUpper(name))
	return id[:min(len(id), limit)]
}
