package schema

import (
	"bytes"
	"fmt"
	"maps"
	"reflect"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// Decoded is a value of a struct type together with the places of all that is
// in it.
type Decoded[T any] struct {
	Value T
	Node  *Node
}

// Overlay merges two values key by key. Keys that are set in above replace, or
// with the tag merge extend, those of below. Neither argument is modified.
func Overlay[T any](below, above Decoded[T]) Decoded[T] {
	below.Node = (*Merger)(nil).overlay(reflect.ValueOf(&below.Value).Elem(), reflect.ValueOf(&above.Value).Elem(), below.Node, above.Node, Of[T]())
	return below
}

// overlay merges av into bv and returns the merged node. A nil Merger does not
// patch lists.
func (m *Merger) overlay(bv, av reflect.Value, below, above *Node, t *Type) *Node {
	if below == nil {
		below = &Node{typ: t}
	}
	merged := *below
	merged.typ = t
	merged.fields = maps.Clone(below.fields)
	if merged.fields == nil {
		merged.fields = map[string]*Node{}
	}
	for _, f := range t.Fields {
		b, a := bv.Field(f.index), av.Field(f.index)
		bn, an := below.field(f.Name), above.field(f.Name)
		switch {
		case !an.Set(), f.KeepEmpty && a.IsZero():
			continue
		case f.Merge == Join && m != nil && f.Type.Elem.patchable():
			merged.fields[f.Name] = m.patch(b, a, bn, an, f)
		case f.Merge == Join:
			b.Set(reflect.AppendSlice(b.Slice3(0, b.Len(), b.Len()), a))
			merged.fields[f.Name] = joined(bn, an)
		case f.Merge == Keys:
			n := m.overlay(b, a, bn, an, f.Type)
			n.position, n.invalid = an.position, bn.Invalid() || an.invalid
			merged.fields[f.Name] = n
		default:
			b.Set(a)
			merged.fields[f.Name] = an
		}
	}
	return &merged
}

func joined(below, above *Node) *Node {
	if below == nil {
		return above
	}
	n := *above
	n.elems = append(below.elems[:len(below.elems):len(below.elems)], above.elems...)
	n.invalid = below.invalid || above.invalid
	return &n
}

// YAML returns the value as YAML. It has the keys that are set, in the order
// of the schema, in a form that LinuxKit reads too.
func (d Decoded[T]) YAML() []byte {
	text, err := yaml.Marshal(d.tree())
	if err != nil {
		panic(err) // the tree consists of maps, lists and scalars
	}
	return text
}

// Plain returns the same as [Decoded.YAML], made of maps, slices and scalars.
func (d Decoded[T]) Plain() any {
	var v any
	if err := d.tree().Decode(&v); err != nil {
		panic(err) // as above
	}
	return v
}

func (d Decoded[T]) tree() *yaml.Node {
	return encode(reflect.ValueOf(&d.Value).Elem(), d.Node, Of[T]())
}

func encode(v reflect.Value, n *Node, t *Type) *yaml.Node {
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	switch t.Kind {
	case Map:
		out := &yaml.Node{Kind: yaml.MappingNode}
		for _, f := range t.Fields {
			if n := n.Key(f.Name); n.Set() {
				out.Content = append(out.Content, scalar(f.Name), encode(v.Field(f.index), n, f.Type))
			}
		}
		return out
	case List:
		out := &yaml.Node{Kind: yaml.SequenceNode}
		for i := range v.Len() {
			out.Content = append(out.Content, encode(v.Index(i), n.Index(i), t.Elem))
		}
		return out
	}
	x := v.Addr().Interface()
	if _, ok := x.(yaml.Marshaler); !ok {
		if text, ok := x.(Text); ok {
			x = text.String()
		}
	}
	return scalar(x)
}

// scalar returns a scalar or a map of strings as YAML.
func scalar(v any) *yaml.Node {
	n := &yaml.Node{}
	if err := n.Encode(v); err != nil {
		panic(err) // scalars and maps of strings can all be encoded
	}
	return n
}

// Annotated returns the same as [Decoded.YAML]. Each line ends with a comment
// that names the place from which it comes, except lines within a string.
func (d Decoded[T]) Annotated(name func(Position) string) []byte {
	// A string is in one line or in a block.
	text, err := yaml.Dump(d.tree(), yaml.WithV3Defaults(), yaml.WithLineWidth(-1), yaml.WithIndent(2))
	if err != nil {
		panic(err) // as in YAML
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		panic(err) // it was written by this package
	}
	places := map[int]Position{} // by line
	origins(doc.Content[0], d.Node, places)
	lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	width := 0
	for i, line := range lines {
		if places[i+1].Line > 0 {
			width = max(width, min(utf8.RuneCountInString(line), 80))
		}
	}
	var out bytes.Buffer
	for i, line := range lines {
		if p := places[i+1]; p.Line > 0 {
			line = fmt.Sprintf("%-*s  # %s", width, line, name(p))
		}
		fmt.Fprintln(&out, line)
	}
	return out.Bytes()
}

// origins finds the places from which the lines of a written YAML come.
func origins(n *yaml.Node, from *Node, places map[int]Position) {
	if _, known := places[n.Line]; !known && from.Set() {
		places[n.Line] = from.Position()
	}
	for i, child := range n.Content {
		switch {
		case n.Kind == yaml.SequenceNode:
			origins(child, from.Index(i), places)
		case i%2 == 1:
			key := n.Content[i-1]
			value := from.field(key.Value)
			if value.Set() {
				places[key.Line] = value.Position()
			}
			origins(child, value, places)
		}
	}
}
