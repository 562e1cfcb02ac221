package test

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/exporter/format"
	"github.com/slipway-build/slipway/exporter/segment"
	"github.com/slipway-build/slipway/internal/testutil/need"
	"github.com/slipway-build/slipway/internal/testutil/stack"
)

// The builder does not send an unchanged file again. It does if the file was
// changed on disk, or if the build can have another result.
func TestCommandKeepsFiles(t *testing.T) {
	stack.Require(t)
	dir := machineYAML(t, "init:\n  - slipwaybuild/ca-certificates:v1\n")
	file := filepath.Join(dir, "machine-initrd.img")
	build := func(args ...string) (os.FileInfo, string) {
		t.Helper()
		stdout, stderr, exit := slipway(t, dir, append([]string{"build", "--progress=quiet", "machine.yml"}, args...)...)
		if exit != 0 || !strings.HasPrefix(stdout, "machine-initrd.img\t") {
			t.Fatalf("printed %q\n%s", stdout, stderr)
		}
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return info, string(data)
	}
	first, want := build()
	if again, _ := build(); !os.SameFile(first, again) {
		t.Error("an unchanged file was sent again")
	}
	if err := os.WriteFile(file, []byte(strings.Repeat("x", len(want))), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, got := build(); got != want {
		t.Error("a changed file was kept")
	}
	before, _ := build()
	if after, _ := build("--no-cache"); os.SameFile(before, after) {
		t.Error("the file was kept despite --no-cache")
	}
	if after, _ := build("--build-arg=SOURCE_DATE_EPOCH=1700000000"); after.ModTime().Unix() != 1700000000 {
		t.Errorf("time of the file is %v", after.ModTime())
	}
	yaml := "init:\n  - slipwaybuild/ca-certificates:v1\nfiles:\n  - path: etc/motd\n    source: motd\n"
	write(t, dir, map[string]string{"motd": "one", "machine.yml": "# syntax=slipwaybuild/slipway:1\n" + yaml})
	_, one := build()
	write(t, dir, map[string]string{"motd": "two"})
	_, two := build()
	if one == two {
		t.Error("the machine did not change with a file of the context")
	}

	// With a lock, nothing asks BuildKit about images.
	if _, stderr, exit := slipway(t, dir, "lock", "--progress=quiet", "machine.yml"); exit != 0 {
		t.Fatal(stderr)
	}
	before, _ = build()
	stdout, stderr, exit := slipway(t, dir, "build", "--progress=plain", "machine.yml")
	if after, err := os.Stat(file); exit != 0 || err != nil || !os.SameFile(before, after) || strings.Contains(stderr, "#1 ") {
		t.Errorf("an unchanged machine with a lock: %v\n%s%s", err, stdout, stderr)
	}
	write(t, dir, map[string]string{"motd": "one"})
	if _, got := build(); got == two {
		t.Error("the machine with a lock did not change with a file of the context")
	}
}

// slipway build writes the same files as docker buildx build, in its own process,
// and takes each step from that build's cache.
func TestCommandEqualsBuildx(t *testing.T) {
	stack.Require(t)
	t.Setenv("XDG_CACHE_HOME", t.TempDir()) // without parts of other builds
	formats := localFormats()
	dir := machineYAML(t, "kernel:\n  image: slipwaybuild/kernel:v1\ninit:\n  - slipwaybuild/init:v1\nfiles:\n  - path: etc/motd\n    source: motd\n")
	write(t, dir, map[string]string{"motd": t.Name()})
	if _, stderr, err := stack.Buildx(dir, "-f", "machine.yml", "--target="+formats, "--build-arg=MAP=true", "-o", "buildx", "."); err != nil {
		t.Fatal(stderr)
	}
	stdout, stderr, exit := slipway(t, dir, "build", "--progress=rawjson", "--format="+formats, "--build-arg=MAP=true", "-o", "slipway", "machine.yml")
	if exit != 0 {
		t.Fatal(stderr)
	}
	if !strings.Contains(stdout, "slipway/machine.raw\t") {
		t.Errorf("printed %q", stdout)
	}
	status, next, _ := strings.Cut(stderr, "\nto make an AMI of it: ")
	if next != "slipway-publish aws --name machine slipway/machine.raw\n" {
		t.Errorf("the next command is %q", next)
	}
	if ran := executed(t, status); len(ran) > 0 {
		t.Errorf("after docker buildx build it ran %q", ran)
	}
	if strings.Contains(status, "write machine") {
		t.Error("a container wrote the formats")
	}
	files, err := os.ReadDir(filepath.Join(dir, "buildx"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		sameFile(t, filepath.Join(dir, "buildx", f.Name()), filepath.Join(dir, "slipway", f.Name()))
	}
	if other, err := os.ReadDir(filepath.Join(dir, "slipway")); err != nil || len(other) != len(files) {
		t.Errorf("slipway build wrote %v, docker buildx build %v", other, files)
	}
}

// localFormats returns all formats that slipway build writes in its own process,
// except those whose files have the same names as those of another.
func localFormats() string {
	var names []string
	taken := map[string]bool{}
	for _, f := range format.All() {
		files := f.Files("machine")
		if f.Container || f.Segments != segment.CPIO || slices.ContainsFunc(files, func(name string) bool { return taken[name] }) {
			continue
		}
		names = append(names, f.Name)
		for _, name := range files {
			taken[name] = true
		}
	}
	return strings.Join(names, ",")
}

func TestCommandErrors(t *testing.T) {
	stack.Require(t)
	for _, c := range []struct {
		name, yaml string
		args       []string
		exit       int
		want       []string
	}{
		{
			name: "errors in the YAML",
			yaml: "init: 5\nservices:\n  - name: sshd\n    image: slipwaybuild/sshd:v1\n    readonly: maybe\n",
			exit: 1,
			want: []string{"machine.yml:2", ">>> init: 5", ">>>     readonly: maybe"},
		},
		{
			name: "a step that fails",
			yaml: "kernel:\n  image: slipwaybuild/runc:v1\n",
			exit: 1,
			want: []string{">>>   image: slipwaybuild/runc:v1", `kernel image has no file "kernel"`, "set kernel.binary"},
		},
		{
			name: "an image that does not exist",
			yaml: "init:\n  - slipwaybuild/nonsuch:v1\n",
			exit: 1,
			want: []string{">>>   - slipwaybuild/nonsuch:v1", "not found"},
		},
		{
			name: "a frontend that does not exist",
			yaml: "init: []\n",
			args: []string{"--build-context=slipwaybuild/slipway:1=docker-image://slipwaybuild/nonsuch:1"},
			exit: 1,
			want: []string{">>> # syntax=slipwaybuild/slipway:1", "slipwaybuild/nonsuch:1: not found"},
		},
		{
			name: "a format that does not exist",
			yaml: "init:\n  - slipwaybuild/init:v1\n",
			args: []string{"--format=rawr"},
			exit: 1,
			want: []string{`unknown format "rawr" (did you mean "raw"?)`},
		},
		{
			name: "a flag that does not exist",
			args: []string{"--siez=100M"},
			exit: 2,
			want: []string{"siez"},
		},
		{
			name: "no such builder",
			args: []string{"--builder=unix:///nonsuch/buildkitd.sock"},
			exit: 1,
			want: []string{"unix:///nonsuch/buildkitd.sock does not answer", "--builder", "BUILDKIT_HOST"},
		},
		{
			name: "no such builder of docker buildx",
			args: []string{"--builder=nonsuch"},
			exit: 1,
			want: []string{`nonsuch does not answer`, `no builder "nonsuch" found`},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := machineYAML(t, c.yaml)
			stdout, stderr, exit := slipway(t, dir, append([]string{"build", "--progress=plain", "-o", "out", "machine.yml"}, c.args...)...)
			if exit != c.exit {
				t.Errorf("exit %d, want %d", exit, c.exit)
			}
			for _, w := range c.want {
				if !strings.Contains(stderr, w) {
					t.Errorf("output lacks %q", w)
				}
			}
			if stdout != "" {
				t.Errorf("printed %q", stdout)
			}
			if _, err := os.Stat(filepath.Join(dir, "out")); err == nil {
				t.Error("the output directory exists")
			}
			if t.Failed() {
				t.Log(stderr)
			}
		})
	}
}

// slipway build says what docker buildx build says: warnings, but nothing of the
// libraries that both use.
func TestCommandWarnings(t *testing.T) {
	stack.Require(t)
	dir := machineYAML(t, `onboot:
  - name: a
    image: slipwaybuild/sysctl:v1
    capabilities: [all]
    env: [A=b]
services:
  - name: b
    image: slipwaybuild/sysctl:v1
    env: [A=b]
trust:
  org: [acme]
`)
	args := []string{"--progress=plain", "-o", "out", "--build-context", "busybox:latest=docker-image://slipwaybuild/sysctl:v1"}
	_, want, err := stack.Buildx(dir, append(args, "-f", "machine.yml", ".")...)
	if err != nil {
		t.Fatal(want)
	}
	for _, command := range [][]string{append([]string{"build", "machine.yml"}, args...), {"lock", "--progress=plain", "machine.yml"}} {
		_, got, exit := slipway(t, dir, command...)
		if exit != 0 {
			t.Fatal(got)
		}
		warnings := warningLines(got)
		if command[0] == "build" {
			if all := warningLines(want); len(all) < 4 || !slices.Equal(warnings, all) {
				t.Errorf("warnings\n%q, docker buildx has\n%q", warnings, all)
			}
		} else if !slices.Equal(warnings, warningLines("found\n - TrustIgnored: trust is ignored: pin images by digest instead (line 11)\n")) {
			t.Errorf("slipway lock shows the warnings %q", warnings)
		}
		for line := range strings.Lines(got) {
			if strings.HasPrefix(line, "time=") || strings.Contains(line, "http2:") {
				t.Errorf("a library says %q", line)
			}
		}
	}
}

// warningLines returns the sorted lines of the list of warnings.
func warningLines(stderr string) []string {
	_, list, _ := strings.Cut(stderr, "found")
	var lines []string
	for line := range strings.Lines(list) {
		line = strings.TrimPrefix(line, "\x1b[0m") // the end of a color of docker buildx
		if strings.HasPrefix(line, " - ") {
			lines = append(lines, line)
		}
	}
	slices.Sort(lines)
	return lines
}

// The machine can come from standard input.
func TestCommandStdin(t *testing.T) {
	stack.Require(t)
	program, err := command()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "build", "--progress=quiet", "-")
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "BUILDX_BUILDER="+stack.Builder)
	cmd.Stdin = strings.NewReader("init:\n  - slipwaybuild/ca-certificates:v1\n")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "machine-initrd.img\t") {
		t.Errorf("%v\n%s", err, out)
	}
}

// The oldest BuildKit works, but has known vulnerabilities.
// On a terminal, slipway new asks which machine to write.
func TestNewAsks(t *testing.T) {
	need.Program(t, "script", "bsdutils")
	program, err := command()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	screen, keys, cmd := start(t, "script", "--quiet", "--return", "--command", "cd "+dir+" && "+program+" new", "/dev/null")
	screen.await(t, "Template: ")
	io.WriteString(keys, "web\n")
	screen.await(t, "to boot it: slipway run web.yml")
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "web.yml")); err != nil || !strings.Contains(string(text), "# syntax=") {
		t.Errorf("web.yml: %v\n%s", err, text)
	}
}

func TestCommandVersion(t *testing.T) {
	stack.Require(t)
	d := fresh(t, oldest(t))
	for builder, vulnerable := range map[string]bool{d.Address: true, stack.Builder: false} {
		stdout, stderr, exit := slipway(t, t.TempDir(), "version", "--builder", builder)
		if exit != 0 || !strings.Contains(stdout, "slipwaybuild/slipway:1@sha256:") || !strings.Contains(stdout, "BuildKit  v0.") {
			t.Errorf("%s: status %d\n%s%s", builder, exit, stdout, stderr)
		}
		if got := strings.Contains(stdout, "CVE-2026-33747"); got != vulnerable {
			t.Errorf("%s: vulnerable %v, want %v\n%s", builder, got, vulnerable, stdout)
		}
	}
}
