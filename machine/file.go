package machine

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/slipway-build/slipway/internal/contract"
)

// file is an entry of the files section.
type file struct {
	Path      value[filePath] `yaml:"path,required,id" doc:"Where it is in the machine, with or without the leading slash. Missing directories above it are made, 0755, with its owner." example:"etc/hostname"`
	Directory value[bool]     `yaml:"directory" default:"false" doc:"Whether it is a directory."`
	Symlink   value[string]   `yaml:"symlink" also:"link target" doc:"Target of a symbolic link, taken as it is." example:"/run/config/hostname"`
	Contents  value[string]   `yaml:"contents" also:"content" doc:"Contents of the file. May be empty." example:"box"`
	Source    value[string]   `yaml:"source" doc:"File with the contents, relative to the build context." example:"hostname.txt"`
	Secret    value[string]   `yaml:"secret" doc:"Id of a build secret with the contents. Not known to LinuxKit." example:"ssh_host_key"`
	Metadata  value[string]   `yaml:"metadata" enum:"json yaml sbom" doc:"Makes the contents the description of the whole machine, in this format. sbom: the SPDX document of its software, not known to LinuxKit." example:"json"`
	Optional  value[bool]     `yaml:"optional" default:"false" doc:"Whether a source that does not exist is left out instead of being a mistake."`
	Mode      value[mode]     `yaml:"mode" default:"0600, of a directory 0700" doc:"Permissions, in octal digits." example:"\"0644\""`
	UID       value[id]       `yaml:"uid" also:"user" default:"0" doc:"Owner: a number, or the name of a container." example:"1000"`
	GID       value[id]       `yaml:"gid" also:"group" default:"0" doc:"Group: a number, or the name of a container." example:"1000"`
}

// FileSource is a file of the section files whose contents come from elsewhere.
type FileSource struct {
	Path   string // in the machine, as written
	Source string // as written
	Range  Range  // of the source
}

// Sources gives the files that have a source.
func (m *Machine) Sources() []FileSource {
	var sources []FileSource
	for _, f := range m.Files.V {
		if f.V.Source.V != "" {
			sources = append(sources, FileSource{f.V.Path.V.text, f.V.Source.V, f.V.Source.At})
		}
	}
	return sources
}

// kind is what the entry makes.
func (f *file) kind() string {
	switch {
	case f.Directory.V:
		return "directory"
	case f.Symlink.V != "":
		return "symlink"
	}
	return "file"
}

// filePath is the clean path of a file in the machine, without the leading slash.
type filePath struct{ text, clean string }

func (p *filePath) parse(text string, _ *Field) error {
	p.text, p.clean = text, strings.TrimPrefix(path.Clean("/"+text), "/")
	switch {
	case slices.Contains(strings.Split(text, "/"), ".."):
		return errors.New(`must not contain ".."`)
	case strings.ContainsRune(text, 0):
		return errors.New("must not contain a NUL character")
	case p.clean == "":
		return errors.New("must name something below the root directory")
	}
	return nil
}

func (p *filePath) schema() schemaNode { return schemaNode{"minLength": 1} }

func (p *filePath) String() string { return p.text }

// mode are the permissions of a file or device node.
type mode uint32

const (
	defaultFileMode      mode = 0o600
	defaultDirectoryMode mode = 0o700
)

func (m *mode) parse(text string, _ *Field) error {
	n, err := strconv.ParseUint(strings.TrimPrefix(text, "0o"), 8, 32)
	if err != nil || n > 0o7777 {
		return errors.New(`must be octal digits up to 7777, such as "0644"`)
	}
	*m = mode(n)
	return nil
}

func (m *mode) schema() schemaNode {
	return schemaNode{"type": []string{"string", "integer"}, "pattern": "^(0o)?0*[0-7]{0,4}$"}
}

func (m *mode) portable(number bool) bool { return !number }

func (m *mode) String() string { return fmt.Sprintf("%04o", uint32(*m)) }

// checkFiles finds mistakes in the files section.
func (m *Machine) checkFiles(r *report) {
	kinds := map[string]string{}
	for _, f := range m.Files.V {
		where := "file " + quote(f.V.Path.V.text)
		k := checker{m, r, "", where, Range{}}
		k.id("uid", f.V.UID)
		k.id("gid", f.V.GID)
		if !f.Wrong {
			k.sources(f)
		}
		kinds[f.V.Path.V.clean] = f.V.kind()
	}
	for _, f := range m.Files.V {
		for _, dir := range parents(f.V.Path.V.clean) {
			if kind, ok := kinds[dir]; ok && kind != "directory" {
				r.mistake(f.V.Path.At, "file %s is below %s, which is a %s", quote(f.V.Path.V.text), dir, kind)
			}
		}
	}
}

// sources checks that an entry says in one way what it is.
func (k checker) sources(f value[file]) {
	var given []string
	for _, g := range []struct {
		key   string
		given bool
	}{
		{"directory", f.V.Directory.V},
		{"symlink", f.V.Symlink.V != ""},
		{"contents", f.V.Contents.set() && (f.V.Symlink.V == "" || f.V.Directory.V)}, // a symbolic link wins over contents
		{"source", f.V.Source.V != ""},
		{"secret", f.V.Secret.V != ""},
		{"metadata", f.V.Metadata.V != ""},
	} {
		if g.given {
			given = append(given, g.key)
		}
	}
	switch {
	case len(given) == 0:
		k.wrong(f.At, "%s needs one of contents, source, symlink, directory, metadata or secret", k.where)
	case len(given) > 1:
		k.wrong(f.At, "%s must have only one of %s", k.where, either(given))
	}
}

// parents are the directories above a path, outermost first.
func parents(path string) []string {
	var dirs []string
	for i, c := range path {
		if c == '/' {
			dirs = append(dirs, path[:i])
		}
	}
	return dirs
}

// entries gives the files section, each path once: later entries replace earlier ones.
func (m *Machine) entries() []Entry {
	var out []Entry
	place := map[string]int{}
	for _, f := range m.Files.V {
		e := m.entry(f)
		if i, ok := place[e.Path]; ok {
			out[i] = e
			continue
		}
		place[e.Path] = len(out)
		out = append(out, e)
	}
	return out
}

func (m *Machine) entry(f value[file]) Entry {
	uid, _ := m.number(f.V.UID.V)
	gid, _ := m.number(f.V.GID.V)
	e := Entry{Entry: contract.Entry{Path: f.V.Path.V.clean, UID: uid, GID: gid}, Range: f.At}
	switch f.V.kind() {
	case "directory":
		e.Type, e.Mode = Directory, uint32(f.V.Mode.or(defaultDirectoryMode))
	case "symlink":
		e.Type, e.Mode, e.Link = Symlink, 0o777, f.V.Symlink.V
	default:
		e.Type, e.Mode = File, uint32(f.V.Mode.or(defaultFileMode))
		switch {
		case f.V.Source.V != "":
			e.Source, e.Optional, e.Range = f.V.Source.V, f.V.Optional.V, f.V.Source.At
		case f.V.Secret.V != "":
			e.Secret, e.Range = f.V.Secret.V, f.V.Secret.At
		case f.V.Metadata.V == "sbom":
			e.SBOM, e.Range = true, f.V.Metadata.At
		case f.V.Metadata.V != "":
			e.Contents = m.metadata(f.V.Metadata.V)
		default:
			e.Contents = []byte(f.V.Contents.V)
		}
	}
	return e
}
