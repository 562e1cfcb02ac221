package run

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-build/slipway/internal/testutil/need"
	"github.com/slipway-build/slipway/internal/vm"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "supervise" { // as slipway does
		store, err := OpenStore()
		if err == nil {
			err = store.Supervise(context.Background(), os.Args[2])
		}
		if err != nil {
			os.Stderr.WriteString("slipway: " + err.Error() + "\n")
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestParseForward(t *testing.T) {
	for text, want := range map[string]vm.Forward{
		"8080:80":           {Address: "127.0.0.1", Port: 8080, GuestPort: 80},
		"0.0.0.0:8080:80":   {Address: "0.0.0.0", Port: 8080, GuestPort: 80},
		"5353:53/udp":       {Address: "127.0.0.1", Port: 5353, GuestPort: 53, UDP: true},
		"127.0.0.2:1:2/tcp": {Address: "127.0.0.2", Port: 1, GuestPort: 2},
	} {
		if got, err := ParseForward(text); err != nil || got != want {
			t.Errorf("%s: got %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "80", ":80", "80:", "0:80", "80:65536", "a:b", "host:80:80", "[::1]:80:80", "80:80/sctp", "8080:80,hostfwd=x"} {
		if got, err := ParseForward(text); err == nil {
			t.Errorf("%q: got %+v, want an error", text, got)
		}
	}
}

func TestCheckFree(t *testing.T) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	port := listener.Addr().(*net.TCPAddr).Port
	err = CheckFree([]vm.Forward{{Address: "127.0.0.1", Port: port, GuestPort: 80}})
	if err == nil || !strings.Contains(err.Error(), "address already in use; choose another port, for example --publish ") || strings.Contains(err.Error(), "\n") {
		t.Error(err)
	}
	if err := CheckFree([]vm.Forward{{Address: "127.0.0.1", Port: port, GuestPort: 80, UDP: true}}); err != nil {
		t.Errorf("the same port of UDP: %v", err)
	}
}

func TestDisks(t *testing.T) {
	for text, want := range map[string]Disk{"1G": {1 << 30, ""}, "512M:data": {512 << 20, "data"}} {
		if got, err := ParseDisk(text); err != nil || got != want {
			t.Errorf("%s: got %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "data", "1K", "1G:", "1G:../x", "1G:a b", "1G:abcdefghijklmnopqrstu"} {
		if got, err := ParseDisk(text); err == nil {
			t.Errorf("%q: got %+v, want an error", text, got)
		}
	}
	dir := t.TempDir()
	drive, err := Disk{2 << 20, "data"}.Create(dir, 1)
	if want := (vm.Drive{File: filepath.Join(dir, "data.raw"), Serial: "data"}); err != nil || drive != want {
		t.Fatalf("got %+v, %v", drive, err)
	}
	if err := os.WriteFile(drive.File, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := (Disk{3 << 20, "data"}).Create(dir, 1); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(drive.File); err != nil || len(got) != 3<<20 || string(got[:4]) != "kept" {
		t.Errorf("the disk has %d bytes and starts with %q: %v", len(got), got[:4], err)
	}
	if _, err := (Disk{1 << 20, "data"}).Create(dir, 1); err == nil || !strings.Contains(err.Error(), "cannot shrink") {
		t.Errorf("a smaller disk: %v", err)
	}
	if drive, err := (Disk{1 << 20, ""}).Create(dir, 2); err != nil || drive.Serial != "disk2" {
		t.Errorf("a disk without a name: %+v, %v", drive, err)
	}
}

func TestPublicKeys(t *testing.T) {
	dir := t.TempDir()
	key, err := vm.NewKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{key.Path, key.Path + ".pub"} {
		if got, err := ReadPublicKeys(file); err != nil || len(got) != 1 || got[0] != key.Public {
			t.Errorf("%s: %q, %v", file, got, err)
		}
	}
	other := filepath.Join(dir, "other")
	for _, text := range []string{"", "# nothing\n", "not a key\n"} {
		if err := os.WriteFile(other, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadPublicKeys(other); err == nil {
			t.Errorf("%q: got %q, want an error", text, got)
		}
	}
}

func TestConditions(t *testing.T) {
	console := []byte("[  1.2] service sshd: started in 0.10 s\r\nready 42\r\n")
	for text, want := range map[string]bool{
		"service=sshd": true, "service=ssh": false, "service=.*": false,
		`text=ready \d+`: true, "text=^never": false,
	} {
		c, err := ParseCondition(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.met(t.Context(), Record{}, console); got != want {
			t.Errorf("%s: %t, want %t", text, got, want)
		}
	}
	for _, text := range []string{"", "sshd", "service=", "port=x", "port=0", "text=(", "what=ever"} {
		if _, err := ParseCondition(text); err == nil {
			t.Errorf("%q: want an error", text)
		}
	}
	port, err := ParseCondition("port=80")
	if err != nil {
		t.Fatal(err)
	}
	if err := port.Check(vm.Config{}); err == nil || !strings.Contains(err.Error(), "--publish 8080:80") {
		t.Errorf("a port that is not published: %v", err)
	}
	// A server that accepts a connection and says nothing, as QEMU does for a
	// guest that does not listen yet, does not answer.
	for answer, want := range map[string]bool{"": false, "HTTP/1.0 400\r\n": true} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				conn.Write([]byte(answer))
				conn.Close()
			}
		}()
		config := vm.Config{Forwards: []vm.Forward{{Address: "127.0.0.1", Port: listener.Addr().(*net.TCPAddr).Port, GuestPort: 80}}}
		if err := port.Check(config); err != nil {
			t.Error(err)
		}
		if got := port.met(t.Context(), Record{Config: config}, nil); got != want {
			t.Errorf("a server that says %q: %t", answer, got)
		}
		listener.Close()
	}
}

// openStore returns an empty store.
func openStore(t *testing.T) Store {
	t.Helper()
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	s, err := OpenStore()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStore(t *testing.T) {
	s := openStore(t)
	e, err := s.Create("a b/../c", false)
	if err != nil || e.Name != "a-b-..-c" {
		t.Fatalf("%+v, %v", e, err)
	}
	if err := e.Remove(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"../x", "a b", ".x", strings.Repeat("x", 65)} {
		if _, err := s.Create(name, true); err == nil {
			t.Errorf("%q is a name", name)
		}
	}
	first, err := s.Create("web", false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Create("web", true); !errors.Is(err, ErrRunning) || !strings.Contains(err.Error(), "slipway stop web") {
		t.Errorf("a name that is taken: %v", err)
	}
	second, err := s.Create("web", false)
	if err != nil || second.Name != "web-2" {
		t.Fatalf("%+v, %v", second, err)
	}
	first.State, first.PID = Running, os.Getpid()
	if err := first.save(); err != nil {
		t.Fatal(err)
	}
	list, err := s.List() // web-2 is not visible yet
	if err != nil || len(list) != 1 || !cmp.Equal(list[0], first.Record) {
		t.Errorf("%+v, %v\n%s", list, err, cmp.Diff(first.Record, list[0]))
	}
	if _, err := s.Find("wed"); err == nil || !strings.Contains(err.Error(), `did you mean "web"`) {
		t.Error(err)
	}
	// The process that ran the machine is gone, and another one has its ID.
	if err := first.release(); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Find("web"); err != nil || r.State != Ended || r.Status != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	again, err := s.Create("web", true)
	if err != nil {
		t.Fatalf("the name is not free: %v", err)
	}
	if files, err := os.ReadDir(again.Dir); err != nil || len(files) != 1 {
		t.Errorf("the earlier machine has left %v, %v", files, err)
	}
}

func TestState(t *testing.T) {
	s, dir := openStore(t), t.TempDir()
	first, err := s.Create("one", true)
	if err != nil {
		t.Fatal(err)
	}
	if first.Keep() != first.Dir {
		t.Errorf("without a folder for state: %s", first.Keep())
	}
	if err := first.UseState(dir); err != nil || first.Keep() != dir {
		t.Fatal(err)
	}
	second, err := s.Create("two", true)
	if err != nil {
		t.Fatal(err)
	}
	if err := second.UseState(dir); err == nil || !strings.Contains(err.Error(), "a running machine uses this state") {
		t.Errorf("the state of a running machine: %v", err)
	}
	if err := first.Remove(); err != nil {
		t.Fatal(err)
	}
	if err := second.UseState(dir); err != nil {
		t.Error(err)
	}
}

// fakeQEMU puts a program in the place of QEMU that prints a line and runs until
// the power button is pressed.
func fakeQEMU(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	const script = `#!/usr/bin/env python3
import os, socket, sys, threading
path = [a for a in sys.argv if a.startswith("unix:")][0][5:].split(",")[0]
s = socket.socket(socket.AF_UNIX)
s.bind(path)
s.listen()
print("exit status of the machine: 5", flush=True)
def echo():
    while data := os.read(0, 100):
        print("typed", data, flush=True)
threading.Thread(target=echo, daemon=True).start()
while True:
    c, _ = s.accept()
    c.sendall(b"QEMU (qemu) ")
    line = c.recv(100)
    c.sendall(b"(qemu) ")
    if b"system_powerdown" in line:
        os._exit(0)
`
	if err := os.WriteFile(filepath.Join(dir, "qemu-system-x86_64"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// TestBackground runs a machine in another process, sees it, and stops it.
func TestBackground(t *testing.T) {
	need.Program(t, "python3", "python3")
	fakeQEMU(t)
	s := openStore(t)
	detach := func(name string, config vm.Config) error {
		e, err := s.Create(name, true)
		if err != nil {
			t.Fatal(err)
		}
		e.Config = config
		return s.Detach(t.Context(), e, os.Args[0], "supervise")
	}
	disk := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(disk, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := detach("one", vm.Config{Disk: disk, NoNetwork: true}); err != nil {
		t.Fatal(err)
	}
	r, err := s.Find("one")
	if err != nil || r.State != Running || r.PID == os.Getpid() || r.SSHAddress != "" {
		t.Fatalf("%+v, %v", r, err)
	}
	status, err := ParseCondition("text=exit status")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Wait(t.Context(), "one", []Condition{status}); err != nil {
		t.Error(err)
	}
	if _, err := s.Create("one", true); !errors.Is(err, ErrRunning) {
		t.Errorf("the name of a machine in the background: %v", err)
	}
	if err := s.Stop(t.Context(), r, time.Minute); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Find("one"); err != nil || r.State != Ended || r.Status != 5 || r.Error != "" {
		t.Errorf("after the power button: %+v, %v", r, err)
	}
	if err := detach("two", vm.Config{Disk: disk, NoNetwork: true}); err != nil {
		t.Fatal(err)
	}
	r, err = s.Find("two")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(t.Context(), r, 0); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Find("two"); err != nil || r.State != Ended || r.Status != 1 || !strings.Contains(r.Error, "killed") {
		t.Errorf("killed: %+v, %v", r, err)
	}
	never, err := ParseCondition("text=never")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Wait(t.Context(), "two", []Condition{never}); err == nil || !strings.Contains(err.Error(), "ended before text=never") {
		t.Errorf("wait for a machine that has ended: %v", err)
	}
	// The error of the other process arrives here.
	if err := detach("three", vm.Config{Disk: disk + strconv.Itoa(3)}); err == nil || !strings.Contains(err.Error(), "nothing to boot") || strings.Contains(err.Error(), "slipway:") {
		t.Errorf("a machine that does not start: %v", err)
	}
	if all, err := s.List(); err != nil || len(all) != 2 {
		t.Errorf("%+v, %v", all, err)
	}
}
