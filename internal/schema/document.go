package schema

import (
	"reflect"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/slipway-build/slipway/internal/suggest"
)

// A Document is a YAML document, a map, before it is decoded.
type Document struct {
	decoder Decoder
	root    *yaml.Node
	lines   int
	marks   map[*yaml.Node]mark
}

// mark is what is known about a scalar whose text was substituted.
type mark struct {
	note    string // end of messages about the value
	number  string // the value as an integer, empty if it is none
	unknown bool   // the value is not known because of an error that was reported
}

// Decode decodes the document. See [Decoder.Decode].
func (d *Document) Decode(into any, t *Type) *Node {
	r := &reader{
		Decoder: d.decoder,
		lines:   d.lines,
		open:    map[*yaml.Node]struct{}{},
		known:   map[*yaml.Node]struct{}{},
		marks:   d.marks,
	}
	if r.placeless() {
		r.where = []string{d.decoder.Title}
	}
	node := &Node{typ: t, position: r.position(d.root)}
	r.fields(reflect.ValueOf(into).Elem(), node, d.root, nil, t)
	node.invalid = r.errors > 0
	return node
}

// Take moves top-level keys into a new document.
func (d *Document) Take(keys ...string) *Document {
	taken, rest := *d.root, *d.root
	taken.Content, rest.Content = nil, nil
	for i := 0; i+1 < len(d.root.Content); i += 2 {
		to := &rest
		for _, key := range keys {
			if d.root.Content[i].Value == key {
				to = &taken
			}
		}
		to.Content = append(to.Content, d.root.Content[i], d.root.Content[i+1])
	}
	d.root = &rest
	return &Document{decoder: d.decoder, root: &taken, lines: d.lines, marks: d.marks}
}

// A Substitution is what replaces a string.
type Substitution struct {
	Text    string
	Kind    Kind   // Integer or Boolean if the text may also be one
	Number  string // the value as an integer, if it is not the text
	Note    string // end of messages about the value
	Unknown bool   // an error was reported, so that the value is not known
}

// Substitute replaces strings of the document, except keys. For each it calls a
// function with the text and a function that returns the position of a byte of
// the text. The function reports false to leave the string as it is.
func (d *Document) Substitute(replace func(text string, at func(offset int) Position) (Substitution, bool)) {
	r := &reader{Decoder: d.decoder, lines: d.lines}
	var walk func(n *yaml.Node)
	walk = func(n *yaml.Node) {
		for i, child := range n.Content {
			if n.Kind != yaml.MappingNode || i%2 == 1 {
				walk(child)
			}
		}
		if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" {
			return
		}
		text := n.Value
		s, ok := replace(text, func(offset int) Position {
			at := r.position(n)
			if n.Style&yaml.LiteralStyle != 0 && !r.placeless() {
				at.Line = min(at.Line+1+strings.Count(text[:offset], "\n"), d.lines)
			}
			return at
		})
		if !ok {
			return
		}
		n.Value, n.Tag = s.Text, "!!str"
		n.Style &^= yaml.FoldedStyle | yaml.LiteralStyle
		switch s.Kind {
		case Integer:
			n.Tag = "!!int"
		case Boolean:
			n.Tag = "!!bool"
		}
		if n.Tag != "!!str" {
			n.Style = 0
		}
		d.marks[n] = mark{s.Note, s.Number, s.Unknown}
	}
	walk(d.root)
}

// template returns a predicate about a value in double braces, which YAML reads
// as a map with a map as its key, or "".
func template(n *yaml.Node) string {
	if n.Kind != yaml.MappingNode || n.Style&yaml.FlowStyle == 0 || len(n.Content) == 0 || n.Content[0].Kind != yaml.MappingNode {
		return ""
	}
	name := ""
	if inner := n.Content[0].Content; len(inner) > 0 && inner[0].Kind == yaml.ScalarNode {
		name = inner[0].Value
	}
	return suggest.Placeholder("{{ " + strings.NewReplacer("{", "", "}", "").Replace(name) + " }}")
}
