// Package schema decodes YAML into Go structs whose tags are its schema.
//
// One struct type describes a format once: [Of] derives from it what
// [Decoder] accepts, what its error messages suggest, how [Overlay] merges two
// texts, what [Decoded.YAML] writes, and what [JSONSchema] tells an editor.
//
// The structs have plain fields. Where each value stands in the text is kept
// beside them, in a tree of [Node] with the same shape, so that later checks
// can report the line of any value.
//
// The decoder reports every error of a text, not only the first one. It also
// accepts some forms that LinuxKit rejects although their meaning is clear,
// for example a number in quotes, and reports them as lenient findings.
package schema

import (
	"encoding"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"unicode"

	"github.com/slipway-build/slipway/internal/suggest"
)

// A Type describes the values that may stand at one place of a text.
type Type struct {
	Kind   Kind
	Name   string   // of a Map, or of a String that is a [Text]: the Go type in lower camel case
	Words  string   // what a [Text] may be, in words; may be empty
	Elem   *Type    // entries of a List
	Fields []*Field // keys of a Map

	keywords map[string]any // of a Text, in JSON Schema
	byName   map[string]*Field
	also     map[string]string // names by which other tools know a key
	retired  map[string]string // keys that no longer exist, and what to do instead
}

// A Kind is the kind of a [Type].
type Kind string

// The kinds of values.
const (
	String  Kind = "string"
	Integer Kind = "integer"
	Boolean Kind = "boolean"
	List    Kind = "list"
	Map     Kind = "map"  // with the keys in Fields
	Dict    Kind = "dict" // of strings, with any keys
)

// A Field is a key of a [Map]. The tags of a struct field describe it:
//
//	yaml      the key; struct fields without this tag are ignored
//	required  "true" if the key must be set to something that is not empty
//	unless    a key beside which a required key is optional
//	id        "true" if the key names its entry in messages
//	doc       what it does
//	default   the default, in words
//	example   a value, in YAML
//	enum      the words that a string may be; a [Text] also allows its own syntax
//	min, max  the limits of an integer
//	empty     "keep" if an empty string does not replace a value from below
//	merge     how [Overlay] combines two values: "join" appends lists, "keys"
//	          merges maps key by key; without this tag the upper value replaces
//	          the lower one
//	unique    "true" if an entry of the list that repeats one of a text below
//	          counts once
//	noun      what messages call an entry of the list
//	also      names by which other tools know the key, for suggestions
//
// The Go type decides the kind: string or a [Text], bool, any integer, slice,
// map[string]string, struct. A pointer to one of these is nil if the key is
// absent. The method Retired() map[string]string of a struct returns keys that
// no longer exist, with what to do instead.
type Field struct {
	Name      string
	Doc       string
	Default   string
	Example   string
	Enum      []string
	Min, Max  *int64
	Required  bool
	KeepEmpty bool
	Merge     string // Join, Keys or empty
	Type      *Type

	index  int // in the struct
	id     bool
	noun   string
	unless string
	unique bool
}

// The values of [Field.Merge].
const (
	Join = "join"
	Keys = "keys"
)

// A Text is a type that is written as one string with a syntax of its own.
// The errors of UnmarshalText are predicates, for example "must be …".
type Text interface {
	encoding.TextUnmarshaler
	fmt.Stringer
	// Syntax describes the syntax: in words for messages (empty: a string),
	// and as keywords of JSON Schema.
	Syntax() (words string, keywords map[string]any)
}

// A Numeral is a [Text] that YAML may read as a number.
type Numeral interface {
	Text
	// Portable reports whether LinuxKit accepts the value when it is, or is
	// not, written as a number.
	Portable(number bool) bool
}

// A Literal is a [Text] that may be written as any scalar, for example a number
// or a boolean without quotes.
type Literal interface {
	Text
	Literal()
}

// Of returns the schema of texts that are decoded into T, a struct.
// It panics if a tag or a field type is invalid.
func Of[T any]() *Type { return typeOf(reflect.TypeFor[T]()) }

var types sync.Map // reflect.Type of a struct to *Type

func typeOf(t reflect.Type) *Type {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if text, ok := reflect.New(t).Interface().(Text); ok {
		words, keywords := text.Syntax()
		return &Type{Kind: String, Name: lowerCamel(t.Name()), Words: words, keywords: keywords}
	}
	switch {
	case t.Kind() == reflect.String:
		return &Type{Kind: String}
	case t.Kind() == reflect.Bool:
		return &Type{Kind: Boolean}
	case t.Kind() == reflect.Slice:
		return &Type{Kind: List, Elem: typeOf(t.Elem())}
	case t == reflect.TypeFor[map[string]string]():
		return &Type{Kind: Dict}
	case t.Kind() == reflect.Struct:
		return structType(t)
	case reflect.Zero(t).CanInt() || reflect.Zero(t).CanUint():
		return &Type{Kind: Integer}
	}
	panic("schema: no kind for " + t.String())
}

func structType(t reflect.Type) *Type {
	if known, ok := types.Load(t); ok {
		return known.(*Type)
	}
	s := &Type{Kind: Map, Name: lowerCamel(t.Name()), byName: map[string]*Field{}, also: map[string]string{}}
	for i := range t.NumField() {
		tag := t.Field(i).Tag
		if tag.Get("yaml") == "" {
			continue
		}
		f := fieldOf(t.Field(i))
		f.index = i
		s.Fields = append(s.Fields, f)
		s.byName[f.Name] = f
		for _, word := range strings.Fields(tag.Get("also")) {
			s.also[word] = f.Name
		}
	}
	if r, ok := reflect.Zero(t).Interface().(interface{ Retired() map[string]string }); ok {
		s.retired = r.Retired()
	}
	types.Store(t, s)
	return s
}

func fieldOf(s reflect.StructField) *Field {
	return &Field{
		Name:      s.Tag.Get("yaml"),
		Doc:       s.Tag.Get("doc"),
		Default:   s.Tag.Get("default"),
		Example:   s.Tag.Get("example"),
		Enum:      strings.Fields(s.Tag.Get("enum")),
		Min:       bound(s.Tag.Get("min")),
		Max:       bound(s.Tag.Get("max")),
		Required:  s.Tag.Get("required") == "true",
		KeepEmpty: s.Tag.Get("empty") == "keep",
		Merge:     s.Tag.Get("merge"),
		Type:      typeOf(s.Type),
		id:        s.Tag.Get("id") == "true",
		noun:      s.Tag.Get("noun"),
		unless:    s.Tag.Get("unless"),
		unique:    s.Tag.Get("unique") == "true",
	}
}

func bound(text string) *int64 {
	if text == "" {
		return nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		panic("schema: " + err.Error())
	}
	return &n
}

// lowerCamel turns the name of a Go type into one for a reader of the format:
// "BindNS" into "bindNS", "IDMapping" into "idMapping", "CPU" into "cpu".
func lowerCamel(name string) string {
	runes := []rune(name)
	for i, r := range runes {
		if !unicode.IsUpper(r) || i > 0 && i+1 < len(runes) && unicode.IsLower(runes[i+1]) {
			break
		}
		runes[i] = unicode.ToLower(r)
	}
	return string(runes)
}

// WithoutRequired returns a map type without its required keys and those of
// patches.
func (t *Type) WithoutRequired() *Type {
	s := *t
	s.Fields, s.byName = nil, map[string]*Field{}
	for _, f := range t.Fields {
		if !f.Required && !f.patches() {
			s.Fields = append(s.Fields, f)
			s.byName[f.Name] = f
		}
	}
	return &s
}

// names returns the keys of a map, without those of patches.
func (t *Type) names() []string {
	var names []string
	for _, f := range t.Fields {
		if !f.patches() {
			names = append(names, f.Name)
		}
	}
	return names
}

// patches reports whether the key is one of those of patches.
func (f *Field) patches() bool { return strings.HasPrefix(f.Name, "$") }

// shape lists the required keys of a map, or else all its keys, with an
// example.
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
		list = Either(t.names())
		if first := t.Fields[0]; first.Example != "" {
			uses = append(uses, first.Name+": "+first.Example)
		}
	}
	if uses == nil {
		return list
	}
	return list + " (for example {" + strings.Join(uses, ", ") + "})"
}

// begin returns the usual first key of an entry of a list.
func (t *Type) begin() string {
	for _, f := range t.Fields {
		if f.id {
			return f.Name + ": "
		}
	}
	return ""
}

// nearest returns the key that an unknown key may mean, or "".
func (t *Type) nearest(key string) string {
	if name, ok := t.also[key]; ok && t.byName[name] != nil {
		return name
	}
	if strings.HasPrefix(key, "$") && t.patchable() {
		return suggest.Nearest(key, []string{PatchKey, BeforeKey, AfterKey})
	}
	return suggest.Nearest(key, t.names())
}
