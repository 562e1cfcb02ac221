package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The parts of a dump are joined in the order of the text, those of different
// dumps are not, and what is saved is removed.
func TestPstore(t *testing.T) {
	dir, logs := t.TempDir(), t.TempDir()
	day := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	write := func(name, text string, at time.Time) {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	for part := 1; part <= 12; part++ { // the last part is recorded first
		write(fmt.Sprintf("dmesg-efi_pstore-%d", 100+part), fmt.Sprintf("Panic#2 Part%d\nnew %d\n", part, 12-part), day.Add(time.Hour+time.Duration(part)*time.Second/10))
	}
	write("dmesg-efi_pstore-300", "Panic#2 Part1\nold \x1b[31m\n", day)
	write("dmesg-ramoops-0", "no header", day.Add(-time.Hour))
	write("console-ramoops-0", "all that the kernel said", day)
	dumps, err := readPstore(dir)
	if err != nil || len(dumps) != 3 {
		t.Fatalf("%d dumps, %v", len(dumps), err)
	}
	var said bytes.Buffer
	m := testMachine(&said)
	m.showDumps(dumps)
	want := `pstore: the kernel recorded "dmesg-ramoops-0" at 2026-11-28T11:00:00Z, see /var/log/pstore.log
          | no header
pstore: the kernel recorded "Panic#2" at 2026-11-28T12:00:00Z, see /var/log/pstore.log
          | old �[31m
pstore: the kernel recorded "Panic#2" at 2026-11-28T13:00:00Z, see /var/log/pstore.log
          | new 0
`
	rest := said.String()
	for line := range strings.Lines(want) {
		var ok bool
		if _, rest, ok = strings.Cut(rest, line); !ok {
			t.Errorf("%q is missing or comes too late:\n%s", line, said.String())
		}
	}
	if err := saveDumps(dumps, logs); err != nil {
		t.Error(err)
	}
	log, err := os.ReadFile(filepath.Join(logs, "pstore.log"))
	if err != nil || !strings.HasSuffix(string(log), "Panic#2 at 2026-11-28T13:00:00Z\nnew 0\nnew 1\nnew 2\nnew 3\nnew 4\nnew 5\nnew 6\nnew 7\nnew 8\nnew 9\nnew 10\nnew 11\n") {
		t.Errorf("%v\n%s", err, log)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 || left[0].Name() != "console-ramoops-0" {
		t.Errorf("left: %v, %v", left, err)
	}
	if dumps, err := readPstore(filepath.Join(dir, "none")); dumps != nil || err != nil {
		t.Errorf("%v, %v", dumps, err)
	}
}

// What has failed is bounded, with the ends of the logs.
func TestNoteFailure(t *testing.T) {
	m := testMachine(&bytes.Buffer{})
	m.noteFailure("onboot 000-job: failed: exit 3", []byte("one\r\ntwo"), nil)
	if got, want := strings.Join(m.failures, "\n"), "onboot 000-job: failed: exit 3\n| one\n| two"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	for range 1000 {
		m.noteFailure("again", []byte("1\n2\n3"))
	}
	if n := len(m.failures); n < maxFailures || n > maxFailures+4 {
		t.Errorf("%d lines", n)
	}
}

// A dump that cannot be saved stays.
func TestPstoreFull(t *testing.T) {
	if dumps, err := readPstore(t.TempDir()); dumps != nil || err != nil || saveDumps(dumps, "/proc/none") != nil {
		t.Errorf("%v, %v", dumps, err)
	}
	file := filepath.Join(t.TempDir(), "dmesg-x")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := saveDumps([]dump{{reason: "Panic#1", files: []string{file}}}, "/proc/none"); err == nil {
		t.Error("saved to /proc")
	}
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
}
