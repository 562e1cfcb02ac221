// Package kmod finds kernel modules by name, by alias or by the modalias of a
// device, as modprobe(8) does.
package kmod

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Index is what depmod(8) wrote about the modules of one kernel. The formats are
// those of modules.dep(5) and, for the other files, of kmod's tools/depmod.c.
type Index struct {
	dir      string
	modules  map[string]module
	builtin  map[string]bool
	softdeps map[string]softdep
	exact    map[string][]string // alias without a wildcard
	globs    map[string][]alias  // by the first two bytes of the pattern
	loose    []alias             // patterns with a wildcard in their first two bytes
	nodes    []Node
}

// Node is a device node whose opening makes the kernel load a module.
type Node struct {
	Path         string // below /dev
	Block        bool   // a block device, not a character device
	Major, Minor uint32
}

type module struct {
	file string   // relative to the directory of the index
	deps []string // names, in the order in which they must be loaded
}

type softdep struct{ pre, post []string }

type alias struct{ pattern, module string }

// Open reads the index in dir, usually /lib/modules/VERSION. All files but
// modules.dep are optional.
func Open(dir string) (*Index, error) {
	x, err := Read(func(name string) ([]byte, error) { return os.ReadFile(filepath.Join(dir, name)) })
	if err == nil {
		x.dir = dir
	}
	return x, err
}

// Read reads an index with a function that returns the content of one of its
// files. The index has no directory, so that [Index.Path] returns relative paths.
func Read(file func(name string) ([]byte, error)) (*Index, error) {
	x := &Index{
		modules:  map[string]module{},
		builtin:  map[string]bool{},
		softdeps: map[string]softdep{},
		exact:    map[string][]string{},
		globs:    map[string][]alias{},
	}
	for _, part := range []struct {
		name  string
		parse func(line string)
	}{
		{"modules.dep", x.addModule},
		{"modules.builtin", func(line string) { x.builtin[moduleName(line)] = true }},
		{"modules.alias", x.addAlias},
		{"modules.softdep", x.addSoftdep},
		{"modules.devname", x.addNode},
	} {
		text, err := file(part.name)
		if errors.Is(err, fs.ErrNotExist) && part.name != "modules.dep" {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("index of kernel modules: %w", err)
		}
		for line := range strings.Lines(string(text)) {
			if line = strings.TrimRight(line, "\n"); line != "" && line[0] != '#' {
				part.parse(line)
			}
		}
	}
	return x, nil
}

// addModule parses a line of modules.dep: "FILE: DEPENDENCY…". The dependency to
// load first stands last.
func (x *Index) addModule(line string) {
	file, rest, ok := strings.Cut(line, ":")
	if !ok {
		return
	}
	m := module{file: file}
	for dep := range strings.FieldsSeq(rest) {
		m.deps = append(m.deps, moduleName(dep))
	}
	slices.Reverse(m.deps)
	x.modules[moduleName(file)] = m
}

func (x *Index) addAlias(line string) {
	rest, ok := strings.CutPrefix(line, "alias ")
	if !ok {
		return
	}
	pattern, name, ok := strings.Cut(rest, " ")
	if !ok {
		return
	}
	name = Normalize(name)
	switch wild := strings.IndexAny(pattern, "*?[\\"); {
	case wild < 0:
		pattern = Normalize(pattern)
		x.exact[pattern] = append(x.exact[pattern], name)
	case wild < 2:
		x.loose = append(x.loose, alias{pattern, name})
	default:
		x.globs[pattern[:2]] = append(x.globs[pattern[:2]], alias{pattern, name})
	}
}

// addSoftdep parses a line of modules.softdep: "softdep MODULE pre: NAME… post:
// NAME…". Names before the first keyword have no effect, as in kmod.
func (x *Index) addSoftdep(line string) {
	words := strings.Fields(line)
	if len(words) < 2 || words[0] != "softdep" {
		return
	}
	name := Normalize(words[1])
	dep := x.softdeps[name]
	var list *[]string
	for _, word := range words[2:] {
		switch word {
		case "pre:":
			list = &dep.pre
		case "post:":
			list = &dep.post
		default:
			if list != nil {
				*list = append(*list, word)
			}
		}
	}
	x.softdeps[name] = dep
}

// addNode parses a line of modules.devname: "MODULE PATH TYPEMAJOR:MINOR", where
// TYPE is b or c.
func (x *Index) addNode(line string) {
	words := strings.Fields(line)
	if len(words) != 3 || !filepath.IsLocal(words[1]) {
		return
	}
	var kind rune
	n := Node{Path: words[1]}
	if _, err := fmt.Sscanf(words[2], "%c%d:%d", &kind, &n.Major, &n.Minor); err == nil {
		n.Block = kind == 'b'
		x.nodes = append(x.nodes, n)
	}
}

// Resolve returns the modules that name stands for: the name of a module, an
// alias, or the modalias of a device. It returns nil for a name that is unknown or
// built into the kernel.
func (x *Index) Resolve(name string) []string {
	plain := Normalize(name)
	if _, ok := x.modules[plain]; ok {
		return []string{plain}
	}
	found := slices.Clone(x.exact[plain])
	add := func(aliases []alias) {
		for _, a := range aliases {
			if match(a.pattern, name) && !slices.Contains(found, a.module) {
				found = append(found, a.module)
			}
		}
	}
	if len(name) >= 2 {
		add(x.globs[name[:2]])
	}
	add(x.loose)
	return found
}

// Files returns the files of the modules that the names stand for, and of their
// dependencies, in the order of loading and relative to the directory of the
// index. Unknown names are ignored.
func (x *Index) Files(names ...string) []string {
	var files []string
	seen := map[string]bool{}
	for _, name := range names {
		for _, resolved := range x.Resolve(name) {
			for _, module := range x.Order(resolved) {
				if !seen[module] {
					seen[module] = true
					files = append(files, x.modules[module].file)
				}
			}
		}
	}
	return files
}

// Order returns a module and its dependencies in the order of loading. It returns
// nil for an unknown module.
func (x *Index) Order(module string) []string {
	var steps []string
	seen := map[string]bool{}
	var visit func(name string)
	soft := func(names []string) {
		for _, alias := range names {
			for _, name := range x.Resolve(alias) {
				visit(name)
			}
		}
	}
	visit = func(name string) {
		m, ok := x.modules[name]
		if !ok || seen[name] {
			return
		}
		seen[name] = true
		soft(x.softdeps[name].pre)
		for _, dep := range m.deps {
			visit(dep)
		}
		steps = append(steps, name)
		soft(x.softdeps[name].post)
	}
	visit(module)
	return steps
}

// Path returns the path of the file of a module.
func (x *Index) Path(module string) string {
	return filepath.Join(x.dir, x.modules[module].file)
}

// Nodes returns the device nodes whose opening makes the kernel load a module.
func (x *Index) Nodes() []Node { return x.nodes }

// Builtin reports whether the module is built into the kernel.
func (x *Index) Builtin(name string) bool { return x.builtin[Normalize(name)] }

// moduleName returns the name of the module in a file: "kernel/net/nf-x.ko.xz" is
// "nf_x".
func moduleName(file string) string {
	name, _, _ := strings.Cut(filepath.Base(file), ".ko")
	return Normalize(name)
}

// Normalize returns the name of a module as the kernel knows it: with "_" for each
// "-".
func Normalize(name string) string { return strings.ReplaceAll(name, "-", "_") }

// match reports whether a text matches a pattern with the wildcards of fnmatch(3)
// without flags: *, ?, [a-z], [!a-z] and \ for a literal character.
func match(pattern, text string) bool {
	for pattern != "" {
		switch pattern[0] {
		case '*':
			pattern = strings.TrimLeft(pattern, "*")
			if pattern == "" {
				return true
			}
			for i := range len(text) {
				if match(pattern, text[i:]) {
					return true
				}
			}
			return false
		case '?':
			if text == "" {
				return false
			}
			pattern, text = pattern[1:], text[1:]
		case '[':
			if text == "" {
				return false
			}
			end, ok := matchClass(pattern, text[0])
			if !ok {
				return false
			}
			pattern, text = pattern[end:], text[1:]
		default:
			if pattern[0] == '\\' && len(pattern) > 1 {
				pattern = pattern[1:]
			}
			if text == "" || pattern[0] != text[0] {
				return false
			}
			pattern, text = pattern[1:], text[1:]
		}
	}
	return text == ""
}

// matchClass matches one byte with the bracket expression at the start of pattern
// and returns the length of the expression. Without a closing bracket the opening
// one is literal.
func matchClass(pattern string, c byte) (end int, ok bool) {
	i := 1
	negated := i < len(pattern) && (pattern[i] == '!' || pattern[i] == '^')
	if negated {
		i++
	}
	found := false
	for first := true; i < len(pattern); first = false {
		if pattern[i] == ']' && !first {
			return i + 1, found != negated
		}
		low, high := pattern[i], pattern[i]
		i++
		if i+1 < len(pattern) && pattern[i] == '-' && pattern[i+1] != ']' {
			high = pattern[i+1]
			i += 2
		}
		found = found || low <= c && c <= high
	}
	return 1, c == '['
}
