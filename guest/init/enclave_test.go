package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// socketPair returns both ends of a stream socket.
func socketPair(t *testing.T) (ours, theirs *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs = os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	return ours, theirs
}

// TestBeat checks the heartbeat with a parent that answers as nitro-cli does, one
// that answers another byte, and one that does not answer.
func TestBeat(t *testing.T) {
	for answer, want := range map[string]string{
		"\xb7": "",
		"\x00": "the answer is 0x0, not 0xb7",
		"":     "no answer: EOF",
	} {
		ours, theirs := socketPair(t)
		got := make(chan byte, 1)
		go func() {
			b := []byte{0}
			io.ReadFull(theirs, b)
			got <- b[0]
			io.WriteString(theirs, answer)
			theirs.Close()
		}()
		err := beat(ours)
		if want == "" && err != nil || want != "" && (err == nil || err.Error() != want) {
			t.Errorf("answer %q: error %v, want %q", answer, err, want)
		}
		if sent := <-got; sent != 0xb7 {
			t.Errorf("the init sends %#x", sent)
		}
	}
}

// TestHostLog checks that the init writes no more to a host that does not take it.
func TestHostLog(t *testing.T) {
	ours, theirs := socketPair(t)
	var screen bytes.Buffer
	out := &console{out: []io.Writer{&screen}}
	out.say("before")
	log := &hostLog{ours}
	out.mirror(log)
	out.say("service says %d", 1)
	b := make([]byte, 100)
	n, err := theirs.Read(b)
	if err != nil || !strings.HasSuffix(string(b[:n]), "service says 1\n") || strings.Contains(string(b[:n]), "before") {
		t.Errorf("the host reads %q, %v", b[:n], err)
	}
	theirs.Close()
	if _, err := log.Write([]byte("x")); !errors.Is(err, unix.EPIPE) {
		t.Errorf("error %v, want EPIPE", err)
	}
	if log.conn != nil {
		t.Error("the connection is still open")
	}
	out.say("after")
	if !strings.Contains(screen.String(), "after") {
		t.Errorf("the console says %q", screen.String())
	}
}
