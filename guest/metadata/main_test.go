package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// listing gives every file and directory below dir with its mode and contents.
func listing(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == "." {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		text := ""
		if info.Mode().IsRegular() {
			contents, err := os.ReadFile(filepath.Join(dir, path))
			if err != nil {
				return err
			}
			text = " " + string(contents)
		}
		found[path] = info.Mode().String() + text
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func fixed(found *instance) []provider {
	return []provider{{"test", "Test", func(context.Context, *client) (*instance, error) { return found, nil }}}
}

func TestRun(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run", "config")
	var hostname string
	err := run(t.Context(), fixed(&instance{
		values:   map[string]string{"hostname": "ip-10-0-0-7", "instance_id": "i-1"},
		keys:     []string{"ssh-ed25519 AAAA alice", "ssh-rsa BBBB bob"},
		userData: []byte(`{"app": {"entries": {"key": {"content": "s\n", "perm": "0400"}}}}`),
	}), dir, func(name []byte) error {
		hostname = string(name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"provider":            "-rw-r--r-- Test",
		"hostname":            "-rw-r--r-- ip-10-0-0-7",
		"instance_id":         "-rw-r--r-- i-1",
		"ssh":                 "drwxr-xr-x",
		"ssh/authorized_keys": "-rw------- ssh-ed25519 AAAA alice\nssh-rsa BBBB bob\n",
		"userdata":            `-rw-r--r-- {"app": {"entries": {"key": {"content": "s\n", "perm": "0400"}}}}`,
		"app":                 "drwxr-xr-x",
		"app/key":             "-r-------- s\n",
	}
	if diff := cmp.Diff(want, listing(t, dir)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	if hostname != "ip-10-0-0-7" {
		t.Errorf("host name set to %q", hostname)
	}
}

// Services bind these two files, so they have to exist.
func TestRunWritesEmptyFiles(t *testing.T) {
	dir := t.TempDir()
	err := run(t.Context(), fixed(&instance{}), dir, func(name []byte) error {
		t.Errorf("host name set to %q though the provider gives none", name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"provider": "-rw-r--r-- Test", "ssh": "drwxr-xr-x", "ssh/authorized_keys": "-rw------- ", "userdata": "-rw-r--r-- "}
	if diff := cmp.Diff(want, listing(t, dir)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

// As with LinuxKit, the tree comes last and may replace keys and host name; a second run replaces files of the first.
func TestRunTreeReplaces(t *testing.T) {
	dir := t.TempDir()
	var hostname string
	for _, userData := range []string{"", `{"hostname": {"content": "chosen\n"}, "ssh": {"entries": {"authorized_keys": {"content": "mine", "perm": "0600"}}}}`} {
		err := run(t.Context(), fixed(&instance{
			values:   map[string]string{"hostname": "given"},
			keys:     []string{"theirs"},
			userData: []byte(userData),
		}), dir, func(name []byte) error {
			hostname = string(name)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if got := listing(t, dir)["ssh/authorized_keys"]; got != "-rw------- mine" {
		t.Errorf("authorized_keys: %s", got)
	}
	if hostname != "chosen" {
		t.Errorf("host name set to %q", hostname)
	}
}

// A faulty tree is refused whole, and the rest is done all the same.
func TestRunFaultyTree(t *testing.T) {
	dir := t.TempDir()
	named := false
	err := run(t.Context(), fixed(&instance{
		values:   map[string]string{"hostname": "h"},
		keys:     []string{"k"},
		userData: []byte(`{"a": {"content": "x"}, "b": {"entries": {"..": {"content": "x"}}}}`),
	}), dir, func([]byte) error {
		named = true
		return errors.New("operation not permitted")
	})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{`user data: entry "b/..": not a file name; nothing of it was unpacked`, `set the host name to "h": operation not permitted`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
	files := listing(t, dir)
	if _, ok := files["a"]; ok || files["ssh/authorized_keys"] != "-rw------- k\n" || !named {
		t.Errorf("files %v, host name set: %t", files, named)
	}
}

// What someone else put there does not lead out of the directory.
func TestConfigIsConfined(t *testing.T) {
	outside := t.TempDir()
	dir := t.TempDir()
	if err := os.Symlink(outside, filepath.Join(dir, "ssh")); err != nil {
		t.Fatal(err)
	}
	err := run(t.Context(), fixed(&instance{}), dir, nil)
	if err == nil || !strings.Contains(err.Error(), "ssh") {
		t.Errorf("error %v, want one about ssh", err)
	}
	if files := listing(t, outside); len(files) > 0 {
		t.Errorf("written through the link: %v", files)
	}
}

func TestChoose(t *testing.T) {
	if chosen, err := choose(nil); err != nil || len(chosen) != len(providers) {
		t.Errorf("no names: %v, %v, want all providers", chosen, err)
	}
	if chosen, err := choose([]string{"aws"}); err != nil || len(chosen) != 1 || chosen[0].title != "AWS" {
		t.Errorf("aws: %v, %v", chosen, err)
	}
	if _, err := choose([]string{"aws", "awz"}); err == nil || err.Error() != `unknown provider "awz"; known are: aws` {
		t.Errorf("awz: %v", err)
	}
}

func TestAskTriesTheNext(t *testing.T) {
	broken := provider{"one", "One", func(context.Context, *client) (*instance, error) { return nil, errors.New("not here") }}
	p, _, err := ask(t.Context(), append([]provider{broken}, fixed(&instance{})...))
	if err != nil || p.name != "test" {
		t.Errorf("provider %q, error %v", p.name, err)
	}
	if _, _, err := ask(t.Context(), []provider{broken, broken}); err == nil || err.Error() != "one: not here\none: not here" {
		t.Errorf("error %v", err)
	}
}
