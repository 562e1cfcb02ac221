package machine

import (
	"fmt"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/slipway-build/slipway/internal/schema"
)

// A Source is one machine YAML.
type Source struct {
	Name string // for diagnostics
	Data []byte // YAML 1.2 in UTF-8, with or without a byte order mark; documents after the first are ignored
}

// Options are what a machine depends on besides its sources.
type Options struct {
	// Args are the values of args by name. Others are ignored.
	Args map[string]string

	// Reserved are the names that args cannot have. It may be nil.
	Reserved ReservedArgs

	// Include reads a file that an include names. The path is relative to the
	// folder of the first source, with slashes and without "..". Ranges refer to
	// the files as if they were sources after the others, in the order of the
	// calls. Without it, includes are errors.
	Include func(path string) (Source, error)
}

// An Include is an entry of include.
type Include struct {
	File string            `yaml:"file" required:"true" id:"true" doc:"Path of the file, relative to this one. It must be in the folder of the first file, or below it." example:"common/base.yml"`
	Args map[string]string `yaml:"args" doc:"Values of args that the file defines. They count in this file only, and only here, so that a file can be included several times." example:"{NAME: web}"`
}

// The limits of includes.
const (
	maxIncludeDepth = 16
	maxIncludes     = 1000
	maxIncludeBytes = 32 << 20 // of all files, each as often as it is included
)

// Parse reads one or several machine YAMLs into one machine.
//
// The lists of several sources are joined in order. A later kernel overrides an
// earlier one key by key, except that an empty image, cmdline or binary keeps
// the earlier one. The error is [Diagnostics] with every error of all sources.
// The machine then holds what could be read; use it only to find further
// errors.
func Parse(sources ...Source) (*Machine, error) { return Options{}.Parse(sources...) }

// Parse is [Parse] with options.
func (o Options) Parse(sources ...Source) (*Machine, error) {
	r := &report{}
	l := &loader{
		report: r,
		args:   &definitions{report: r, Options: o, byName: map[string]*definition{}},
		paths:  map[string]int{},
		loaded: map[string]bool{},
	}
	l.read(sources)
	var all schema.Decoded[Machine]
	merger := &schema.Merger{Report: r.finding, Place: func(there, here schema.Position) string {
		return r.place(Range{there.Source, there.Line, there.Line}, Range{here.Source, here.Line, here.Line})
	}}
	for _, f := range l.files {
		if f.doc == nil {
			continue
		}
		f.doc.Substitute(func(text string, at func(int) schema.Position) (schema.Substitution, bool) {
			return l.args.substitute(text, f.scope, at)
		})
		var one schema.Decoded[Machine]
		one.Node = f.doc.Decode(&one.Value, schema.Of[Machine]())
		all = schema.Merge(merger, all, one)
	}
	m := &all.Value
	m.node, m.names = all.Node, r.names
	for _, key := range []string{"args", "include"} {
		if n := m.node.Key(key); n.Set() {
			r.errorAt(at(n), "%s must be in the file itself, not in a map of a merge key", key)
		}
	}
	for _, name := range l.args.names {
		d := l.args.byName[name]
		m.args = append(m.args, ArgValue{d.Arg, d.value, d.given, d.at})
	}
	m.check(r)
	failed, warnings := r.split()
	if len(failed) > 0 {
		return m, failed
	}
	m.warnings = warnings
	return m, nil
}

// file is a machine YAML at one place in the order of merging.
type file struct {
	doc   *schema.Document // without head; nil if it cannot be read
	head  schema.Decoded[Machine]
	path  string // relative to the folder of the first source
	scope scope
}

// loader reads files with what they include.
type loader struct {
	*report
	args    *definitions
	sources []Source
	paths   map[string]int // index of the source, by path
	files   []*file        // in the order of merging
	loaded  map[string]bool
	count   int // files that were included
	bytes   int // in them
}

// read reads the sources and what they include, and finds the values of the
// args.
func (l *loader) read(sources []Source) {
	l.sources = slices.Clone(sources)
	var given []*file
	for i, s := range sources {
		l.names = append(l.names, s.Name)
		given = append(given, l.parse(i, path.Base(filepath.ToSlash(s.Name))))
	}
	if len(sources) > 0 {
		dir := path.Dir(filepath.ToSlash(sources[0].Name))
		for i, f := range given {
			if rel, err := filepath.Rel(dir, filepath.ToSlash(sources[i].Name)); err == nil {
				f.path = filepath.ToSlash(rel)
			}
		}
	}
	// Paths of includes can use the args of these files.
	early := &definitions{report: &report{}, Options: l.args.Options, byName: map[string]*definition{}}
	for _, f := range given {
		early.define(f.head.Value.Args, f.head.Node.Key("args"))
	}
	early.resolve()
	for _, f := range given {
		l.add(f, early, []string{f.path})
	}
	for _, f := range l.files {
		l.args.define(globals(f))
	}
	l.args.resolve()
	for _, f := range l.files {
		f.scope.global = l.args
	}
}

// globals returns the args of a file that its include does not set.
func globals(f *file) ([]Arg, *schema.Node) {
	args, list := f.head.Value.Args, f.head.Node.Key("args")
	if len(f.scope.local) == 0 {
		return args, list
	}
	var kept []int
	var out []Arg
	for i, a := range args {
		if _, local := f.scope.local[string(a.Name)]; !local {
			kept, out = append(kept, i), append(out, a)
		}
	}
	return out, list.Select(kept)
}

// parse reads a source and decodes its head.
func (l *loader) parse(source int, name string) *file {
	f := &file{path: name}
	doc := l.decoder("the machine YAML", source).Read(l.sources[source].Data)
	if doc == nil {
		return f
	}
	f.doc = doc
	f.head.Node = doc.Take("args", "include").Decode(&f.head.Value, schema.Of[Machine]())
	return f
}

// add adds a file after what it includes. The stack is the paths of the files
// that include each other.
func (l *loader) add(f *file, early *definitions, stack []string) {
	for i := range f.head.Value.Include {
		if node := f.head.Node.Key("include").Index(i); !node.Invalid() {
			l.include(f, &f.head.Value.Include[i], node, early, stack)
		}
	}
	if len(f.head.Value.Args) > 0 {
		l.args.enabled = true
	}
	l.files = append(l.files, f)
}

func (l *loader) include(by *file, in *Include, node *schema.Node, early *definitions, stack []string) {
	place := at(node.Key("file"))
	use := scope{global: early, local: by.scope.local}
	early.report = l.report
	name, ok := l.value(in.File, use, place)
	if !ok {
		return
	}
	target := path.Join(path.Dir(by.path), name)
	switch {
	case l.args.Options.Include == nil:
		l.errorAt(place, "files cannot be included here")
		return
	case path.IsAbs(name) || !filepath.IsLocal(target) || strings.ContainsAny(name, "\x00\\"):
		l.errorAt(place, "include %s must be a relative path of a file in the folder of the first file, or below it", schema.Quote(name))
		return
	case slices.Contains(stack, target):
		l.errorAt(place, "include %s includes itself: %s", schema.Quote(name), strings.Join(append(stack[slices.Index(stack, target):], target), " includes "))
		return
	case len(stack) > maxIncludeDepth:
		l.errorAt(place, "include %s: files may include each other up to %d levels deep", schema.Quote(name), maxIncludeDepth)
		return
	}
	values := map[string]string{}
	for _, key := range slices.Sorted(maps.Keys(in.Args)) {
		value, ok := l.value(in.Args[key], use, at(node.Key("args").Key(key)))
		if !ok {
			return
		}
		values[key] = value
	}
	if identity := fmt.Sprintf("%q %q", target, values); l.loaded[identity] {
		return
	} else {
		l.loaded[identity] = true
	}
	source, ok := l.open(target, name, place)
	if !ok {
		return
	}
	f := l.parse(source, target)
	f.scope.local = l.locals(f, values, node)
	l.add(f, early, append(stack[:len(stack):len(stack)], target))
}

// open reads an included file, once, and returns the index of its source.
func (l *loader) open(target, name string, place Range) (int, bool) {
	source, known := l.paths[target]
	if !known {
		s, err := l.args.Options.Include(target)
		if err != nil {
			l.errorAt(place, "include %s: %v", schema.Quote(name), err)
			return 0, false
		}
		source = len(l.sources)
		l.paths[target] = source
		l.sources, l.names = append(l.sources, s), append(l.names, s.Name)
	}
	l.count++
	l.bytes += len(l.sources[source].Data)
	if l.count > maxIncludes || l.bytes > maxIncludeBytes {
		l.errorAt(place, "include %s: a machine may include at most %d files with %d MB", schema.Quote(name), maxIncludes, maxIncludeBytes>>20)
		return 0, false
	}
	return source, true
}

// value replaces the args in a value of an include.
func (l *loader) value(text string, s scope, place Range) (string, bool) {
	if s.local != nil {
		s.global.enabled = true
	}
	out, changed := s.global.substitute(text, s, func(int) schema.Position {
		return schema.Position{Source: place.Source, Line: place.Start}
	})
	if !changed {
		return text, true
	}
	return out.Text, !out.Unknown
}

// locals returns the args that an include sets.
func (l *loader) locals(f *file, values map[string]string, include *schema.Node) map[string]*definition {
	if len(values) == 0 {
		return nil
	}
	args, list := f.head.Value.Args, f.head.Node.Key("args")
	known := map[string]int{}
	var names []string
	for i, a := range args {
		known[string(a.Name)] = i
		names = append(names, string(a.Name))
	}
	out := map[string]*definition{}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		place := at(include.Key("args").Key(name))
		i, ok := known[name]
		if !ok {
			l.errorAt(place, "%s defines no arg %q%s", f.path, name, l.suggest(name, names))
			continue
		}
		d := &definition{Arg: args[i], at: at(list.Index(i)), node: list.Index(i), resolved: true}
		out[name] = d
		if d.node.Invalid() {
			continue
		}
		l.args.checkDefinition(d)
		l.args.set(d, values[name], "from an include", place)
	}
	return out
}
