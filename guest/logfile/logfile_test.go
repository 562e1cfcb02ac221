package logfile

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Files are rotated at the ends of lines, and the oldest is deleted.
func TestFile(t *testing.T) {
	dir := t.TempDir()
	l, err := Open(filepath.Join(dir, "web.log"), 10, 2)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"one\n", "two\nthree\n", "four\nfi", "ve\n", "a line longer than a file\n", "six\n"} {
		if n, err := l.Write([]byte(text)); n != len(text) || err != nil {
			t.Fatalf("%q: %d, %v", text, n, err)
		}
	}
	got := map[string]string{}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		got[f.Name()] = string(text)
	}
	want := map[string]string{"web.log.2": "four\nfive\n", "web.log.1": "a line longer than a file\n", "web.log": "six\n"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// The existing size of a file counts.
func TestReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "web.log")
	if err := os.WriteFile(path, []byte("before\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	l, err := Open(path, 10, 2)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(l, "after")
	if text, err := os.ReadFile(path + ".1"); string(text) != "before\n" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
}
