package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTree(t *testing.T) {
	nodes, err := parseTree([]byte(` {
		"ssh": {"entries": {"authorized_keys": {"content": "ssh-ed25519 AAAA x\n", "perm": "0600"}}, "perm": "700"},
		"app": {"entries": {"conf.d": {"entries": {}}, "a.conf": {"content": ""}}, "comment": "ignored"},
		"zz":  {"content": "é", "entries": null, "perm": null}
	}`))
	if err != nil {
		t.Fatal(err)
	}
	want := []node{
		{path: "app", directory: true, mode: 0o755},
		{path: "app/a.conf", mode: 0o644},
		{path: "app/conf.d", directory: true, mode: 0o755},
		{path: "ssh", directory: true, mode: 0o700},
		{path: "ssh/authorized_keys", content: "ssh-ed25519 AAAA x\n", mode: 0o600},
		{path: "zz", content: "é", mode: 0o644},
	}
	if diff := cmp.Diff(want, nodes, cmp.AllowUnexported(node{})); diff != "" {
		t.Errorf("nodes (-want +got):\n%s", diff)
	}
}

func TestTreeIsNone(t *testing.T) {
	for _, userData := range []string{"", " \n", "#cloud-config\n", "#!/bin/sh\n", `{"a": {"content": "x"}`, "{{ template }}", "[1]", `"x"`, "null", "\x1f\x8b\x08"} {
		if nodes, err := parseTree([]byte(userData)); !errors.Is(err, errNoTree) {
			t.Errorf("%q: nodes %v, error %v, want %v", userData, nodes, err, errNoTree)
		}
	}
}

func TestTreeRefused(t *testing.T) {
	tests := []struct{ userData, want string }{
		{`{"..": {"content": "x"}}`, `entry "/..": not a file name`},
		{`{"a": {"entries": {"..": {"entries": {"b": {"content": "x"}}}}}}`, `entry "a/..": not a file name`},
		{`{".": {"entries": {}}}`, `entry "/.": not a file name`},
		{`{"": {"content": "x"}}`, `entry "/": not a file name`},
		{`{"../etc/passwd": {"content": "x"}}`, `entry "/../etc/passwd": the name contains /`},
		{`{"a/b": {"content": "x"}}`, `use entries for directories`},
		{`{"a\u0000": {"content": "x"}}`, `zero byte`},
		{`{".metadata-partial": {"content": "x"}}`, `reserved`},
		{`{"a": {}}`, `entry "/a": must be an object with either "content", a string, or "entries", an object`},
		{`{"a": {"content": "x", "entries": {}}}`, `either "content"`},
		{`{"a": {"content": 1}}`, `either "content"`},
		{`{"a": null}`, `either "content"`},
		{`{"ignition": {"version": "3.0.0"}}`, `entry "/ignition"`},
		{`{"a": {"content": "x", "perm": "rw"}}`, `entry "/a": "perm" is rw: must be an octal mode up to 0777 as a string, for example "0644"`},
		{`{"a": {"content": "x", "perm": 644}}`, `"perm" is 644`},
		{`{"a": {"content": "x", "perm": "4755"}}`, `"perm" is 4755`},
		{`{"a": {"content": "x", "perm": "-1"}}`, `"perm" is -1`},
	}
	for _, test := range tests {
		nodes, err := parseTree([]byte(test.userData))
		if nodes != nil || err == nil || errors.Is(err, errNoTree) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: nodes %v, error %v, want one with %q", test.userData, nodes, err, test.want)
		}
	}
}

// FuzzTree writes the tree in arbitrary user data and looks for changes outside
// the directory.
func FuzzTree(f *testing.F) {
	for _, seed := range []string{
		`{"ssh": {"entries": {"authorized_keys": {"content": "k", "perm": "0600"}}}}`,
		`{"../x": {"content": "x"}}`,
		`{"a": {"entries": {"..": {"entries": {"x": {"content": "x"}}}}}}`,
		`{"a\u0000b": {"content": "x"}, "out": {"entries": {"x": {"content": "x"}}}}`,
		"#cloud-config",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, userData []byte) {
		nodes, err := parseTree(userData)
		if err != nil {
			return
		}
		outer := t.TempDir()
		dir := filepath.Join(outer, "config")
		c, err := openConfig(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer c.close()
		for _, n := range nodes {
			if !filepath.IsLocal(n.path) || filepath.Clean(n.path) != n.path {
				t.Fatalf("path %q", n.path)
			}
			if err := c.writeNode(n); err != nil {
				continue // the name is too long for the filesystem
			}
			info, err := os.Lstat(filepath.Join(dir, n.path))
			if err != nil {
				t.Fatal(err)
			}
			if info.IsDir() != n.directory || info.Mode().Perm() != n.mode {
				t.Fatalf("%q: %v, want directory %t with mode %o", n.path, info.Mode(), n.directory, n.mode)
			}
		}
		entries, err := os.ReadDir(outer)
		if err != nil || len(entries) != 1 {
			t.Fatalf("outside of the directory: %v, error %v", entries, err)
		}
	})
}
