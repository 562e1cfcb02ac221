package machine

import (
	"reflect"
	"strconv"
	"strings"
	"sync"
)

// Type says what may stand at a place of a machine YAML.
type Type struct {
	Kind   Kind
	Name   string   // of a map with fields, such as "container", or of a text with a grammar, such as "bind"
	Expect string   // what it may be, in words, where Kind does not say it
	Elem   *Type    // entries of a list
	Fields []*Field // keys of a map that is not free

	grammar schemaNode // of a text
	byName  map[string]*Field
	also    map[string]string // names by which other tools know a key
}

// Kind is the kind of a [Type].
type Kind string

// The kinds of values.
const (
	Text    Kind = "text"
	Number  Kind = "number" // whole
	Boolean Kind = "boolean"
	List    Kind = "list"
	Map     Kind = "map"  // of the keys in Fields
	Dict    Kind = "dict" // of texts, with any keys
)

// Field is a key of the machine YAML. It is described by the tags of a field of the model:
//
//	yaml     the key; then "required" where it must be written and not be empty, and "id" where it names its entry
//	doc      what it does
//	default  what holds when it is not written
//	example  a value, in YAML
//	enum     the words that it may be
//	min, max the numbers that it may be
//	empty    "keep" where an empty text is as good as none when a label or an earlier source has one
//	merge    what happens when a label or an earlier source has the key too: "join" the lists, or merge the map by its "keys";
//	         else the YAML, or the later source, replaces it
//	noun     what diagnostics call an entry of the list
//	also     names by which other tools know it, for suggestions
type Field struct {
	Name      string
	Doc       string
	Default   string
	Example   string
	Enum      []string
	Min, Max  *int64
	Required  bool
	KeepEmpty bool
	Merge     string // Join, Keys or nothing
	Type      *Type

	index int
	id    bool
	noun  string
}

// What happens to a key that a label or an earlier source has too, where the later one does not replace it.
const (
	Join = "join" // the lists are joined
	Keys = "keys" // the maps are merged key by key
)

// Schema describes the whole machine YAML, for reference pages and editors.
func Schema() *Type { return schema() }

// ContainerSchema describes an entry of onboot, onshutdown and services, and with it the label org.mobyproject.config.
func ContainerSchema() *Type { return schemaOf(reflect.TypeFor[container]()) }

var schema = sync.OnceValue(func() *Type { return schemaOf(reflect.TypeFor[model]()) })

var types sync.Map // reflect.Type of a struct to *Type

// schemaOf describes what the decoder reads into a Go type.
func schemaOf(t reflect.Type) *Type {
	if text, ok := reflect.New(t).Interface().(textual); ok {
		return &Type{Kind: Text, Name: t.Name(), Expect: expected[t.Name()], grammar: text.schema()}
	}
	switch t.Kind() {
	case reflect.String:
		return &Type{Kind: Text}
	case reflect.Bool:
		return &Type{Kind: Boolean}
	case reflect.Slice:
		return &Type{Kind: List, Elem: schemaOf(written(t.Elem()))}
	case reflect.Map:
		return &Type{Kind: Dict}
	case reflect.Struct:
		return schemaOfStruct(t)
	}
	return &Type{Kind: Number}
}

// written is the T of a value[T].
func written(t reflect.Type) reflect.Type { return t.Field(0).Type }

func schemaOfStruct(t reflect.Type) *Type {
	if known, ok := types.Load(t); ok {
		return known.(*Type)
	}
	s := &Type{Kind: Map, Name: t.Name(), byName: map[string]*Field{}, also: map[string]string{}}
	for i := range t.NumField() {
		f := fieldOf(t.Field(i), i)
		s.Fields = append(s.Fields, f)
		s.byName[f.Name] = f
		for _, word := range strings.Fields(t.Field(i).Tag.Get("also")) {
			s.also[word] = f.Name
		}
	}
	types.Store(t, s)
	return s
}

func fieldOf(s reflect.StructField, index int) *Field {
	key := strings.Split(s.Tag.Get("yaml"), ",")
	f := &Field{
		Name:      key[0],
		Doc:       s.Tag.Get("doc"),
		Default:   s.Tag.Get("default"),
		Example:   s.Tag.Get("example"),
		Enum:      strings.Fields(s.Tag.Get("enum")),
		Min:       bound(s.Tag.Get("min")),
		Max:       bound(s.Tag.Get("max")),
		Type:      schemaOf(written(s.Type)),
		index:     index,
		KeepEmpty: s.Tag.Get("empty") == "keep",
		Merge:     s.Tag.Get("merge"),
		noun:      s.Tag.Get("noun"),
	}
	for _, word := range key[1:] {
		f.Required = f.Required || word == "required"
		f.id = f.id || word == "id"
	}
	return f
}

func bound(text string) *int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return nil
	}
	return &n
}

// names are the keys of a map.
func (t *Type) names() []string {
	var names []string
	for _, f := range t.Fields {
		names = append(names, f.Name)
	}
	return names
}

// shape lists the keys that a map must have, or else those that it may have, and shows some in use.
func (t *Type) shape() string {
	var names, uses []string
	for _, f := range t.Fields {
		if f.Required {
			names = append(names, f.Name)
			uses = append(uses, f.Name+": "+f.Example)
		}
	}
	list := strings.Join(names, " and ")
	if names == nil {
		list = either(t.names())
		if first := t.Fields[0]; first.Example != "" {
			uses = append(uses, first.Name+": "+first.Example)
		}
	}
	if uses == nil {
		return list
	}
	return list + ", such as {" + strings.Join(uses, ", ") + "}"
}

// begin is how an entry of a list usually begins: with the key that names it.
func (t *Type) begin() string {
	for _, f := range t.Fields {
		if f.id {
			return f.Name + ": "
		}
	}
	return ""
}

// nearest gives the key that one that is none may mean, or nothing.
func (t *Type) nearest(key string) string {
	if name, ok := t.also[key]; ok {
		return name
	}
	return nearest(key, t.names())
}

// expected says what texts may be that YAML may also take for numbers.
var expected = map[string]string{"id": "a number or the name of a container", "mode": "octal digits"}
