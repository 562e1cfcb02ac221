package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Files are changed at the ends of lines, and the oldest goes.
func TestLogFile(t *testing.T) {
	dir := t.TempDir()
	l, err := openLogFile(filepath.Join(dir, "web.log"))
	if err != nil {
		t.Fatal(err)
	}
	l.limit = 10
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

// What was written before is counted.
func TestLogFileAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "web.log")
	if err := os.WriteFile(path, []byte("before\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	l, err := openLogFile(path)
	if err != nil {
		t.Fatal(err)
	}
	l.limit = 10
	fmt.Fprintln(l, "after")
	if text, err := os.ReadFile(path + ".1"); string(text) != "before\n" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
}

func TestLastLines(t *testing.T) {
	text := strings.Repeat("x\n", 5) + "y"
	for lines, want := range map[int]string{0: "", 1: "y\n", 2: "x\ny\n", 9: text + "\n"} {
		if got := string(lastLines([]byte(text), lines)); got != want {
			t.Errorf("%d lines: %q", lines, got)
		}
	}
	if got := lastLines(nil, 3); len(got) != 0 {
		t.Errorf("of nothing: %q", got)
	}
}

func TestServiceUsage(t *testing.T) {
	for _, args := range [][]string{nil, {"list", "x"}, {"stop"}, {"logs"}, {"logs", "-n", "x", "web"}, {"logs", "../secret"}, {"timeline", "-x"}, {"dance"}} {
		var out bytes.Buffer
		if err := serviceCommand(args, &out); err == nil || !strings.HasPrefix(err.Error(), "usage:") {
			t.Errorf("%q: %v", args, err)
		}
	}
}
