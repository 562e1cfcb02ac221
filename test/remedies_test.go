package test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/internal/testutil/need"
	"github.com/slipway-build/slipway/internal/testutil/stack"
)

// TestRemedies checks that errors which new users meet name the cause and what to
// do about it in at most two lines. That of an old Docker Engine is in
// TestOldBuilder of frontend.
func TestRemedies(t *testing.T) {
	home(t)
	if _, err := command(); err != nil { // before PATH changes
		t.Fatal(err)
	}
	dir := t.TempDir()
	write(t, dir, map[string]string{"notes.txt": "not a machine\n", "machine.yml": "init: [slipwaybuild/init:v1]\n"})
	notes, machine, disk := filepath.Join(dir, "notes.txt"), filepath.Join(dir, "machine.yml"), filepath.Join(dir, "disk.raw")
	sector := make([]byte, 1<<20)
	sector[510], sector[511] = 0x55, 0xaa
	if err := os.WriteFile(disk, sector, 0o644); err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	empty, plain := t.TempDir(), t.TempDir() // directories of programs
	if err := os.WriteFile(filepath.Join(plain, "docker"), []byte("#!/bin/sh\necho \"unknown flag: --builder\n\nUsage:  docker [OPTIONS] COMMAND\" >&2\nexit 125\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	const chooseBuilder = "pass --builder with the name of a docker buildx builder, or set BUILDKIT_HOST"
	for name, c := range map[string]struct {
		path          string // PATH
		args          []string
		cause, remedy string
	}{
		"no builder":        {"", []string{"run", "--builder=unix:///nonsuch", machine}, "unix:///nonsuch does not answer: ", chooseBuilder},
		"no docker":         {empty, []string{"build", "--builder=nonsuch", machine}, "nonsuch does not answer: docker is not installed", chooseBuilder},
		"no buildx":         {plain + ":/usr/bin:/bin", []string{"build", "--builder=nonsuch", machine}, "docker has no buildx", "install the package docker-buildx-plugin"},
		"no QEMU":           {empty, []string{"run", disk}, "is not installed", ": "},
		"port taken":        {"", []string{"run", fmt.Sprintf("--publish=%d:80", port), disk}, fmt.Sprintf("127.0.0.1:%d: bind: address already in use", port), "choose another port, for example --publish "},
		"wrong file to run": {"", []string{"run", notes}, "notes.txt: is not a machine", "it must be a YAML file, the folder of a build, a disk"},
		"wrong file":        {"", []string{"inspect", notes}, "notes.txt: unknown format", "it is no disk, ISO"},
		"no file":           {"", []string{"run", notes + "x"}, "notes.txtx", "no such file or directory"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.path != "" {
				t.Setenv("PATH", c.path)
			}
			short(t, c.cause, c.remedy, c.args...)
		})
	}
	t.Run("no space", func(t *testing.T) {
		stack.Require(t)
		need.Root(t)
		full := t.TempDir()
		if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", full).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		t.Cleanup(func() { exec.Command("umount", full).Run() })
		short(t, full, "no space left on device", "build", "--progress=quiet", "--format=tar", "-o", full, machine)
	})
}

// short runs slipway, which must fail with a message of at most two lines that
// has the cause and the remedy.
func short(t *testing.T, cause, remedy string, args ...string) {
	t.Helper()
	stdout, stderr, exit := slipway(t, "..", args...)
	if exit == 0 || !strings.Contains(stderr, cause) || !strings.Contains(stderr, remedy) || strings.Count(stderr, "\n") > 2 || stdout != "" {
		t.Errorf("%q: exit %d, %q: want %q and %q\n%s", args, exit, stderr, cause, remedy, stdout)
	}
}
