// Package faults builds machines where something is broken: the builder
// crashes, a disk is full, the registry fails, the clock is wrong. A build
// either has the same bytes as without the fault, or it fails with an error
// message and leaves no file.
package faults

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/slipway-build/slipway/internal/testutil/buildkitd"
	"github.com/slipway-build/slipway/internal/testutil/clock"
	"github.com/slipway-build/slipway/internal/testutil/stack"
)

var kills = flag.Int("kills", 12, "how often TestKilledBuilder kills the builder; make test-boot uses 50")

// machine has several images, so that a build is always at different stages of
// different images.
const machine = `# syntax=slipwaybuild/slipway:1
init:
  - slipwaybuild/ca-certificates:v1
  - slipwaybuild/sysctl:v1
onboot:
  - name: dhcpcd
    image: slipwaybuild/dhcpcd:v1
services:
  - name: rngd
    image: slipwaybuild/rngd:v1
files:
  - path: etc/greeting
    contents: hello
`

// result is the output file of machine.
const result = "machine-initrd.img"

// slipway builds slipway once and returns its path.
var slipway = sync.OnceValues(func() (string, error) {
	root, err := stack.Root()
	if err != nil {
		return "", err
	}
	program := filepath.Join(root, "out", "test", "slipway-faults")
	out, err := exec.Command("go", "build", "-o", program, "../../cmd/slipway").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, out)
	}
	return program, err
})

// command returns the slipway command that builds the machine in dir.
func command(t *testing.T, dir, builder string, args ...string) *exec.Cmd {
	t.Helper()
	program, err := slipway()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, append([]string{"build", "--progress=plain", "--builder", builder, "machine.yml"}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "XDG_CACHE_HOME="+t.TempDir()) // without parts of other builds
	return cmd
}

// build runs cmd and returns the digest of its output file, or an error with
// the output of the command.
func build(cmd *exec.Cmd) (string, error) {
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, log.String())
	}
	return digest(filepath.Join(cmd.Dir, result))
}

func digest(name string) (string, error) {
	data, err := os.ReadFile(name)
	return fmt.Sprintf("%x", sha256.Sum256(data)), err
}

// newDir returns a directory with the machine's YAML.
func newDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "machine.yml"), []byte(machine), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// files lists what dir contains besides the machine's YAML.
func files(t *testing.T, dir string) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(dir, func(name string, _ fs.DirEntry, err error) error {
		if rel, _ := filepath.Rel(dir, name); rel != "." && rel != "machine.yml" {
			names = append(names, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// want returns the digest of the machine without a fault, built by the stack's
// builder.
func want(t *testing.T) string {
	t.Helper()
	stack.Require(t)
	sum, err := build(command(t, newDir(t), stack.Builder))
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// start starts an empty builder and stops it at the end of the test.
func start(t *testing.T, c buildkitd.Config) *buildkitd.Daemon {
	t.Helper()
	d, err := buildkitd.Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(d.Log())
		}
		if err := d.Stop(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// TestKilledBuilder kills the builder at random moments of a build. The
// restarted builder builds the same bytes.
func TestKilledBuilder(t *testing.T) {
	want := want(t)
	d := start(t, buildkitd.Config{})
	dir := newDir(t)
	took := time.Duration(0)
	const seed = 20261128
	random := rand.New(rand.NewPCG(seed, seed))
	interrupted, pruned := 0, 0
	for i := range *kills {
		prune(t, d)
		os.Remove(filepath.Join(dir, result))
		if took == 0 { // the first build measures the time for the others
			begin := time.Now()
			if got, err := build(command(t, dir, d.Address)); err != nil || got != want {
				t.Fatalf("digest %s, want %s: %v", got, want, err)
			}
			took = time.Since(begin)
			prune(t, d)
			os.Remove(filepath.Join(dir, result))
		}
		cmd := command(t, dir, d.Address)
		failed := make(chan error, 1)
		go func() {
			_, err := build(cmd)
			failed <- err
		}()
		moment := time.Duration(random.Int64N(int64(took)))
		time.Sleep(moment)
		d.Kill()
		if err := <-failed; err != nil {
			interrupted++
			if left := files(t, dir); len(left) > 0 {
				t.Errorf("kill %d after %v: the failed build left %q", i, moment, left)
			}
		}
		if err := d.Restart(t.Context()); err != nil {
			t.Fatalf("kill %d after %v: %v", i, moment, err)
		}
		got, err := build(command(t, dir, d.Address))
		// A kill between containerd's rename of a snapshot and the commit of
		// its database leaves a directory in the way of the next snapshot.
		// BuildKit removes it when it prunes.
		if err != nil && strings.Contains(err.Error(), "file exists") {
			pruned++
			prune(t, d)
			got, err = build(command(t, dir, d.Address))
		}
		if err != nil || got != want {
			t.Fatalf("kill %d after %v: digest %s, want %s: %v", i, moment, got, want, err)
		}
	}
	t.Logf("%d kills, %d of them during a build of %v; %d builders had to be pruned", *kills, interrupted, took, pruned)
	if interrupted < *kills/2 {
		t.Errorf("only %d of %d kills interrupted a build", interrupted, *kills)
	}
}

// prune empties the builder's cache.
func prune(t *testing.T, d *buildkitd.Daemon) {
	t.Helper()
	root, err := stack.Root()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(filepath.Join(root, ".stack", "bin", "buildctl"), "--addr", d.Address, "prune", "--all").CombinedOutput()
	if err != nil {
		t.Fatalf("buildctl prune: %v\n%s", err, out)
	}
}

// smallDisk mounts a filesystem of size bytes until the end of the test.
func smallDisk(t *testing.T, size int) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// TestFullDisk builds with too little space, first on the builder's disk, then
// on that of the output.
func TestFullDisk(t *testing.T) {
	want := want(t)
	t.Run("builder", func(t *testing.T) {
		state := smallDisk(t, 24<<20)
		d := start(t, buildkitd.Config{Root: state})
		dir := newDir(t)
		_, err := build(command(t, dir, d.Address))
		if err == nil || !strings.Contains(err.Error(), "no space left on device") {
			t.Fatalf("the build should fail for lack of space: %v", err)
		}
		if left := files(t, dir); len(left) > 0 {
			t.Errorf("the failed build left %q", left)
		}
		if err := syscall.Mount("tmpfs", state, "tmpfs", syscall.MS_REMOUNT, "size=1g"); err != nil {
			t.Fatal(err)
		}
		if got, err := build(command(t, dir, d.Address)); err != nil || got != want {
			t.Errorf("with more space: digest %s, want %s: %v", got, want, err)
		}
	})
	t.Run("client", func(t *testing.T) {
		out := smallDisk(t, 1<<20)
		d := start(t, buildkitd.Config{})
		dir := newDir(t)
		_, err := build(command(t, dir, d.Address, "-o", out))
		if err == nil || !strings.Contains(err.Error(), "no space left on device") {
			t.Fatalf("the build should fail for lack of space: %v", err)
		}
		if left := files(t, out); len(left) > 0 {
			t.Errorf("the failed build left %q", left)
		}
	})
}

// TestInterrupt interrupts a build with SIGINT, as ctrl-C does.
func TestInterrupt(t *testing.T) {
	want := want(t)
	d := start(t, buildkitd.Config{})
	dir := newDir(t)
	for _, after := range []time.Duration{0, 100 * time.Millisecond, 400 * time.Millisecond, time.Second} {
		prune(t, d)
		cmd := command(t, dir, d.Address)
		var log bytes.Buffer
		cmd.Stdout, cmd.Stderr = &log, &log
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50*time.Millisecond + after) // the program must have its signal handler
		begin := time.Now()
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		err := cmd.Wait()
		if err == nil {
			os.Remove(filepath.Join(dir, result))
			continue // the build was faster
		}
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 130 {
			t.Errorf("after %v: %v, want exit status 130\n%s", after, err, log.String())
		}
		if took := time.Since(begin); took > 10*time.Second {
			t.Errorf("after %v: the command took %v to end", after, took)
		}
		if left := files(t, dir); len(left) > 0 {
			t.Errorf("after %v: the interrupted build left %q", after, left)
		}
	}
	if got, err := build(command(t, dir, d.Address)); err != nil || got != want {
		t.Errorf("the build after the interrupted ones: digest %s, want %s: %v", got, want, err)
	}
}

// TestTwoBuilds builds the same machine twice at the same time into one
// directory.
func TestTwoBuilds(t *testing.T) {
	want := want(t)
	d := start(t, buildkitd.Config{})
	dir := newDir(t)
	var group sync.WaitGroup
	for range 2 {
		group.Go(func() {
			if got, err := build(command(t, dir, d.Address)); err != nil || got != want {
				t.Errorf("digest %s, want %s: %v", got, want, err)
			}
		})
	}
	group.Wait()
	if left := files(t, dir); len(left) != 1 {
		t.Errorf("the builds left %q, want only %s", left, result)
	}
}

// TestClock builds with tools whose clock is in 1970, or in 2038 when 32-bit
// seconds overflow.
func TestClock(t *testing.T) {
	want := want(t)
	for _, now := range []time.Time{time.Unix(60, 0), time.Unix(1<<31+60, 0)} {
		t.Run(now.UTC().Format("2006"), func(t *testing.T) {
			programs := t.TempDir()
			clock.Build(t, programs, "../..", time.Until(now).Truncate(time.Second), "./cmd/slipway-packer", "./cmd/slipway-exporter")
			tools := stack.Registry + "/test/clock:" + now.UTC().Format("2006")
			_, stderr, err := buildxStdin(programs, "FROM scratch\nCOPY --from=slipwaybuild/slipway:1 /loaders /loaders\nCOPY slipway-packer slipway-exporter /\n",
				"--provenance=false", "-o", "type=registry", "-t", tools, "-f", "-", ".")
			if err != nil {
				t.Fatalf("%v\n%s", err, stderr)
			}
			d := start(t, buildkitd.Config{})
			got, err := build(command(t, newDir(t), d.Address, "--build-context=slipway-tools=docker-image://"+tools))
			if err != nil || got != want {
				t.Errorf("digest %s, want %s: %v", got, want, err)
			}
		})
	}
}

// buildxStdin is stack.Buildx with a Dockerfile on standard input.
func buildxStdin(dir, dockerfile string, args ...string) (stdout, stderr string, err error) {
	cmd := exec.CommandContext(context.Background(), "docker", append([]string{"buildx", "build", "--builder", stack.Builder}, args...)...)
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(dockerfile)
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &e
	err = cmd.Run()
	return o.String(), e.String(), err
}
