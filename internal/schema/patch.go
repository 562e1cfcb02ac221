package schema

import (
	"bytes"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/slipway-build/slipway/internal/suggest"
)

// The keys of an entry of a list that say what it does to the entries of the
// texts below. A struct with these fields is patchable, if it also has a field
// with the tag id.
const (
	PatchKey  = "$patch" // what it does to the entry with the same id: PatchMerge, PatchReplace or PatchDelete; default: it is a new entry
	BeforeKey = "$before"
	AfterKey  = "$after" // the id of the entry before or after which it is put; default: at the end
)

// The values of [PatchKey].
const (
	PatchMerge   = "merge" // key by key
	PatchReplace = "replace"
	PatchDelete  = "delete"
)

// An Identifier is a [Text] of which several spellings identify the same entry.
type Identifier interface {
	Text
	Identity() string
}

// A Merger merges texts whose lists patch those of the texts below.
type Merger struct {
	Report func(Finding)
	Place  func(there, here Position) string // "on line 5", or "on line 5 of a.yml"

	deleted map[string]Position // by list and id
}

// Merge is [Overlay] with patches.
func Merge[T any](m *Merger, below, above Decoded[T]) Decoded[T] {
	below.Node = m.overlay(reflect.ValueOf(&below.Value).Elem(), reflect.ValueOf(&above.Value).Elem(), below.Node, above.Node, Of[T]())
	return below
}

// patchable reports whether entries of the type can patch others.
func (t *Type) patchable() bool { return t.Kind == Map && t.byName[PatchKey] != nil }

// idField returns the field that identifies an entry.
func (t *Type) idField() *Field {
	return t.Fields[slices.IndexFunc(t.Fields, func(f *Field) bool { return f.id })]
}

// entry is an entry of a list while texts are merged.
type entry struct {
	value reflect.Value // of a struct
	node  *Node
	text  int    // 0 if it is from a text below
	after string // the id after which the text above puts it
}

// patcher merges a list of one text into that of the texts below.
type patcher struct {
	*Merger
	field   *Field
	elem    reflect.Type
	entries []entry
	below   map[string][]entry // of the texts below, by id
}

func (m *Merger) patch(b, a reflect.Value, below, above *Node, f *Field) *Node {
	p := patcher{Merger: m, field: f, elem: b.Type().Elem()}
	for i := range b.Len() {
		p.entries = append(p.entries, entry{value: b.Index(i), node: below.Index(i)})
	}
	if f.unique && b.Len() > 0 {
		p.below = make(map[string][]entry, b.Len())
		for _, e := range p.entries {
			id := p.identity(e.value)
			p.below[id] = append(p.below[id], e)
		}
	}
	for i := range a.Len() {
		p.add(a.Index(i), above.Index(i))
	}
	out := reflect.MakeSlice(b.Type(), 0, len(p.entries))
	node := *above
	node.elems = nil
	for _, e := range p.entries {
		out = reflect.Append(out, e.value)
		node.elems = append(node.elems, e.node)
	}
	node.invalid = below.Invalid() || above.invalid
	b.Set(out)
	return &node
}

// add adds an entry of the text above, or does to another what it says.
func (p *patcher) add(v reflect.Value, n *Node) {
	t := p.field.Type.Elem
	e := entry{value: reflect.New(v.Type()).Elem(), node: n, text: 1}
	e.value.Set(v)
	if n.Invalid() {
		p.entries = append(p.entries, e)
		return
	}
	patch, before, after := e.take(t, PatchKey), e.take(t, BeforeKey), e.take(t, AfterKey)
	if before != "" && after != "" || patch == PatchDelete && before+after != "" {
		p.errorAt(n, "%s must have only one of %s, %s and %s: %s", p.title(e.value), BeforeKey, AfterKey, PatchKey, PatchDelete)
		return
	}
	if patch == "" {
		if p.repeats(e) {
			return
		}
		p.insert(e, before, after)
		return
	}
	i, ok := p.find(p.identity(e.value), n, PatchKey)
	if !ok {
		return
	}
	delete(p.below, p.identity(e.value))
	switch old := p.entries[i]; patch {
	case PatchDelete:
		p.entries = slices.Delete(p.entries, i, i+1)
		p.delete(p.identity(e.value), n)
		return
	case PatchMerge:
		merged := reflect.New(v.Type()).Elem()
		merged.Set(old.value)
		node := p.overlay(merged, e.value, old.node, e.node, t)
		node.position, node.invalid = n.Position(), old.node.Invalid()
		e = entry{value: merged, node: node, text: 1}
	case PatchReplace:
		for _, f := range t.Fields {
			if f.Required && !e.node.field(f.Name).Set() {
				p.errorAt(n, "%s is missing in %s", f.Name, p.title(e.value))
			}
		}
	}
	if before+after == "" {
		p.entries[i] = e
		return
	}
	p.entries = slices.Delete(p.entries, i, i+1)
	p.insert(e, before, after)
}

// take removes a key from an entry and returns its value.
func (e *entry) take(t *Type, key string) string {
	if !e.node.field(key).Set() {
		return ""
	}
	v := e.value.Field(t.byName[key].index)
	text := v.String()
	v.SetZero()
	n := *e.node
	n.fields = maps.Clone(n.fields)
	delete(n.fields, key)
	e.node = &n
	return text
}

// insert puts an entry before or after another, or at the end. Entries that a
// text puts after the same one keep their order.
func (p *patcher) insert(e entry, before, after string) {
	i := len(p.entries)
	switch {
	case before != "":
		at, ok := p.find(p.clean(before), e.node, BeforeKey)
		if !ok {
			return
		}
		i = at
	case after != "":
		e.after = p.clean(after)
		at, ok := p.find(e.after, e.node, AfterKey)
		if !ok {
			return
		}
		for i = at + 1; i < len(p.entries) && p.entries[i].after == e.after && p.entries[i].text == e.text; i++ {
		}
	}
	p.entries = slices.Insert(p.entries, i, e)
}

// find returns the index of the only entry with an id, for a key of another
// entry.
func (p *patcher) find(id string, n *Node, key string) (index int, ok bool) {
	var found []int
	var ids []string
	for i, e := range p.entries {
		ids = append(ids, p.identity(e.value))
		if ids[i] == id {
			found = append(found, i)
		}
	}
	here := n.Position()
	switch len(found) {
	case 1:
		return found[0], true
	case 0:
		hint := suggest.Among(id, ids)
		if at, ok := p.deleted[p.field.Name+" "+id]; ok {
			hint = ", because it is deleted " + p.Place(at, here)
		}
		p.errorAt(n, "%s refers to %s %s, which does not exist before it%s", key, p.field.noun, Quote(id), hint)
	default:
		var places []string
		for _, i := range found {
			places = append(places, p.Place(p.entries[i].node.Position(), here))
		}
		p.errorAt(n, "%s refers to %s %s, which exists %d times: %s", key, p.field.noun, Quote(id), len(found), strings.Join(places, " and "))
	}
	return 0, false
}

func (p *patcher) delete(id string, n *Node) {
	if p.deleted == nil {
		p.deleted = map[string]Position{}
	}
	p.deleted[p.field.Name+" "+id] = n.Position()
}

// repeats reports whether an entry is the same as one of the texts below.
func (p *patcher) repeats(e entry) bool {
	return slices.ContainsFunc(p.below[p.identity(e.value)], func(other entry) bool {
		return !other.node.Invalid() && bytes.Equal(p.text(other), p.text(e))
	})
}

func (p *patcher) text(e entry) []byte {
	text, err := yaml.Marshal(encode(e.value, e.node, p.field.Type.Elem))
	if err != nil {
		panic(err) // as in Decoded.YAML
	}
	return text
}

// identity returns the id of an entry.
func (p *patcher) identity(v reflect.Value) string {
	return identity(v.Field(p.field.Type.Elem.idField().index))
}

func identity(v reflect.Value) string {
	switch x := v.Addr().Interface().(type) {
	case Identifier:
		return x.Identity()
	case Text:
		return x.String()
	}
	return v.String()
}

// clean returns the id that a reference means.
func (p *patcher) clean(ref string) string {
	v := reflect.New(p.elem.Field(p.field.Type.Elem.idField().index).Type)
	if text, ok := v.Interface().(Text); ok && text.UnmarshalText([]byte(ref)) == nil {
		return identity(v.Elem())
	}
	return ref
}

func (p *patcher) title(v reflect.Value) string {
	return p.field.noun + " " + Quote(p.identity(v))
}

func (m *Merger) errorAt(n *Node, format string, args ...any) {
	m.Report(Finding{Position: n.Position(), Message: fmt.Sprintf(format, args...)})
}
