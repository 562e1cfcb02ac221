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
	"time"

	"github.com/slipway-build/slipway/guest/bundle"
)

// runc runs containers without containerd: those of onboot and onshutdown, and the services of a machine that has no containerd.
type runc struct {
	family *family
	path   string
	debug  bool
}

func (r *runc) command(stderr *os.File, args ...string) command {
	if r.debug {
		args = append([]string{"--debug"}, args...)
	}
	return command{path: r.path, args: args, stderr: stderr}
}

// start prepares a bundle and starts its container. The container and runc itself write to the files given. Whatever comes back, remove cleans up.
func (r *runc) start(b *bundle.Bundle, stdout, stderr *os.File) (*process, error) {
	if r.path == "" {
		return nil, errors.New("no runc in this machine: add an init image that has it")
	}
	if err := b.Prepare(); err != nil {
		return nil, err
	}
	pidFile := filepath.Join("/run", b.Name+".pid")
	defer os.Remove(pidFile)
	create := r.command(stderr, "create", "--bundle", b.Dir, "--pid-file", pidFile, b.Name)
	create.stdout = stdout
	if err := r.family.run(create); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(pidFile)
	if err != nil {
		return nil, err
	}
	pid, err := strconv.Atoi(string(bytes.TrimSpace(text)))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", pidFile, err)
	}
	// The container waits for "runc start", so it is still there.
	p, err := r.family.adopt(pid)
	if err != nil {
		return nil, err
	}
	if err := b.Attach(pid); err != nil {
		return nil, err
	}
	return p, r.family.run(r.command(stderr, "start", b.Name))
}

// remove kills what is left of the container and takes its mounts away.
func (r *runc) remove(b *bundle.Bundle, stderr *os.File) error {
	return errors.Join(r.family.run(r.command(stderr, "delete", "--force", b.Name)), b.Release())
}

// runAll runs the containers in /containers/KIND to their end, in the order of their names.
func (m *machine) runAll(ctx context.Context, kind string) error {
	dirs, err := bundle.List(filepath.Join("/containers", kind))
	for _, dir := range dirs {
		if ctx.Err() != nil {
			break
		}
		m.runToEnd(ctx, kind, dir)
	}
	return err
}

// runToEnd runs one container and tells how it ended.
func (m *machine) runToEnd(ctx context.Context, kind, dir string) {
	name := kind + " " + filepath.Base(dir)
	begin := time.Now()
	logs, err := m.openLogs(filepath.Join("/run/log", kind), kind+"."+filepath.Base(dir))
	if err != nil {
		m.out.say("%s: %v", name, err)
		return
	}
	defer logs.close()
	b, err := bundle.Open(dir)
	if err != nil {
		m.out.say("%s: failed: %v", name, err)
		return
	}
	p, err := m.runc.start(b, logs.stdout, logs.stderr)
	if err == nil {
		err = m.waitFor(ctx, name, p)
	}
	if err != nil {
		m.out.say("%s: failed: %v", name, err)
		logs.quote(m.out)
	}
	if err := m.runc.remove(b, logs.stderr); err != nil {
		m.out.say("%s: clean up: %v", name, err)
	}
	if err == nil {
		m.out.say("%s: done in %.2f s, exit 0", name, time.Since(begin).Seconds())
	}
}

// waitFor waits for the end of a container, and ends it itself when ctx ends. It is an error if the container fails.
func (m *machine) waitFor(ctx context.Context, name string, p *process) error {
	begin := time.Now()
	patience := time.NewTicker(30 * time.Second)
	defer patience.Stop()
	for {
		select {
		case <-p.done:
			if p.status != 0 {
				return errors.New(describe(p.status))
			}
			return nil
		case <-patience.C:
			m.out.say("%s: still running after %.0f s", name, time.Since(begin).Seconds())
		case <-ctx.Done():
			syscall.Kill(p.pid, syscall.SIGTERM)
			select {
			case <-p.done:
			case <-time.After(5 * time.Second): // remove kills it
			}
			return errors.New("stopped, because the machine stops")
		}
	}
}

// logs are the two files to which a container writes.
type logs struct{ stdout, stderr *os.File }

// openLogs opens the files DIR/NAME.out.log and DIR/NAME.log, or the console if linuxkit.runc_console=1 asks for it.
func (m *machine) openLogs(dir, name string) (*logs, error) {
	if m.flag("linuxkit.runc_console") {
		console, err := os.OpenFile("/dev/console", os.O_WRONLY|syscall.O_NOCTTY, 0)
		return &logs{console, console}, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	stdout, err1 := openLog(filepath.Join(dir, name+".out.log"))
	stderr, err2 := openLog(filepath.Join(dir, name+".log"))
	return &logs{stdout, stderr}, errors.Join(err1, err2)
}

func openLog(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
}

// quote shows the end of the logs on the console, unless they went there.
func (l *logs) quote(out *console) {
	if l.stdout != l.stderr {
		out.quote(tail(l.stdout.Name(), 10))
		out.quote(tail(l.stderr.Name(), 10))
	}
}

func (l *logs) close() {
	l.stdout.Close()
	l.stderr.Close()
}
