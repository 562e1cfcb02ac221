package machine

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/docker/go-units"

	"github.com/slipway-build/slipway/internal/schema"
)

// An Arg is an entry of args: a value that whoever builds the machine can set.
type Arg struct {
	Name        ArgName  `yaml:"name" required:"true" id:"true" doc:"Name: letters, digits and underscores. Names of build options are reserved." example:"CONSOLE"`
	Type        string   `yaml:"type" enum:"string int bool size image enum pattern" default:"enum beside values, pattern beside pattern, otherwise string" doc:"What the value must be: any text; a decimal integer; true or false; a number of bytes with an optional unit (K, M, G, T); an image; one of values; a text that pattern matches." example:"int"`
	Default     *Literal `yaml:"default" doc:"Value if the build sets none. May use args that are defined before." example:"ttyS0"`
	Required    bool     `yaml:"required" default:"false" doc:"Whether the build must set a value, which must not be empty."`
	Description string   `yaml:"description" doc:"What the value is for." example:"serial console of the kernel"`
	Values      []string `yaml:"values" doc:"The possible values, for the type enum." example:"[debug, release]"`
	Pattern     string   `yaml:"pattern" doc:"Regular expression (RE2) that must match the whole value, for the type pattern." example:"\"[a-z][a-z0-9-]*\""`
}

// The types of args.
const (
	argString  = "string"
	argInt     = "int"
	argBool    = "bool"
	argSize    = "size"
	argImage   = "image"
	argEnum    = "enum"
	argPattern = "pattern"
)

// An ArgName is the name of an arg.
type ArgName string

var argName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,63}$`)

// UnmarshalText parses a name.
func (n *ArgName) UnmarshalText(text []byte) error {
	if !argName.Match(text) {
		return errors.New("must be up to 64 letters, digits and underscores, and not start with a digit")
	}
	*n = ArgName(text)
	return nil
}

// Syntax describes the syntax in words and in JSON Schema.
func (ArgName) Syntax() (words string, keywords map[string]any) {
	return "", map[string]any{"pattern": argName.String()}
}

// String returns the name.
func (n ArgName) String() string { return string(n) }

// A Literal is a value that may be written without quotes.
type Literal string

// UnmarshalText accepts any text.
func (l *Literal) UnmarshalText(text []byte) error {
	*l = Literal(text)
	return nil
}

// Syntax describes the syntax in words and in JSON Schema.
func (Literal) Syntax() (words string, keywords map[string]any) {
	return "a string, a number, true or false", map[string]any{"type": []string{"string", "number", "boolean"}}
}

// String returns the value.
func (l Literal) String() string { return string(l) }

// Literal allows numbers and booleans.
func (Literal) Literal() {}

// The limits of args.
const (
	maxArgValue = 64 << 10 // bytes
	maxExpanded = 16 << 20 // bytes that substitution adds to one machine
)

// An ArgValue is an arg with its value in one machine.
type ArgValue struct {
	Arg
	Value string
	Given bool  // by the build, so that it does not come from the default
	Range Range // of the definition
}

// ArgValues returns the args of the machine in the order in which they are
// defined, except those that includes set.
func (m *Machine) ArgValues() []ArgValue { return m.args }

// Kind returns the type of the value: string, int, bool, size, image, enum or
// pattern.
func (a *Arg) Kind() string {
	switch {
	case a.Type != "":
		return a.Type
	case len(a.Values) > 0:
		return argEnum
	case a.Pattern != "":
		return argPattern
	}
	return argString
}

// check returns an error unless the value is of the type of the arg.
func (a *Arg) check(value string) error {
	switch {
	case !utf8.ValidString(value) || strings.ContainsRune(value, 0):
		return errors.New("must be UTF-8 without NUL characters")
	case len(value) > maxArgValue:
		return fmt.Errorf("must be at most %d bytes long", maxArgValue)
	}
	switch a.Kind() {
	case argInt:
		if n, err := strconv.ParseInt(value, 10, 64); err != nil || strconv.FormatInt(n, 10) != value {
			return errors.New("must be a decimal integer without leading zeros (for a mode, use type: string)")
		}
	case argBool:
		if value != "true" && value != "false" {
			return errors.New("must be true or false")
		}
	case argSize:
		if _, err := sizeOf(value); err != nil {
			return err
		}
	case argImage:
		return new(Reference).UnmarshalText([]byte(value))
	case argEnum:
		if len(a.Values) > 0 && !slices.Contains(a.Values, value) {
			return fmt.Errorf("must be %s", schema.Either(a.Values))
		}
	case argPattern:
		if !a.regexp().MatchString(value) {
			return fmt.Errorf("must match the pattern %s", a.Pattern)
		}
	}
	return nil
}

// regexp returns the pattern for whole values. Without a valid pattern, it
// matches everything.
func (a *Arg) regexp() *regexp.Regexp {
	if compiled, err := regexp.Compile(`\A(?:` + a.Pattern + `)\z`); err == nil {
		return compiled
	}
	return regexp.MustCompile("")
}

var sizePattern = regexp.MustCompile(`^[0-9]+([KMGT](iB|B)?)?$`)

// sizeOf returns a size in bytes. Units are powers of 1024.
func sizeOf(value string) (int64, error) {
	n, err := units.RAMInBytes(value)
	if err != nil || n < 0 || !sizePattern.MatchString(value) {
		return 0, errors.New("must be a number of bytes with an optional unit (for example 100M)")
	}
	return n, nil
}

// ReservedArgs reports whether args cannot have a name, because a build argument
// of this name already has a meaning.
type ReservedArgs func(name string) bool

// definition is a merged definition of an arg.
type definition struct {
	Arg

	at    Range
	node  *schema.Node
	value string
	given bool
	known bool // whether value is set
	note  string

	resolved bool // whether everything that could set the value is done
}

// scope is the args that a file can use: those of the machine, and those that
// its include sets.
type scope struct {
	global *definitions
	local  map[string]*definition
}

func (s scope) lookup(name string) *definition {
	if d, ok := s.local[name]; ok {
		return d
	}
	return s.global.byName[name]
}

func (s scope) names() []string {
	names := slices.Clone(s.global.names)
	for name := range s.local {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// definitions are the args of a machine.
type definitions struct {
	*report
	Options

	byName   map[string]*definition
	names    []string // in the order of their definition
	expanded int      // bytes that substitution added
	enabled  bool     // whether any file has args
}

// define adds the args of a file. Those of a later file change those of an
// earlier one key by key, except the type.
func (ds *definitions) define(args []Arg, list *schema.Node) {
	seen := map[string]Range{}
	for i := range args {
		node := list.Index(i)
		d := &definition{Arg: args[i], at: at(node), node: node}
		name := string(d.Name)
		if node.Invalid() || name == "" {
			ds.enabled = true
			if name != "" && ds.byName[name] == nil {
				ds.byName[name] = d
				ds.names = append(ds.names, name)
			}
			continue
		}
		ds.enabled = true
		unique(ds.report, seen, "arg", name, at(node.Key("name")))
		ds.checkDefinition(d)
		if below, ok := ds.byName[name]; ok {
			ds.merge(below, d)
			continue
		}
		ds.byName[name] = d
		ds.names = append(ds.names, name)
	}
}

// checkDefinition reports what is wrong with a definition alone.
func (ds *definitions) checkDefinition(d *definition) {
	where := "arg " + schema.Quote(string(d.Name))
	if ds.Reserved != nil && ds.Reserved(string(d.Name)) {
		ds.errorAt(at(d.node.Key("name")), "%s has the name of a build option: choose another name", where)
	}
	if _, err := regexp.Compile(d.Pattern); err != nil {
		ds.errorAt(at(d.node.Key("pattern")), "pattern in %s is not a regular expression: %v", where, err)
	}
	for _, k := range []struct {
		key, kind string
		set       bool
	}{{"values", argEnum, len(d.Values) > 0}, {"pattern", argPattern, d.Pattern != ""}} {
		switch {
		case k.set && d.Kind() != k.kind:
			ds.errorAt(at(d.node.Key(k.key)), "%s in %s needs type: %s", k.key, where, k.kind)
		case !k.set && d.Kind() == k.kind:
			ds.errorAt(d.at, "%s has type %s and needs %s", where, k.kind, k.key)
		}
	}
	if looksSecret.MatchString(string(d.Name)) {
		ds.warn(SecretArg, d.at, "%s seems to be a secret: build arguments are recorded in the provenance and in caches, use a file with the key secret", where)
	}
}

var looksSecret = regexp.MustCompile(`(?i)(^|_)(api_?key|password|passwd|pword|secret|token|credentials?|private_?key)s?($|_)`)

// merge changes a definition as a later file says.
func (ds *definitions) merge(below, above *definition) {
	if above.node.Key("type").Set() && above.Kind() != below.Kind() {
		ds.errorAt(at(above.node.Key("type")), "arg %q has type %s here and type %s %s", string(above.Name), above.Kind(), below.Kind(), ds.place(below.at, above.at))
		return
	}
	merged := schema.Overlay(schema.Decoded[Arg]{Value: below.Arg, Node: below.node}, schema.Decoded[Arg]{Value: above.Arg, Node: above.node})
	below.Arg, below.node = merged.Value, merged.Node
}

// place returns where something is, seen from another place.
func (r *report) place(there, here Range) string {
	text := fmt.Sprintf("on line %d", there.Start)
	if there.Source != here.Source && there.Source < len(r.names) {
		text += " of " + r.names[there.Source]
	}
	return text
}

// resolve sets the values of all args.
func (ds *definitions) resolve() {
	for _, name := range ds.names {
		d := ds.byName[name]
		d.resolved = true
		if d.node.Invalid() {
			continue
		}
		value, given := ds.Args[name]
		switch {
		case given:
			ds.set(d, value, "from the build argument", d.at)
			d.given = true
		case d.Default != nil && !d.Required:
			place := at(d.node.Key("default"))
			s, ok := ds.substitute(string(*d.Default), scope{global: ds}, func(int) schema.Position {
				return schema.Position{Source: place.Source, Line: place.Start}
			})
			if ok && s.Unknown {
				continue
			}
			if !ok {
				s.Text = string(*d.Default)
			}
			ds.set(d, s.Text, "the default", place)
		case d.Required:
			text := fmt.Sprintf("arg %q is required: set it with --build-arg %s=VALUE", name, name)
			if d.Description != "" {
				text += " (" + d.Description + ")"
			}
			ds.errorAt(d.at, "%s", text)
		case d.Kind() != argString:
			ds.errorAt(d.at, "arg %q has type %s and needs a default, or required: true", name, d.Kind())
		default:
			ds.set(d, "", "the default", d.at)
		}
	}
}

// set sets the value of an arg. The origin is where the value comes from, for
// messages.
func (ds *definitions) set(d *definition, value, origin string, place Range) {
	name := string(d.Name)
	err := d.check(value)
	if err == nil && value == "" && d.Required {
		err = errors.New("must not be empty")
	}
	if err != nil {
		text := fmt.Sprintf("arg %q is %s, %s, and %v", name, schema.Quote(value), origin, err)
		if place.Source != d.at.Source {
			text += ", as defined " + ds.place(d.at, place)
		}
		ds.errorAt(place, "%s", text)
		return
	}
	d.value, d.known = value, true
	d.note = fmt.Sprintf("; ${%s} is %s, %s", name, schema.Quote(value), origin)
}

// substitute replaces the args in a text. It reports false if there is nothing
// to replace.
func (ds *definitions) substitute(text string, s scope, place func(offset int) schema.Position) (out schema.Substitution, changed bool) {
	if !ds.enabled || !strings.Contains(text, "${") {
		return out, false
	}
	var b strings.Builder
	var used []*definition
	fail := func(offset int, format string, args ...any) {
		p := place(offset)
		ds.errorAt(Range{p.Source, p.Line, p.Line}, format, args...)
		out.Unknown = true
	}
	rest, offset := text, 0
	for {
		i := strings.Index(rest, "${")
		if i < 0 {
			b.WriteString(rest)
			break
		}
		if i > 0 && rest[i-1] == '$' { // $${ is a literal ${
			b.WriteString(rest[:i-1] + "${")
			rest, offset = rest[i+2:], offset+i+2
			continue
		}
		b.WriteString(rest[:i])
		start := offset + i
		body, after, closed := strings.Cut(rest[i+2:], "}")
		d := s.lookup(body)
		switch {
		case !closed:
			fail(start, "${ is not closed: write $${ for the text ${")
			return out, true
		case !argName.MatchString(body):
			fail(start, "%s is not supported: write ${NAME} and give the arg a default, or write $${ for the text ${", schema.Quote("${"+body+"}"))
		case d == nil:
			fail(start, "arg %q is not defined%s: add it to args, or write $${%s} for the text ${%s}", body, ds.suggest(body, s.names()), body, body)
		case !d.resolved:
			fail(start, "arg %q is defined later: a default can use the args before it", body)
		case !d.known:
			out.Unknown = true // reported at the definition
		default:
			if len(used) == 0 || !slices.Contains(used, d) {
				used = append(used, d)
				out.Note += d.note + d.defined(ds.report, place(start))
			}
			b.WriteString(d.value)
			if ds.expanded += len(d.value); ds.expanded > maxExpanded {
				fail(start, "the args expand to more than %d bytes", maxExpanded)
				return out, true
			}
		}
		offset += i + 2 + len(body) + 1
		rest = after
	}
	out.Text = b.String()
	if len(used) == 1 && text == "${"+string(used[0].Name)+"}" {
		switch d := used[0]; d.Kind() {
		case argInt:
			out.Kind = schema.Integer
		case argBool:
			out.Kind = schema.Boolean
		case argSize:
			n, _ := sizeOf(d.value)
			out.Number = strconv.FormatInt(n, 10)
		}
	}
	return out, true
}

// defined returns where an arg is defined, seen from where it is used.
func (d *definition) defined(r *report, use schema.Position) string {
	return ", defined " + r.place(d.at, Range{Source: use.Source, Start: use.Line})
}
