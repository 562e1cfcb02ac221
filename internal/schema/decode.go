package schema

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/slipway-build/slipway/internal/suggest"
)

// A Finding is an error in a text, or a form that LinuxKit rejects.
type Finding struct {
	Position Position
	Message  string // lower case, without the position
	Lenient  bool   // accepted here, rejected by LinuxKit
}

// A Decoder decodes texts.
type Decoder struct {
	Title  string        // what the text is, for messages: "the machine YAML"
	Source int           // of the text, in the positions of its values
	Report func(Finding) // called for every finding

	// At replaces the position of everything in the text, if its line is set:
	// the text is not in a file, and Title is part of every message.
	At Position
}

// Decode decodes the first YAML document of a text into a pointer to a T, and
// goes on after errors. It returns the places of what it decoded, nil if
// nothing could be decoded. The type is that of T, or a part of it.
func (d Decoder) Decode(data []byte, into any, t *Type) *Node {
	doc := d.Read(data)
	if doc == nil {
		return nil
	}
	return doc.Decode(into, t)
}

// Read reads the first YAML document of a text, which must be a map. It returns
// nil after an error.
func (d Decoder) Read(data []byte) *Document {
	r := &reader{Decoder: d, known: map[*yaml.Node]struct{}{}}
	r.lines = bytes.Count(bytes.TrimRight(data, "\n"), []byte("\n")) + 1
	what := "a map of sections"
	if r.placeless() {
		r.where, what = []string{d.Title}, "a map"
		if plain, ok := withoutEscapes(data); ok {
			data = plain
		}
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		line, text := syntaxError(err, data)
		r.errorAt(&yaml.Node{Line: line}, "invalid YAML%s: %s", r.in(), text)
		return nil
	}
	if len(doc.Content) == 0 {
		r.errorAt(&yaml.Node{Line: 1}, "%s is empty", d.Title)
		return nil
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		r.errorAt(root, "%s must be %s, not %s", d.Title, what, kindOf(root))
		return nil
	}
	return &Document{decoder: d, root: root, lines: r.lines, marks: map[*yaml.Node]mark{}}
}

// withoutEscapes returns JSON without escapes, because YAML does not know the
// surrogate pairs of JSON.
func withoutEscapes(text []byte) ([]byte, bool) {
	if !bytes.Contains(text, []byte(`\u`)) || !json.Valid(text) {
		return nil, false
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if d.Decode(&v) != nil {
		return nil, false
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return b.Bytes(), err == nil
}

// reader is the state of decoding one text.
type reader struct {
	Decoder
	lines  int      // of the text
	where  []string // what is being decoded, outermost first
	errors int      // also those that were not reported again

	alias    *yaml.Node              // outermost alias that is being followed
	open     map[*yaml.Node]struct{} // targets of the aliases that are being followed
	known    map[*yaml.Node]struct{} // nodes with an error that was reported
	expanded int                     // values read through aliases

	exhausted bool // expanded exceeds the limit

	marks map[*yaml.Node]mark // of substituted scalars
}

// placeless reports whether everything in the text has the same position.
func (r *reader) placeless() bool { return r.At.Line > 0 }

func (r *reader) position(n *yaml.Node) Position {
	if r.placeless() {
		return r.At
	}
	line := max(1, min(n.Line, r.lines)) // YAML has line breaks that others do not count
	return Position{Source: r.Source, Line: line}
}

// in is the part of a message that says where the error is.
func (r *reader) in() string {
	if len(r.where) == 0 {
		return ""
	}
	inner := slices.Clone(r.where)
	slices.Reverse(inner)
	return " in " + strings.Join(inner, " of ")
}

// within decodes something that belongs to a named part.
func (r *reader) within(part string, read func()) {
	r.where = append(r.where, part)
	read()
	r.where = r.where[:len(r.where)-1]
}

// errorAt reports an error at a node. A node that was already reported, because
// several aliases lead to it, is not reported again. A node that is invalid
// only where an alias puts it is reported at the alias.
func (r *reader) errorAt(n *yaml.Node, format string, args ...any) {
	r.errors++
	at := n
	if r.alias != nil {
		if _, known := r.known[n]; known {
			return
		}
		at = r.alias
	}
	r.known[n] = struct{}{}
	r.Report(Finding{Position: r.position(at), Message: fmt.Sprintf(format, args...) + r.marks[n].note})
}

// lenient reports a form that LinuxKit rejects.
func (r *reader) lenient(n *yaml.Node, format string, args ...any) {
	if _, substituted := r.marks[n]; !substituted && !r.placeless() {
		r.Report(Finding{Position: r.position(n), Message: fmt.Sprintf(format, args...), Lenient: true})
	}
}

// decode decodes a YAML node into v. The key is nil for an entry of a list.
func (r *reader) decode(v reflect.Value, key, n *yaml.Node, f *Field, t *Type) *Node {
	node := &Node{typ: t}
	before := r.errors
	r.follow(n, func(n *yaml.Node) {
		at := n
		if key != nil && n.Kind != yaml.ScalarNode {
			at = key
		}
		if r.into(v, node, key, n, f, t) {
			node.position = r.position(at)
		}
	})
	node.invalid = r.errors > before
	return node
}

// into decodes a YAML node that is not an alias, and reports whether the value
// counts as present.
func (r *reader) into(v reflect.Value, node *Node, key, n *yaml.Node, f *Field, t *Type) bool {
	if r.marks[n].unknown {
		r.errors++ // already reported
		return true
	}
	if n.ShortTag() == "!!null" && n.Kind == yaml.ScalarNode {
		return r.null(key, n, f, t)
	}
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	switch t.Kind {
	case List:
		r.list(v, node, key, n, f, t)
	case Map:
		r.object(v, node, key, n, f, t)
	case Dict:
		r.dict(v, node, key, n, f, t)
	default:
		r.scalar(v, key, n, f, t)
	}
	return true
}

// null handles a key without a value. An empty section counts as absent. In
// other places it is unclear whether it is meant to clear a value from below.
func (r *reader) null(key, n *yaml.Node, f *Field, t *Type) bool {
	if key != nil && len(r.where) == 0 {
		r.lenient(key, "LinuxKit rejects the section %s without a value; remove it", key.Value)
		return false
	}
	r.errorAt(or(key, n), "%s has no value%s", r.subject(key, f, t), map[Kind]string{
		List:   "; remove it, or write [] for an empty list",
		Map:    "; remove it, or write {} for an empty map",
		Dict:   "; remove it, or write {} for an empty map",
		String: `; remove it, or write "" for an empty string`,
	}[t.Kind])
	return true
}

func or(a, b *yaml.Node) *yaml.Node {
	if a != nil {
		return a
	}
	return b
}

// subject names a key, or an entry of a list, in a message.
func (r *reader) subject(key *yaml.Node, f *Field, t *Type) string {
	switch {
	case key != nil && t.Kind == String && f.Type.Kind == Dict:
		return Quote(key.Value) + r.in()
	case key == nil && t.Kind == Map:
		return strings.TrimPrefix(r.in(), " in ")
	}
	return f.Name + r.in()
}

// mismatch reports a node of the wrong kind.
func (r *reader) mismatch(key, n *yaml.Node, f *Field, t *Type) {
	if hint := template(n); hint != "" {
		r.errorAt(or(key, n), "%s %s", r.subject(key, f, t), hint)
		return
	}
	want, hint := kinds[t.Kind], ""
	if t.Words != "" {
		want = t.Words
	}
	switch {
	case t.Kind == String && len(f.Enum) > 0:
		want = Either(f.Enum)
	case t.Kind == Map:
		want = "a map with " + t.shape()
	case t.Kind == List && t.Elem.Kind == Map:
		hint = `; start each entry with "- ` + t.Elem.begin() + `"`
	case f.Example != "" && t == f.Type:
		want += " (for example " + f.Example + ")"
	}
	if key != nil {
		hint += r.marks[n].note
	}
	r.errorAt(or(key, n), "%s must be %s, not %s%s", r.subject(key, f, t), want, kindOf(n), hint)
}

var kinds = map[Kind]string{
	String: "a string", Integer: "an integer", Boolean: "true or false", List: "a list", Dict: "a map",
}

// kindOf names what a node is.
func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a map"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.ShortTag() {
	case "!!int", "!!float":
		return "the number " + n.Value
	case "!!bool":
		return n.Value
	}
	return Quote(n.Value)
}

// Quote quotes a string for a message, and shortens it.
func Quote(text string) string {
	if runes := []rune(text); len(runes) > 60 {
		text = string(runes[:57]) + "..."
	}
	return strconv.Quote(text)
}

func (r *reader) list(v reflect.Value, node *Node, key, n *yaml.Node, f *Field, t *Type) {
	entries := n.Content
	switch {
	case n.Kind == yaml.SequenceNode:
	case n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str" && t.Elem.Kind == String && !strings.ContainsAny(n.Value, " \t\n"):
		if _, substituted := r.marks[n]; !substituted {
			r.lenient(or(key, n), "LinuxKit rejects %[1]s: %[2]s; write %[1]s: [%[2]s]", f.Name, n.Value)
		}
		entries = []*yaml.Node{n}
	default:
		r.mismatch(key, n, f, t)
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(entries), len(entries)))
	node.elems = make([]*Node, len(entries))
	for i, e := range entries {
		read := func() { node.elems[i] = r.decode(v.Index(i), nil, e, f, t.Elem) }
		switch {
		case t.Elem.Kind != Map:
			read()
		case f.noun != "":
			r.within(fmt.Sprintf("%s[%d]", f.Name, i), read)
		default:
			r.within(f.Name, read)
		}
	}
}

func (r *reader) object(v reflect.Value, node *Node, key, n *yaml.Node, f *Field, t *Type) {
	if n.Kind != yaml.MappingNode {
		r.mismatch(key, n, f, t)
		return
	}
	if key != nil {
		r.within(f.Name, func() { r.fields(v, node, n, f, t) })
		return
	}
	r.fields(v, node, n, f, t)
}

// fields decodes the keys of a map into a struct. The field f, of the list or
// key that holds the map, is nil for the root.
func (r *reader) fields(v reflect.Value, node *Node, n *yaml.Node, f *Field, t *Type) {
	all, twice := r.pairs(n)
	if f != nil && f.noun != "" {
		r.nameEntry(all, f.noun, t)
	}
	r.repeated(twice)
	known := make(map[string]bool, len(all))
	for _, p := range all {
		if t.byName[p.key.Value] != nil {
			known[p.key.Value] = true
		}
	}
	node.fields = make(map[string]*Node, len(known))
	for _, p := range all {
		r.through(p, func() {
			f := t.byName[p.key.Value]
			if f == nil {
				// The value may be invalid for the key that is meant, too.
				f = t.byName[r.unknown(p.key, t)]
				if f == nil || known[f.Name] {
					return
				}
			}
			node.fields[f.Name] = r.decode(v.Field(f.index), p.key, p.value, f, f.Type)
		})
	}
	for _, f := range t.Fields {
		if f.Required && !node.fields[f.Name].Set() && !node.fields[f.unless].Set() {
			r.errorAt(n, "%s is missing%s", f.Name, r.in())
		}
	}
}

// nameEntry makes messages call an entry of a list by its name.
func (r *reader) nameEntry(all []pair, noun string, t *Type) {
	for _, p := range all {
		if f := t.byName[p.key.Value]; f == nil || !f.id {
			continue
		}
		r.follow(p.value, func(n *yaml.Node) {
			if n.Kind == yaml.ScalarNode && n.Value != "" {
				r.where[len(r.where)-1] = noun + " " + Quote(n.Value)
			}
		})
	}
}

// unknown reports an unknown key, and returns the one that may be meant.
func (r *reader) unknown(key *yaml.Node, t *Type) string {
	noun := "key"
	if len(r.where) == 0 {
		noun = "section"
	}
	meant := t.nearest(key.Value)
	hint := suggest.Word(meant)
	switch {
	case t.retired[key.Value] != "":
		meant, hint = "", "; "+t.retired[key.Value]
	case hint != "":
	case len(t.names()) <= 12:
		hint = fmt.Sprintf("; the %ss are %s", noun, strings.Join(t.names(), ", "))
	default:
		hint = "; remove it"
	}
	r.errorAt(key, "unknown %s %s%s%s", noun, Quote(key.Value), r.in(), hint)
	return meant
}

func (r *reader) dict(v reflect.Value, node *Node, key, n *yaml.Node, f *Field, t *Type) {
	if n.Kind != yaml.MappingNode {
		r.mismatch(key, n, f, t)
		return
	}
	r.within(f.Name, func() {
		all, twice := r.pairs(n)
		r.repeated(twice)
		values := make(map[string]string, len(all))
		node.fields = make(map[string]*Node, len(all))
		for _, p := range all {
			r.through(p, func() {
				var text string
				node.fields[p.key.Value] = r.decode(reflect.ValueOf(&text).Elem(), p.key, p.value, f, &Type{Kind: String})
				values[p.key.Value] = text
			})
		}
		v.Set(reflect.ValueOf(values))
	})
}

// Either joins words: "a, b or c".
func Either(words []string) string {
	last := len(words) - 1
	if last < 1 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:last], ", ") + " or " + words[last]
}
