package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// frozen are go.mod files whose versions are old on purpose.
var frozen = []string{"hack/oldest/go.mod"}

// goModules returns the pins of Go modules: those that the project imports or
// builds programs of, and Go itself.
func goModules() ([]pin, error) {
	files, err := run(".", "git", "ls-files", "--cached", "--others", "--exclude-standard", "*go.mod")
	if err != nil {
		return nil, err
	}
	var pins []pin
	for _, file := range strings.Fields(files) {
		if slices.Contains(frozen, file) {
			continue
		}
		text, err := run(".", "go", "mod", "edit", "-json", file)
		if err != nil {
			return nil, err
		}
		modules, err := direct(text)
		if err != nil {
			return nil, err
		}
		dir := filepath.Dir(file)
		for _, m := range modules {
			pins = append(pins, module(dir, file, m))
		}
	}
	return append(pins, toolchain()), nil
}

type required struct {
	Path, Version string
	Indirect      bool
}

// direct returns the modules of a go.mod, in the form of go mod edit -json, that
// are required directly or contain its tools.
func direct(text string) ([]required, error) {
	var mod struct {
		Require []required
		Tool    []struct{ Path string }
	}
	if err := json.Unmarshal([]byte(text), &mod); err != nil {
		return nil, err
	}
	var modules []required
	for _, m := range mod.Require {
		tool := false
		for _, t := range mod.Tool {
			tool = tool || t.Path == m.Path || strings.HasPrefix(t.Path, m.Path+"/")
		}
		if tool || !m.Indirect {
			modules = append(modules, m)
		}
	}
	return modules, nil
}

func module(dir, file string, m required) pin {
	p := pin{kind: "go", name: m.Path, file: file, pinned: m.Version}
	p.served, p.err = latest(m.Path, m.Version)
	p.update = func() error {
		if _, err := run(dir, "go", "get", m.Path+"@"+p.served); err != nil {
			return err
		}
		_, err := run(dir, "go", "mod", "tidy")
		return err
	}
	return p
}

// latest returns the newest version of a module, which is the pinned one if that
// is newer than each release.
func latest(path, pinned string) (string, error) {
	return run(os.TempDir(), "go", "list", "-m", "-u", "-f", "{{if .Update}}{{.Update.Version}}{{else}}{{.Version}}{{end}}", path+"@"+pinned)
}

// toolchain is the version of Go in go.mod, within its minor version: a new one
// changes the base image golang.
func toolchain() pin {
	p := pin{kind: "go", name: "go", file: "go.mod"}
	if p.pinned, p.err = run(".", "go", "mod", "edit", "-json"); p.err != nil {
		return p
	}
	var mod struct{ Go string }
	if p.err = json.Unmarshal([]byte(p.pinned), &mod); p.err != nil {
		return p
	}
	p.pinned = mod.Go
	versions, err := run(os.TempDir(), "go", "list", "-m", "-versions", "go")
	p.err = err
	p.served = newestPatch(p.pinned, strings.Fields(versions))
	p.update = func() error {
		_, err := run(".", "go", "mod", "edit", "-go="+p.served)
		return err
	}
	return p
}

// newestPatch returns the last release of the minor version of pinned in a
// sorted list, or pinned.
func newestPatch(pinned string, versions []string) string {
	parts := strings.SplitN(pinned, ".", 3)
	newest := pinned
	for _, v := range versions {
		if len(parts) > 1 && strings.HasPrefix(v, parts[0]+"."+parts[1]+".") && !strings.Contains(v, "rc") {
			newest = v
		}
	}
	return newest
}

// goRun matches programs that scripts run by their module and version.
var goRun = regexp.MustCompile(`go run ([a-z0-9.]+/[\w./-]+)@(v[\w.+-]+)`)

// goPrograms returns the pins of programs that Makefile and hack/lint run with
// go run.
func goPrograms() ([]pin, error) {
	var pins []pin
	for _, file := range []string{"Makefile", "hack/lint"} {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		for _, match := range goRun.FindAllStringSubmatch(string(text), -1) {
			p := pin{kind: "go run", name: match[1], file: file, pinned: match[2]}
			p.served, p.err = latest(moduleOf(match[1]), match[2])
			p.update = func() error { return replace(file, p.name+"@"+p.pinned, p.name+"@"+p.served) }
			pins = append(pins, p)
		}
	}
	return pins, nil
}

// moduleOf returns the module of a command in its folder cmd.
func moduleOf(command string) string {
	module, _, _ := strings.Cut(command, "/cmd/")
	return module
}

// engineModule matches a Docker Engine for tests in hack/engine: its module,
// version, checksum and name.
var engineModule = regexp.MustCompile(`module=\((\S+) (\S+) (\S+) (\S+)\)`)

// engine returns the pins of the Docker Engines for tests, which no go.mod can
// require, because they are main modules.
func engine() ([]pin, error) {
	const file = "hack/engine"
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var pins []pin
	for _, match := range engineModule.FindAllStringSubmatch(string(text), -1) {
		p := pin{kind: "go", name: match[1], file: file, pinned: match[2]}
		p.served, p.err = latest(p.name, p.pinned)
		p.update = func() error {
			out, err := run(os.TempDir(), "go", "mod", "download", "-json", p.name+"@"+p.served)
			if err != nil {
				return err
			}
			var downloaded struct{ Sum string }
			if err := json.Unmarshal([]byte(out), &downloaded); err != nil {
				return err
			}
			name := strings.TrimPrefix(strings.TrimSuffix(p.served, "+incompatible"), "v")
			return replace(file, match[0], "module=("+strings.Join([]string{p.name, p.served, downloaded.Sum, name}, " ")+")")
		}
		pins = append(pins, p)
	}
	if pins == nil {
		return nil, errors.New(file + " has no module")
	}
	return pins, nil
}
