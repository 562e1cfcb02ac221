package schema

// A Position is a place in one of several texts.
type Position struct {
	Source int // index of the text
	Line   int // from 1; 0: nowhere
}

// A Node says where a value stands in a text. The nodes of a text form a tree
// with the shape of the decoded value. A nil Node is that of an absent value.
type Node struct {
	position Position
	invalid  bool
	typ      *Type
	fields   map[string]*Node // of a map or a dict, by key
	elems    []*Node          // of a list
}

// Position returns where the value stands. A map or list stands where its key
// does.
func (n *Node) Position() Position {
	if n == nil {
		return Position{}
	}
	return n.position
}

// Set reports whether the value is present in the text. An empty value is
// present too.
func (n *Node) Set() bool { return n.Position().Line > 0 }

// Invalid reports whether the decoder found an error in the value. Further
// errors of the value may follow from that one.
func (n *Node) Invalid() bool { return n != nil && n.invalid }

// Key returns the node of a key of a map or a dict. It panics if the map has
// no such key.
func (n *Node) Key(name string) *Node {
	if n == nil {
		return nil
	}
	if n.typ.Kind == Map && n.typ.byName[name] == nil {
		panic("schema: " + n.typ.Name + " has no key " + name)
	}
	return n.fields[name]
}

// field is Key for keys that may be missing from the type of the node.
func (n *Node) field(name string) *Node {
	if n == nil {
		return nil
	}
	return n.fields[name]
}

// Index returns the node of an entry of a list.
func (n *Node) Index(i int) *Node {
	if n == nil || i >= len(n.elems) {
		return nil
	}
	return n.elems[i]
}

// Select returns the node of a list with some of the entries.
func (n *Node) Select(entries []int) *Node {
	if n == nil {
		return nil
	}
	selected := *n
	selected.elems = nil
	for _, i := range entries {
		selected.elems = append(selected.elems, n.Index(i))
	}
	return &selected
}
