package machine

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/slipway-build/slipway/internal/contract"
	"github.com/slipway-build/slipway/internal/schema"
)

// A File is an entry of the files section.
type File struct {
	Path      Path   `yaml:"path" required:"true" id:"true" doc:"Path in the machine, with or without a leading slash. Missing parent directories are created with mode 0755 and the owner of the first entry in them." example:"etc/hostname"`
	Directory bool   `yaml:"directory" default:"false" doc:"Whether the entry is a directory."`
	Symlink   string `yaml:"symlink" also:"link target" doc:"Target of a symbolic link, used as written." example:"/run/config/hostname"`
	Contents  string `yaml:"contents" also:"content" doc:"Contents of the file. May be empty." example:"box"`
	Source    string `yaml:"source" doc:"Path of a file with the contents, relative to the build context." example:"hostname.txt"`
	Secret    string `yaml:"secret" doc:"Id of a build secret with the contents. LinuxKit does not know this key." example:"ssh_host_key"`
	Metadata  string `yaml:"metadata" enum:"json yaml sbom os-release" doc:"Generates the contents. json or yaml: the description of the whole machine in that format. sbom: the SPDX document of its software. os-release: version, build and lock in the form of os-release(5). LinuxKit does not know sbom and os-release." example:"json"`
	Optional  bool   `yaml:"optional" default:"false" doc:"Whether the entry is skipped if its source does not exist."`
	Mode      *Mode  `yaml:"mode" default:"0600, or 0700 for a directory" doc:"Permissions, in octal digits." example:"\"0644\""`
	UID       ID     `yaml:"uid" also:"user" default:"0" doc:"Owner: a number, or the name of a container." example:"1000"`
	GID       ID     `yaml:"gid" also:"group" default:"0" doc:"Group: a number, or the name of a container." example:"1000"`

	Patch  string `yaml:"$patch" enum:"merge replace delete" doc:"What the entry does to the one before it with the same path, usually of an earlier file: changes the keys that it sets, replaces it, or deletes it. Without this key, the entry is a new one." example:"merge"`
	Before string `yaml:"$before" doc:"Puts the entry before the one with this path." example:"etc/hosts"`
	After  string `yaml:"$after" doc:"Puts the entry after the one with this path." example:"etc/hosts"`
}

// A FileSource is an entry of files whose contents are in the build context.
type FileSource struct {
	Path     string // in the machine, as written
	Source   string // as written
	Optional bool   // whether the entry is skipped if the source does not exist
	Range    Range  // of the source
}

// Outside reports whether the source is an absolute path or below the home
// directory, and so outside of the build context.
func (s FileSource) Outside() bool {
	return strings.HasPrefix(s.Source, "/") || strings.HasPrefix(s.Source, "~/")
}

// Sources returns the files that have a source.
func (m *Machine) Sources() []FileSource {
	var sources []FileSource
	for i, f := range m.Files {
		if f.Source != "" {
			sources = append(sources, FileSource{f.Path.Text, f.Source, f.Optional, at(m.node.Key("files").Index(i).Key("source"))})
		}
	}
	return sources
}

// WithoutSources returns the machine for a build in which the given sources, as
// written, do not exist. Its plan skips optional files with these sources, as
// if they were not in the YAML.
func (m *Machine) WithoutSources(missing map[string]bool) *Machine {
	without := *m
	without.missing = missing
	return &without
}

// optional reports whether it depends on the build context if the entry exists.
func (f *File) optional() bool { return f.Optional && f.Source != "" }

// kind says what the entry creates.
func (f *File) kind() string {
	switch {
	case f.Directory:
		return "directory"
	case f.Symlink != "":
		return "symlink"
	}
	return "file"
}

// A Path is the path of a file in the machine.
type Path struct {
	Text  string // as written
	Clean string // shortest form, without a leading slash
}

// UnmarshalText parses a path with or without a leading slash.
func (p *Path) UnmarshalText(text []byte) error {
	p.Text = string(text)
	p.Clean = strings.TrimPrefix(path.Clean("/"+p.Text), "/")
	switch {
	case slices.Contains(strings.Split(p.Text, "/"), ".."):
		return errors.New(`must not contain ".."`)
	case strings.ContainsRune(p.Text, 0):
		return errors.New("must not contain a NUL character")
	case p.Clean == "":
		return errors.New("must not be the root directory")
	case len(p.Clean) > contract.MaxPath:
		return fmt.Errorf("must be at most %d bytes long", contract.MaxPath)
	case slices.ContainsFunc(strings.Split(p.Clean, "/"), func(name string) bool { return len(name) > contract.MaxName }):
		return fmt.Errorf("must not contain a name longer than %d bytes", contract.MaxName)
	}
	return nil
}

// Syntax describes the syntax in words and in JSON Schema.
func (Path) Syntax() (words string, keywords map[string]any) {
	return "", map[string]any{"minLength": 1}
}

// String returns the path as written.
func (p Path) String() string { return p.Text }

// Identity returns the path in its shortest form.
func (p Path) Identity() string { return p.Clean }

// Mode is the permissions of a file or device node, with the setuid, setgid and
// sticky bits of chmod(2).
type Mode uint32

const (
	defaultFileMode      Mode = 0o600
	defaultDirectoryMode Mode = 0o700
)

// UnmarshalText parses octal digits.
func (m *Mode) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(strings.TrimPrefix(string(text), "0o"), 8, 32)
	if err != nil || n > 0o7777 {
		return errors.New(`must be octal digits up to 7777 (for example "0644")`)
	}
	*m = Mode(n)
	return nil
}

// Syntax describes the syntax in words and in JSON Schema.
func (Mode) Syntax() (words string, keywords map[string]any) {
	return "octal digits", map[string]any{"type": []string{"string", "integer"}, "pattern": "^(0o)?0*[0-7]{0,4}$"}
}

// Portable reports whether LinuxKit accepts the mode if it is, or is not,
// written as a number.
func (Mode) Portable(number bool) bool { return !number }

// String returns four octal digits.
func (m Mode) String() string { return fmt.Sprintf("%04o", uint32(m)) }

// or returns the mode, or a default if it is not set.
func (m *Mode) or(other Mode) uint32 {
	if m == nil {
		return uint32(other)
	}
	return uint32(*m)
}

// checkFiles finds errors in the files section.
func (m *Machine) checkFiles(r *report) {
	for i := range m.Files {
		f, node := &m.Files[i], m.node.Key("files").Index(i)
		k := checker{Machine: m, report: r, where: "file " + schema.Quote(f.Path.Text)}
		k.id("uid", f.UID, node.Key("uid"))
		k.id("gid", f.GID, node.Key("gid"))
		if !node.Invalid() {
			k.sources(f, node)
		}
	}
	m.compareFiles(r, func(f *File) bool { return !f.optional() }, func(...*File) bool { return true })
}

// compareFiles finds existing entries of files that contradict each other, as
// far as they are relevant.
func (m *Machine) compareFiles(r *report, exists func(*File) bool, relevant func(...*File) bool) {
	last := map[string]*File{}
	for i := range m.Files {
		f := &m.Files[i]
		if !exists(f) {
			continue
		}
		path := f.Path.Clean
		if before, ok := last[path]; ok && before.kind() != f.kind() && relevant(f, before) {
			r.warn(FileConflict, at(m.node.Key("files").Index(i)), "%s is written as a %s here and as a %s before", path, f.kind(), before.kind())
		}
		last[path] = f
	}
	for i := range m.Files {
		f := &m.Files[i]
		if !exists(f) {
			continue
		}
		for _, dir := range parents(f.Path.Clean) {
			if up, ok := last[dir]; ok && up.kind() != "directory" && relevant(f, up) {
				r.errorAt(at(m.node.Key("files").Index(i).Key("path")), "file %s is below %s, which is a %s", schema.Quote(f.Path.Text), dir, up.kind())
			}
		}
	}
}

// sources checks that an entry says in exactly one way what it is.
func (k checker) sources(f *File, node *schema.Node) {
	var given []string
	for _, g := range []struct {
		key   string
		given bool
	}{
		{"directory", f.Directory},
		{"symlink", f.Symlink != ""},
		// LinuxKit ignores the contents of a symbolic link.
		{"contents", node.Key("contents").Set() && (f.Symlink == "" || f.Directory)},
		{"source", f.Source != ""},
		{"secret", f.Secret != ""},
		{"metadata", f.Metadata != ""},
	} {
		if g.given {
			given = append(given, g.key)
		}
	}
	switch {
	case len(given) == 0:
		k.errorf(node, "%s needs one of contents, source, symlink, directory, metadata or secret", k.where)
	case len(given) > 1:
		k.errorf(node, "%s must have only one of %s", k.where, schema.Either(given))
	}
	if len(f.Symlink) > contract.MaxPath || strings.Contains(f.Symlink, "\x00") {
		k.errorf(node.Key("symlink"), "symlink in %s must be at most %d bytes long, without NUL characters", k.where, contract.MaxPath)
	}
}

// parents returns the directories above a path, outermost first.
func parents(path string) []string {
	var dirs []string
	for i, c := range path {
		if c == '/' {
			dirs = append(dirs, path[:i])
		}
	}
	return dirs
}

// files plans the files section: each path once, because later entries replace
// earlier ones, and the parent directories. A new directory belongs to the owner
// of the first entry in it, as in LinuxKit.
func (p *planner) files() {
	exists := func(f *File) bool { return !f.optional() || !p.missing[f.Source] }
	p.compareFiles(p.report, exists, func(files ...*File) bool {
		return slices.ContainsFunc(files, (*File).optional) // others are checked by Parse
	})
	place := map[string]int{}
	for i := range p.Files {
		if !exists(&p.Files[i]) {
			continue
		}
		e := p.entry(&p.Files[i], p.node.Key("files").Index(i))
		p.written = append(p.written, e)
		if i, ok := place[e.Path]; ok {
			p.plan.Files[i] = e
			continue
		}
		place[e.Path] = len(p.plan.Files)
		p.plan.Files = append(p.plan.Files, e)
	}
}

func (m *Machine) entry(f *File, node *schema.Node) Entry {
	uid, _ := m.number(f.UID)
	gid, _ := m.number(f.GID)
	e := Entry{Entry: contract.Entry{Path: f.Path.Clean, UID: uid, GID: gid}, Range: at(node)}
	switch f.kind() {
	case "directory":
		e.Type, e.Mode = TypeDirectory, f.Mode.or(defaultDirectoryMode)
	case "symlink":
		e.Type, e.Mode, e.Link = TypeSymlink, 0o777, f.Symlink
	default:
		e.Type, e.Mode = TypeFile, f.Mode.or(defaultFileMode)
		switch {
		case f.Source != "":
			e.Source, e.Range = f.Source, at(node.Key("source"))
		case f.Secret != "":
			e.Secret, e.Range = f.Secret, at(node.Key("secret"))
		case f.Metadata == "sbom":
			e.SBOM, e.Range = true, at(node.Key("metadata"))
		case f.Metadata == "os-release":
			e.OSRelease = true
		case f.Metadata != "":
			e.Contents = m.metadata(f.Metadata)
		default:
			e.Contents = []byte(f.Contents)
		}
	}
	return e
}
