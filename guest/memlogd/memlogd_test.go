package main

import (
	"encoding/json"
	"flag"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/guest/memlog"
)

// start runs a daemon with small limits and returns the paths of its sockets.
func start(t *testing.T) (logs, queries string) {
	t.Helper()
	dir := t.TempDir()
	logs, queries = filepath.Join(dir, "log"), filepath.Join(dir, "query")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: logs, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: queries, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	b := newBuffer(3)
	go b.serveQueries(listener)
	go b.receive(conn, 16)
	return logs, queries
}

// send passes a log to the daemon and returns the end to write to.
func send(t *testing.T, socket, name string) *os.File {
	t.Helper()
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	t.Cleanup(func() { out.Close() })
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Sendmsg(fd, []byte(name), unix.UnixRights(int(in.Fd())), &unix.SockaddrUnix{Name: socket}, 0); err != nil {
		t.Fatal(err)
	}
	return out
}

// ask sends a mode and returns a decoder of the response.
func ask(t *testing.T, socket string, mode byte) *json.Decoder {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := conn.Write([]byte{mode}); err != nil {
		t.Fatal(err)
	}
	return json.NewDecoder(conn)
}

// next returns an entry without its time, which must be recent.
func next(t *testing.T, decoder *json.Decoder) string {
	t.Helper()
	var e map[string]string
	if err := decoder.Decode(&e); err != nil {
		return err.Error()
	}
	if at, err := time.Parse(time.RFC3339Nano, e["time"]); err != nil || time.Since(at).Abs() > time.Minute || len(e) != 3 {
		t.Errorf("%q, %v", e, err)
	}
	return e["source"] + ": " + e["msg"]
}

func expect(t *testing.T, decoder *json.Decoder, entries ...string) {
	t.Helper()
	for _, want := range entries {
		if got := next(t, decoder); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestModes(t *testing.T) {
	logs, queries := start(t)
	web, db := send(t, logs, "web"), send(t, logs, "db.out")
	all := ask(t, queries, memlog.DumpFollow)
	io.WriteString(web, "one\ntwo\n")
	expect(t, all, "web: one", "web: two")
	coming := ask(t, queries, memlog.Follow)
	time.Sleep(100 * time.Millisecond) // nothing shows that it has started
	io.WriteString(db, "a line that is too long\n\n")
	expect(t, all, "db.out: a line that is t", "db.out: ")
	expect(t, coming, "db.out: a line that is t", "db.out: ")
	io.WriteString(web, "the last")
	web.Close()
	expect(t, all, "web: the last")
	// The oldest entries are gone.
	expect(t, ask(t, queries, memlog.Dump), "db.out: a line that is t", "db.out: ", "web: the last", "EOF")
	expect(t, ask(t, queries, 7), "EOF")
}

func TestLogwrite(t *testing.T) {
	logs, queries := start(t)
	all := ask(t, queries, memlog.DumpFollow)
	io.WriteString(send(t, logs, "web"), "one\n")
	io.WriteString(send(t, logs, "logwrite"), "loop\n")
	out := send(t, logs, "../web")
	io.WriteString(out, "two\n")
	for range 3 {
		next(t, all)
	}
	dir := t.TempDir()
	go write(flag.NewFlagSet("logwrite", flag.ContinueOnError), []string{"-socket", queries, "-log-dir", dir, "-max-log-size", "40", "-max-log-files", "2"})
	file := func(name string) string {
		for range 100 {
			if text, err := os.ReadFile(filepath.Join(dir, name)); err == nil && strings.HasSuffix(string(text), "\n") {
				return string(text)
			}
			time.Sleep(50 * time.Millisecond)
		}
		return "nothing"
	}
	for name, want := range map[string]string{"web.log": `^\d+-\d\d-\d\dT\S+ web one\n$`, ".._web.log": `^\S+ \.\./web two\n$`} {
		if got := file(name); !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("%s: %q", name, got)
		}
	}
	io.WriteString(out, "three\n")
	if got := file(".._web.log.1"); !strings.HasSuffix(got, " two\n") {
		t.Errorf("the older file: %q", got)
	}
	if _, err := os.Stat(filepath.Join(dir, "logwrite.log")); err == nil {
		t.Error("logwrite logs its own messages")
	}
}
