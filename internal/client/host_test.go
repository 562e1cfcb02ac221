package client

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tonistiigi/fsutil"
)

// Of the files outside of the build context, BuildKit can read those that the
// machine YAML names, and no others.
func TestHost(t *testing.T) {
	home := t.TempDir()
	for name, text := range map[string]string{
		".ssh/target": "key", ".ssh/id_rsa": "private", "dir/file": "", "a": "", "star*": "",
		"overlay.yml": "files:\n  - {path: d, source: " + home + "/a}\n",
		"machine.yml": "files:\n  - {path: a, source: ~/.ssh/id.pub, optional: true}\n  - {path: b, source: ~/none, optional: true}\n" +
			"  - {path: c, source: ~/dir, optional: true}\n  - {path: e, source: \"~/.ssh/*\", optional: true}\n  - {path: f, source: machine.yml}\n  - {path: g, source: /, optional: true}\n",
		"empty.yml": "files:\n  - {path: a, source: ~/none, optional: true}\n",
		"plain.yml": "files:\n  - {path: a, source: plain.yml}\n",
	} {
		name = filepath.Join(home, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("target", filepath.Join(home, ".ssh/id.pub")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("HOME", home)
	for _, c := range []struct {
		file     string
		contexts map[string]string
		want     []string // nil without a context of the client
	}{
		{file: "machine.yml", want: []string{".ssh/id.pub", ".ssh/target", "a"}},
		{file: "empty.yml", want: []string{}},
		{file: "plain.yml"},
		{file: "none.yml"},
		{file: "machine.yml", contexts: map[string]string{"host": home}},
	} {
		o := Options{File: filepath.Join(home, c.file), Context: home, BuildContexts: c.contexts}
		if c.file == "machine.yml" {
			o.BuildArgs = map[string]string{"OVERLAYS": "overlay.yml"}
		}
		so, err := o.solveOpt()
		if err != nil {
			t.Fatal(err)
		}
		host, ok := so.LocalMounts["context:host"]
		if ok != (c.want != nil || c.contexts != nil) {
			t.Errorf("%s: context passed: %t", c.file, ok)
		}
		if c.want == nil {
			continue
		}
		if got := walk(t, host, home); !slices.Equal(got, c.want) {
			t.Errorf("%s: files %q, want %q", c.file, got, c.want)
		}
		if f, err := host.Open(filepath.Join(home, ".ssh/id_rsa")[1:]); err == nil {
			f.Close()
			t.Errorf("%s: BuildKit can read the private key", c.file)
		}
		if got := so.FrontendAttrs; got["context:host"] != "local:context:host" || got["build-arg:HOME"] != home {
			t.Errorf("%s: attributes %q", c.file, got)
		}
	}
}

// walk returns the files of a filesystem, relative to a folder that holds them
// all.
func walk(t *testing.T, fsys fsutil.FS, folder string) []string {
	t.Helper()
	files := []string{}
	err := fsys.Walk(t.Context(), "", func(name string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			files = append(files, strings.TrimPrefix("/"+name, folder+"/"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
