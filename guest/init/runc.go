package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/slipway-build/slipway/guest/bundle"
)

var errNoRunc = errors.New("runc not found: add slipwaybuild/runc or another image that contains it to init")

// runc runs containers without containerd: those of onboot and onshutdown, and
// the services of a machine without containerd.
type runc struct {
	reaper *reaper
	path   string
	debug  bool
}

func (r *runc) command(stderr *os.File, args ...string) command {
	if r.debug {
		args = append([]string{"--debug"}, args...)
	}
	return command{path: r.path, args: args, stderr: stderr}
}

// create prepares a bundle and starts its container, which then runs without
// runc. The container and runc itself write to the given files. Whatever create
// returns, the caller must call delete. When ctx ends, create kills runc.
func (r *runc) create(ctx context.Context, b *bundle.Bundle, stdout, stderr *os.File) (*process, error) {
	if r.path == "" {
		return nil, errNoRunc
	}
	if err := b.Prepare(); err != nil {
		return nil, err
	}
	defer os.Remove(pidFile(b))
	dir, err := b.Materialize(bundleDir)
	if err != nil {
		return nil, err
	}
	create := r.command(stderr, "create", "--bundle", dir, "--pid-file", pidFile(b), b.Name)
	create.stdout = stdout
	if err := r.reaper.run(ctx, create); err != nil {
		return nil, err
	}
	pid := readPID(pidFile(b))
	if pid == 0 {
		return nil, fmt.Errorf("%s: no process id from runc", pidFile(b))
	}
	// The container waits for "runc start", so it still exists.
	p, err := r.reaper.watch(pid)
	if err != nil {
		return nil, err
	}
	p.memory = memoryEvents(pid)
	if err := b.Attach(pid); err != nil {
		return nil, err
	}
	return p, r.reaper.run(ctx, r.command(stderr, "start", b.Name))
}

// run prepares a bundle and starts its container under a runc that ends with
// the container and cleans up. That takes two programs fewer than create. The
// process ID of the container is in its pidFile.
func (r *runc) run(_ context.Context, b *bundle.Bundle, stdout, stderr *os.File) (*process, error) {
	if r.path == "" {
		return nil, errNoRunc
	}
	if err := b.Prepare(); err != nil {
		return nil, err
	}
	dir, err := b.Materialize(bundleDir)
	if err != nil {
		return nil, err
	}
	c := r.command(stderr, "run", "--bundle", dir, "--pid-file", pidFile(b), b.Name)
	c.stdout = stdout
	return r.reaper.start(c)
}

// bundleDir holds the bundles that differ from those in the image of the
// machine.
const bundleDir = "/run/init/bundles"

func pidFile(b *bundle.Bundle) string { return filepath.Join("/run", b.Name+".pid") }

// readPID returns the process ID that runc has written to a file, or 0 if there
// is none yet.
func readPID(file string) int {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(string(bytes.TrimSpace(text)))
	if err != nil {
		return 0
	}
	return pid
}

// delete kills what remains of the container.
func (r *runc) delete(b *bundle.Bundle, stderr *os.File) error {
	return r.reaper.run(context.Background(), r.command(stderr, "delete", "--force", b.Name))
}

// start starts the container of a service.
func (r *runc) start(ctx context.Context, b *bundle.Bundle, out *stream, _ bool) (*task, error) {
	output, err := out.writer()
	if err != nil {
		return nil, err
	}
	defer output.Close()
	p, err := r.create(ctx, b, output, output)
	if err != nil {
		return nil, err
	}
	t := &task{pid: p.pid, memory: p.memory, done: make(chan struct{})}
	t.signal = func(signal syscall.Signal) error {
		if err := syscall.Kill(p.pid, signal); err != syscall.ESRCH {
			return err
		}
		return nil // it has just ended
	}
	go func() {
		<-p.done
		t.end, t.status = "ended, "+describe(p.status), exitStatus(p.status)
		close(t.done)
	}()
	return t, nil
}

// exec runs a program in the container of a service.
func (r *runc) exec(ctx context.Context, b *bundle.Bundle, args []string) error {
	return r.execIn(ctx, "", b.Name, args)
}

// remove removes the container of a service.
func (r *runc) remove(b *bundle.Bundle) { r.delete(b, nil) }
