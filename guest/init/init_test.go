package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// testReaper is shared by all tests: a process can have only one. Its goroutine
// must not belong to the bubble of a test.
var testReaper = newReaper()

func TestTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	for _, test := range []struct {
		text  string
		lines int
		want  string
	}{
		{"", 2, ""},
		{"a\n", 2, "a\n"},
		{"a\nb\n", 2, "a\nb\n"},
		{"a\nb\nc\n", 2, "b\nc\n"},
		{"a\nb\nc", 1, "c\n"},
		{"a\n\nb\n\n", 2, "\nb\n"},
	} {
		if err := os.WriteFile(path, []byte(test.text), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := string(tail(path, test.lines)); got != test.want {
			t.Errorf("tail(%q, %d) = %q, want %q", test.text, test.lines, got, test.want)
		}
	}
	if got := tail(path+".none", 3); got != nil {
		t.Errorf("tail of no file: %q", got)
	}
}

func TestParseEvent(t *testing.T) {
	for _, test := range []struct {
		event string
		want  map[string]string
	}{
		{"add@/devices/pci0000:00/0000:00:05.0\x00ACTION=add\x00SUBSYSTEM=pci\x00MODALIAS=pci:v1D0F=\x00",
			map[string]string{"ACTION": "add", "SUBSYSTEM": "pci", "MODALIAS": "pci:v1D0F="}},
		{"libudev\x00\x01", map[string]string{}},
		{"", map[string]string{}},
	} {
		if diff := cmp.Diff(test.want, parseEvent([]byte(test.event))); diff != "" {
			t.Errorf("%q: -want +got\n%s", test.event, diff)
		}
	}
}

func TestHasFilesystem(t *testing.T) {
	const known = "nodev\tsysfs\nnodev\tbpf\n\text4\n"
	for kind, want := range map[string]bool{"bpf": true, "ext4": true, "fusectl": false, "nodev": false, "": false} {
		if got := hasFilesystem(known, kind); got != want {
			t.Errorf("hasFilesystem(%q) = %v", kind, got)
		}
	}
}

// The bytes follow struct acpi_genl_event (Linux, drivers/acpi/event.c): class
// 20, bus ID 15, a byte of padding, type 4, data 4.
func TestIsPowerButton(t *testing.T) {
	event := func(class string) []byte {
		message := []byte{
			0x48, 0, 0, 0, 0x17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // nlmsghdr
			1, 1, 0, 0, // genlmsghdr
			0x30, 0, 1, 0, // nlattr: 48 bytes, type 1
		}
		message = append(message, class+strings.Repeat("\x00", 20-len(class))...)
		message = append(message, "LNXPWRBN:00\x00\x00\x00\x00"...)
		return append(message, 0, 0x80, 0, 0, 0, 1, 0, 0, 0)
	}
	if !isPowerButton(event("button/power")) {
		t.Error("a press of the power button is not recognized")
	}
	if isPowerButton(event("button/lid")) {
		t.Error("the lid is taken for the power button")
	}
	full := event("button/power")
	for n := range len(full) - 24 { // cut before the class ends
		if isPowerButton(full[:n]) {
			t.Errorf("%d bytes are taken for a press", n)
		}
	}
}

func TestReaperRun(t *testing.T) {
	r := testReaper
	for _, test := range []struct{ script, want string }{
		{"exit 0", ""},
		{"exit 3", "/bin/sh: exit 3"},
		{"kill -TERM $$", "/bin/sh: killed by SIGTERM"},
	} {
		err := r.run(t.Context(), command{path: "/bin/sh", args: []string{"-c", test.script}})
		if got := fmt.Sprint(err); got != test.want && !(err == nil && test.want == "") {
			t.Errorf("%s: %v, want %q", test.script, err, test.want)
		}
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), 100*time.Millisecond, errSlow)
	defer cancel()
	begin := time.Now()
	if err := r.run(ctx, command{path: "/bin/sh", args: []string{"-c", "sleep 60; true"}}); !errors.Is(err, errSlow) || time.Since(begin) > 30*time.Second {
		t.Errorf("a program that does not end: %v after %v", err, time.Since(begin))
	}
	if err := r.run(t.Context(), command{path: "/nonesuch"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a program that does not exist: %v", err)
	}
	if _, err := r.watch(1 << 22); !errors.Is(err, syscall.ESRCH) { // above the largest process id
		t.Errorf("watch a process that does not exist: %v", err)
	}
}

// Many children that end at the same time, each with its own status, while
// others are started.
func TestReaperStress(t *testing.T) {
	r := testReaper
	const children = 200
	started := make(map[int]*process, children)
	for i := range children {
		p, err := r.start(command{path: "/bin/sh", args: []string{"-c", fmt.Sprintf("exit %d", i)}})
		if err != nil {
			t.Fatal(err)
		}
		started[i] = p
	}
	for i, p := range started {
		select {
		case <-p.done:
			if p.status.ExitStatus() != i {
				t.Errorf("child %d: %s", i, describe(p.status))
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("the end of child %d was lost", i)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.waiting) != 0 {
		t.Errorf("%d children are still in waiting", len(r.waiting))
	}
}

func TestReaperOutput(t *testing.T) {
	r := testReaper
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if err := r.run(t.Context(), command{path: "/bin/sh", args: []string{"-c", "env; echo done"}, stdout: out}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), pathEnv+"\n") || !strings.HasSuffix(string(text), "done\n") {
		t.Errorf("output %q", text)
	}
	if strings.Contains(string(text), "HOME=") {
		t.Errorf("the environment leaks into a child: %q", text)
	}
}

func testMachine(out io.Writer) *machine {
	return &machine{out: &console{out: []io.Writer{out}}, times: &timeline{}, reaper: testReaper, turns: newTurns(), changed: make(chan struct{}, 1)}
}

// Hooks run among the stages of the init, in the order of their names. Links
// and files that are not executable are ignored.
func TestStages(t *testing.T) {
	dir, trace := t.TempDir(), filepath.Join(t.TempDir(), "trace")
	for name, mode := range map[string]os.FileMode{"000-issue": 0o755, "007-fails": 0o755, "015-late": 0o700, "016-note": 0o644} {
		script := fmt.Sprintf("#!/bin/sh\necho %s >>%s\n[ %[1]s != 007-fails ]\n", name, trace)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/bin/false", filepath.Join(dir, "010-onboot")); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	m := testMachine(&said)
	own := func(name string) stage {
		return stage{name, func(context.Context) error {
			f, err := os.OpenFile(trace, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = fmt.Fprintln(f, "own", name)
			return err
		}}
	}
	m.runStages(t.Context(), m.stages(dir, own("005-volumes"), own("010-onboot"), own("020-containerd")))
	text, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	want := "000-issue\nown 005-volumes\n007-fails\nown 010-onboot\n015-late\nown 020-containerd\n"
	if diff := cmp.Diff(want, string(text)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if !strings.Contains(said.String(), "007-fails: "+filepath.Join(dir, "007-fails")+": exit 1") {
		t.Errorf("the error of a hook is not printed: %q", said.String())
	}
}

func TestStagesStop(t *testing.T) {
	m := testMachine(io.Discard)
	ctx, cancel := context.WithCancel(t.Context())
	var ran []string
	m.runStages(ctx, m.stages(t.TempDir(),
		stage{"1", func(context.Context) error { ran = append(ran, "1"); cancel(); return nil }},
		stage{"2", func(context.Context) error { ran = append(ran, "2"); return nil }},
	))
	if diff := cmp.Diff([]string{"1"}, ran); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestPowerCommand(t *testing.T) {
	for _, args := range [][]string{{"poweroff", "-x"}, {"reboot", "-f", "now"}, {"init", "0"}} {
		if err := powerCommand(args[0], args[1:]); err == nil {
			t.Errorf("%q: no error", args)
		}
	}
}

func TestQuote(t *testing.T) {
	var out bytes.Buffer
	c := &console{out: []io.Writer{&out}}
	c.quote([]byte("one\r\ntwo"))
	c.quote(nil)
	if want := "          | one\n          | two\n"; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}

// The first process of a PID namespace does not receive signals that it does
// not catch.
func TestIgnoresSignal(t *testing.T) {
	for _, c := range []struct {
		nspid, caught string
		want          bool
	}{
		{"216\t1", "0000000000000000", true},
		{"216\t1", "0000000000004000", false}, // SIGTERM is number 15
		{"216\t7", "0000000000000000", false},
		{"216", "0000000000000000", false},
		{"216\t1", "?", false},
	} {
		status := "Name:\trngd\nNSpid:\t" + c.nspid + "\nSigCgt:\t" + c.caught + "\n"
		if got := ignoresSignal([]byte(status), syscall.SIGTERM); got != c.want {
			t.Errorf("%q: %v", status, got)
		}
	}
}

// From a machine with the kernel of Debian.
func TestCgroupControllers(t *testing.T) {
	const text = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpuset\t0\t1\t1\ncpu\t0\t1\t1\nmemory\t0\t1\t0\n"
	if diff := cmp.Diff([]string{"cpuset", "cpu"}, cgroupControllers(text)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestOwnControllers(t *testing.T) {
	for text, want := range map[string][]string{
		"0::/\n":                      nil,
		"1:name=systemd:/\n0::/a:b\n": nil,
		"9:cpu,cpuacct:/docker\n3:memory:/docker\n0::/\n": {"cpu,cpuacct", "memory"},
	} {
		if diff := cmp.Diff(want, ownControllers(text)); diff != "" {
			t.Errorf("%q: -want +got\n%s", text, diff)
		}
	}
}

func TestSwaps(t *testing.T) {
	got := swaps("Filename\t\t\tType\t\tSize\t\tUsed\t\tPriority\n/swap                file\t\t32752\t\t0\t\t-2\n/dm-0  partition\t32764\t0\t-3\n")
	if want := []string{"/swap", "/dm-0"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
