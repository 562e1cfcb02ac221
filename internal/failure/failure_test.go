package failure

import (
	"errors"
	"strings"
	"testing"
)

func TestMessage(t *testing.T) {
	dir := t.TempDir()
	if err := Print(dir, &strings.Builder{}); err == nil {
		t.Error("a message without failure")
	}
	Write([]string{"program", "write", "--out"}, errors.New("no directory"))
	Write([]string{"program", "write", "--out", dir, "x"}, errors.New("cause"+strings.Repeat(".", limit)))
	var m Message
	for range 2 {
		if err := Print(dir, &m); err != nil {
			t.Fatal(err)
		}
	}
	if got := m.String(); len(got) != limit || !strings.HasPrefix(got, "cause.") {
		t.Errorf("%d bytes: %.10q", len(got), got)
	}
}

func TestClean(t *testing.T) {
	if got, want := Clean("a\x1b[1m\tä\xff\nb\n"), "a\ufffd[1m\ufffdä\ufffd\nb"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
