package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

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

// followLog prints what is added to a log, and continues with the next file after
// a rotation.
func TestFollowLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "web.log")
	log, err := openLogFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	in, out := io.Pipe()
	ended := make(chan error)
	go func() { ended <- followLog(path, f, out) }()
	lines := bufio.NewScanner(in)
	expect := func(want string) {
		t.Helper()
		if !lines.Scan() || lines.Text() != want {
			t.Fatalf("got %q, want %q", lines.Text(), want)
		}
	}
	fmt.Fprintln(log, "one")
	expect("one")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(log, "two") // still to the old file
	if err := os.WriteFile(path, []byte("three\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	expect("two")
	expect("three")
	in.Close()
	if err := os.WriteFile(path, []byte("three\nfour\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("followLog returned %v", err)
	}
}
