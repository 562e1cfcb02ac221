package machine

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// decoder reads a YAML document into the model, and goes on after a mistake to find the others.
type decoder struct {
	*report
	source int
	lines  int      // of the source
	fixed  Range    // place of everything, for a text that is in no source
	where  []string // what is being read, outermost first

	alias    *yaml.Node              // outermost alias that is being followed
	open     map[*yaml.Node]struct{} // what the aliases that are being followed stand for
	wrong    map[*yaml.Node]struct{} // nodes with a mistake that is reported where they are written
	expanded int                     // values read through aliases

	exhausted bool // more than the limit
}

func newDecoder(r *report, source int) *decoder {
	return &decoder{report: r, source: source, open: map[*yaml.Node]struct{}{}, wrong: map[*yaml.Node]struct{}{}}
}

// decodable is a *value[T].
type decodable interface {
	decode(d *decoder, key, n *yaml.Node, f *Field, t *Type)
	set() bool
}

// decode reads a node; key is nil for an entry of a list.
func (v *value[T]) decode(d *decoder, key, n *yaml.Node, f *Field, t *Type) {
	before := d.mistakes
	d.follow(n, func(n *yaml.Node) {
		at := n
		if key != nil && n.Kind != yaml.ScalarNode {
			at = key
		}
		if d.into(reflect.ValueOf(&v.V).Elem(), key, n, f, t) {
			v.At = d.place(at)
		}
	})
	v.Wrong = d.mistakes > before
}

// place is where a node is.
func (d *decoder) place(n *yaml.Node) Range {
	if d.fixed.written() {
		return d.fixed
	}
	line := max(1, min(n.Line, d.lines)) // YAML has line breaks that others do not count
	return Range{d.source, line, line}
}

// in is the end of a message that says where the mistake is.
func (d *decoder) in() string {
	if len(d.where) == 0 {
		return ""
	}
	inner := slices.Clone(d.where)
	slices.Reverse(inner)
	return " in " + strings.Join(inner, " of ")
}

// within reads something that belongs to a named part.
func (d *decoder) within(part string, read func()) {
	d.where = append(d.where, part)
	read()
	d.where = d.where[:len(d.where)-1]
}

// wrongAt reports a mistake at a node. One that was read before, through an alias or the other way round, is not
// reported again; one that is wrong only where an alias puts it is reported there.
func (d *decoder) wrongAt(n *yaml.Node, format string, args ...any) {
	at := n
	if d.alias != nil {
		if _, known := d.wrong[n]; known {
			d.mistakes++
			return
		}
		at = d.alias
	}
	d.wrong[n] = struct{}{}
	d.mistake(d.place(at), format, args...)
}

// unportable warns of a form that LinuxKit rejects.
func (d *decoder) unportable(n *yaml.Node, format string, args ...any) {
	if !d.fixed.written() {
		d.add(NotPortable, d.place(n), format, args...)
	}
}

// into reads a node into a Go value of the model and tells whether anything is written there.
func (d *decoder) into(v reflect.Value, key, n *yaml.Node, f *Field, t *Type) bool {
	if n.ShortTag() == "!!null" && n.Kind == yaml.ScalarNode {
		return d.nothing(key, n, f, t)
	}
	switch t.Kind {
	case List:
		d.list(v, key, n, f, t)
	case Map:
		d.object(v, key, n, f, t)
	case Dict:
		d.dict(v, key, n, f, t)
	default:
		d.scalar(v, key, n, f, t)
	}
	return true
}

// nothing is a key without a value. A section without one is as good as absent; elsewhere it may be meant to clear the
// label, or not.
func (d *decoder) nothing(key, n *yaml.Node, f *Field, t *Type) bool {
	if key != nil && len(d.where) == 0 {
		d.unportable(key, "LinuxKit rejects the section %s without a value; remove it", key.Value)
		return false
	}
	d.wrongAt(or(key, n), "%s has no value%s", d.subject(key, f, t), map[Kind]string{
		List: "; remove it, or write [] for an empty list",
		Map:  "; remove it, or write {} for an empty map",
		Dict: "; remove it, or write {} for an empty map",
		Text: `; remove it, or write "" for an empty text`,
	}[t.Kind])
	return true
}

func or(a, b *yaml.Node) *yaml.Node {
	if a != nil {
		return a
	}
	return b
}

// subject names what a key, or an entry of a list, stands for in a message.
func (d *decoder) subject(key *yaml.Node, f *Field, t *Type) string {
	switch {
	case key != nil && t.Kind == Text && f.Type.Kind == Dict:
		return quote(key.Value) + d.in()
	case key == nil && t.Kind == Map:
		return strings.TrimPrefix(d.in(), " in ")
	}
	return f.Name + d.in()
}

// mismatch reports a node of a kind that cannot stand there.
func (d *decoder) mismatch(key, n *yaml.Node, f *Field, t *Type) {
	want, hint := kinds[t.Kind], ""
	if t.Expect != "" {
		want = t.Expect
	}
	switch {
	case t.Kind == Text && len(f.Enum) > 0:
		want = either(f.Enum)
	case t.Kind == Map:
		want = "a map with " + t.shape()
	case t.Kind == List && t.Elem.Kind == Map:
		hint = `; begin each entry with "- ` + t.Elem.begin() + `"`
	case f.Example != "" && t == f.Type:
		want += ", such as " + f.Example
	}
	d.wrongAt(or(key, n), "%s must be %s, not %s%s", d.subject(key, f, t), want, kindOf(n), hint)
}

var kinds = map[Kind]string{
	Text: "text", Number: "a whole number", Boolean: "true or false", List: "a list", Dict: "a map",
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
	return quote(n.Value)
}

// quote shows a text in a message, shortened.
func quote(text string) string {
	if r := []rune(text); len(r) > 60 {
		text = string(r[:57]) + "..."
	}
	return strconv.Quote(text)
}

func (d *decoder) list(v reflect.Value, key, n *yaml.Node, f *Field, t *Type) {
	entries := n.Content
	switch {
	case n.Kind == yaml.SequenceNode:
	case n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str" && t.Elem.Kind == Text && !strings.ContainsAny(n.Value, " \t\n"):
		d.unportable(or(key, n), "LinuxKit rejects %[1]s: %[2]s; write %[1]s: [%[2]s]", f.Name, n.Value)
		entries = []*yaml.Node{n}
	default:
		d.mismatch(key, n, f, t)
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), 0, len(entries)))
	for i, e := range entries {
		item := reflect.New(v.Type().Elem())
		part := f.Name
		if f.noun != "" {
			part = fmt.Sprintf("%s[%d]", f.Name, i)
		}
		read := func() { item.Interface().(decodable).decode(d, nil, e, f, t.Elem) }
		if t.Elem.Kind == Map {
			d.within(part, read)
		} else {
			read()
		}
		v.Set(reflect.Append(v, item.Elem()))
	}
}

func (d *decoder) object(v reflect.Value, key, n *yaml.Node, f *Field, t *Type) {
	if n.Kind != yaml.MappingNode {
		d.mismatch(key, n, f, t)
		return
	}
	if key != nil {
		d.within(f.Name, func() { d.fields(v, n, f, t) })
		return
	}
	d.fields(v, n, f, t)
}

// fields reads the keys of a map into a struct.
func (d *decoder) fields(v reflect.Value, n *yaml.Node, f *Field, t *Type) {
	all, twice := d.pairs(n)
	if f != nil && f.noun != "" {
		d.name(all, f.noun, t)
	}
	d.repeated(twice)
	for _, p := range all {
		d.through(p, func() {
			f, ok := t.byName[p.key.Value]
			if !ok {
				f = t.byName[d.unknown(p.key, t)]
			}
			if f != nil && (ok || !hasKey(all, f.Name)) { // the value may be wrong for what is meant, too
				v.Field(f.index).Addr().Interface().(decodable).decode(d, p.key, p.value, f, f.Type)
			}
		})
	}
	for _, f := range t.Fields {
		if f.Required && !v.Field(f.index).Addr().Interface().(decodable).set() {
			d.wrongAt(n, "%s is missing%s", f.Name, d.in())
		}
	}
}

func hasKey(all []pair, key string) bool {
	return slices.ContainsFunc(all, func(p pair) bool { return p.key.Value == key })
}

// name makes the messages about an entry call it by its name.
func (d *decoder) name(all []pair, noun string, t *Type) {
	for _, p := range all {
		if f := t.byName[p.key.Value]; f == nil || !f.id {
			continue
		}
		d.follow(p.value, func(n *yaml.Node) {
			if n.Kind == yaml.ScalarNode && n.Value != "" {
				d.where[len(d.where)-1] = noun + " " + quote(n.Value)
			}
		})
	}
}

// unknown reports a key that there is not, and gives the one that may be meant.
func (d *decoder) unknown(key *yaml.Node, t *Type) string {
	meant := t.nearest(key.Value)
	hint := didYouMean(meant)
	switch {
	case hint != "":
	case len(t.Fields) <= 12:
		hint = "; it may be " + strings.Join(t.names(), ", ")
	default:
		hint = "; no key is like it: remove it"
	}
	noun := "key"
	if len(d.where) == 0 {
		noun = "section"
	}
	d.wrongAt(key, "unknown %s %s%s%s", noun, quote(key.Value), d.in(), hint)
	return meant
}

func (d *decoder) dict(v reflect.Value, key, n *yaml.Node, f *Field, t *Type) {
	if n.Kind != yaml.MappingNode {
		d.mismatch(key, n, f, t)
		return
	}
	d.within(f.Name, func() {
		all, twice := d.pairs(n)
		d.repeated(twice)
		texts := make(map[string]value[string], len(all))
		for _, p := range all {
			d.through(p, func() {
				var e value[string]
				e.decode(d, p.key, p.value, f, &Type{Kind: Text})
				texts[p.key.Value] = e
			})
		}
		v.Set(reflect.ValueOf(texts))
	})
}
