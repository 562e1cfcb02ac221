package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/guest/bundle"
	"github.com/slipway-build/slipway/guest/containerd"
	"github.com/slipway-build/slipway/internal/contract/runtimejson"
)

const (
	containerdPath   = "/usr/bin/containerd"
	containerdRun    = "/run/containerd"
	containerdSocket = containerdRun + "/containerd.sock"
	containerdConfig = "/etc/containerd/config.toml"
	containerdState  = "/var/lib/containerd"
	containerdCgroup = bundle.CgroupRoot + "/containerd"
)

// A daemon runs containerd and restarts it whenever it ends; containers keep
// running meanwhile. It is an engine for services.
type daemon struct {
	m      *machine
	client *containerd.Client
	stream *stream

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced at each change
	ready    bool
	process  *process // nil while it does not run
	stopping bool

	shims shims
}

// hasContainerd reports whether the machine contains containerd.
func hasContainerd() bool {
	info, err := os.Stat(containerdPath)
	return err == nil && info.Mode().IsRegular()
}

// launchContainerd starts the daemon and keeps it running.
func (m *machine) launchContainerd(stream *stream) {
	// The daemon makes the directory itself, but then places would not know it.
	if err := os.MkdirAll(containerdState, 0o711); err != nil {
		m.out.say("containerd: %v", err)
	}
	m.containerd = &daemon{m: m, client: &containerd.Client{Socket: containerdSocket}, stream: stream, changed: make(chan struct{}), shims: newShims()}
	m.containerdPlace = places(containerdConfig, containerdState)
	go m.containerd.supervise()
}

// checkContainerd restarts the daemon if an onboot container has mounted a disk
// on one of its directories. The daemon starts before these containers.
func (m *machine) checkContainerd() {
	if m.containerd == nil || m.containerdPlace == places(containerdConfig, containerdState) {
		return
	}
	m.out.say("containerd: restarting because %s was mounted", containerdState)
	m.containerd.stop()
	m.launchContainerd(m.containerd.stream)
}

// places identifies files and directories, so that it changes when others are
// mounted over them.
func places(paths ...string) string {
	text := ""
	for _, path := range paths {
		var stat syscall.Stat_t
		if syscall.Stat(path, &stat) == nil {
			text += fmt.Sprintf("%d:%d ", stat.Dev, stat.Ino)
		}
	}
	return text
}

// update changes the daemon, under its lock.
func (d *daemon) update(change func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change()
	close(d.changed)
	d.changed = make(chan struct{})
}

// await waits until the daemon is ready.
func (d *daemon) await(ctx context.Context) error {
	for {
		d.mu.Lock()
		ready, stopping, changed := d.ready, d.stopping, d.changed
		d.mu.Unlock()
		switch {
		case stopping:
			return errors.New("containerd is being stopped")
		case ready:
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// supervise restarts the daemon whenever it ends, until stop.
func (d *daemon) supervise() {
	delay := firstDelay
	for {
		begin := sinceBoot()
		end := d.run()
		d.mu.Lock()
		stopping := d.stopping
		d.mu.Unlock()
		if stopping {
			return
		}
		if sinceBoot()-begin >= stable {
			delay = firstDelay
		}
		d.m.out.say("containerd: %s; restarting in %v, see %s", end, delay, d.stream.place)
		d.stream.quote(d.m.out)
		time.Sleep(delay)
		delay = min(2*delay, maxDelay)
	}
}

// run runs the daemon until it ends, and returns how it ended.
func (d *daemon) run() string {
	begin := sinceBoot()
	finish := d.m.times.begin("containerd")
	p, err := d.launch()
	if err != nil {
		finish(true)
		return "failed: " + err.Error()
	}
	gone := false
	d.update(func() { d.process, gone = p, d.stopping })
	if gone {
		d.terminate(p)
	}
	for {
		if conn, err := net.Dial("unix", containerdSocket); err == nil {
			conn.Close()
			break
		}
		select {
		case <-p.done:
			finish(true)
			d.update(func() { d.process = nil })
			return describe(p.status) + " before it was ready"
		case <-time.After(20 * time.Millisecond):
		}
	}
	finish(false)
	d.m.out.say("containerd: ready in %.2f s", (sinceBoot() - begin).Seconds())
	d.update(func() { d.ready = true })
	<-p.done
	d.update(func() { d.ready, d.process = false, nil })
	return describe(p.status)
}

func (d *daemon) launch() (*process, error) {
	out, err := d.stream.writer()
	if err != nil {
		return nil, err
	}
	defer out.Close()
	// The socket of a killed daemon must not be taken for that of the new one.
	if err := os.Remove(containerdSocket); err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	c := command{path: containerdPath, stdout: out, stderr: out}
	// In its own cgroup the daemon can be measured and limited. Containers are
	// beside it, not in it.
	if bundle.Unified() {
		if err := os.MkdirAll(containerdCgroup, 0o755); err != nil {
			return nil, err
		}
		if c.cgroup, err = os.Open(containerdCgroup); err != nil {
			return nil, err
		}
		defer c.cgroup.Close()
	}
	return d.m.reaper.start(c)
}

// stop stops the daemon for good. The shims of containers keep running.
func (d *daemon) stop() {
	var p *process
	d.update(func() { d.stopping, p = true, d.process })
	if p != nil {
		d.terminate(p)
	}
}

func (d *daemon) terminate(p *process) {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		syscall.Kill(p.pid, signal) // if it has just ended, done is closed
		select {
		case <-p.done:
			return
		case <-time.After(5 * time.Second):
			d.m.out.say("containerd: still running 5 s after %v", signal)
		}
	}
}

// namespace returns the containerd namespace of a service.
func namespace(b *bundle.Bundle) string {
	if b.Runtime.Namespace != "" {
		return b.Runtime.Namespace
	}
	return runtimejson.DefaultNamespace
}

// start starts a container. If the daemon ends meanwhile, it tries again with
// the next one.
func (d *daemon) start(ctx context.Context, b *bundle.Bundle, out *stream, first bool) (*task, error) {
	for ; ; first = false {
		t, err := d.startTask(ctx, b, out, first)
		if !errors.Is(err, containerd.ErrUnavailable) {
			return t, err
		}
		if err := d.await(ctx); err != nil {
			return nil, err
		}
		d.remove(b)
	}
}

func (d *daemon) startTask(ctx context.Context, b *bundle.Bundle, out *stream, first bool) (*task, error) {
	if err := b.Prepare(); err != nil {
		return nil, err
	}
	create := d.createOwn
	if first {
		create = d.createFirst
	}
	pid, err := create(ctx, b, out)
	if err != nil {
		return nil, err
	}
	space := namespace(b)
	if err := b.Attach(pid); err != nil {
		return nil, err
	}
	t := &task{pid: pid, memory: memoryEvents(pid), done: make(chan struct{})}
	if err := d.client.StartTask(ctx, space, b.Name); err != nil {
		return nil, fmt.Errorf("start the task: %w", err)
	}
	t.signal = func(signal syscall.Signal) error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		err := d.client.KillTask(ctx, space, b.Name, signal, signal == syscall.SIGKILL)
		switch {
		case errors.Is(err, containerd.ErrNotFound):
			return nil // it has just ended
		case err != nil: // without the daemon, signal at least the first process
			return syscall.Kill(pid, signal)
		}
		return nil
	}
	go func() {
		defer close(t.done)
		t.end, t.status = d.waitTask(space, b.Name)
	}()
	return t, nil
}

// create creates a container of a group and its task, unless the container names
// another group. It replaces those that a killed daemon or an earlier boot left
// behind. The task shares the shim of a leader, or has that of its group.
func (d *daemon) create(ctx context.Context, b *bundle.Bundle, group, leader string, out *stream) (pid int, err error) {
	spec, err := b.Spec(map[string]string{containerd.GroupAnnotation: group})
	if err != nil {
		return 0, err
	}
	pid, err = d.createTask(ctx, b, spec, leader, out)
	if errors.Is(err, containerd.ErrAlreadyExists) {
		d.remove(b)
		pid, err = d.createTask(ctx, b, spec, leader, out)
	}
	return pid, err
}

func (d *daemon) createTask(ctx context.Context, b *bundle.Bundle, spec []byte, leader string, out *stream) (pid int, err error) {
	space := namespace(b)
	if err := d.client.CreateContainer(ctx, space, b.Name, spec, leader); err != nil {
		return 0, fmt.Errorf("create the container: %w", err)
	}
	if pid, err = d.client.CreateTask(ctx, space, b.Name, out.fifo, out.fifo); err != nil {
		return 0, fmt.Errorf("create the task: %w", err)
	}
	return pid, nil
}

// waitTask waits for the end of a container, across restarts of the daemon.
func (d *daemon) waitTask(space, id string) (end string, exit int) {
	absent := false // whether the daemon has been unavailable meanwhile
	for tries := 20; ; {
		status, err := d.client.WaitTask(context.Background(), space, id)
		switch {
		case err == nil && status > 128 && unix.SignalName(syscall.Signal(status-128)) != "":
			return "ended, killed by " + unix.SignalName(syscall.Signal(status-128)), int(status)
		case err == nil:
			return fmt.Sprintf("ended, exit %d", status), int(status)
		case errors.Is(err, containerd.ErrNotFound) && absent:
			return "ended while containerd was not running", 1
		case errors.Is(err, containerd.ErrNotFound):
			return "ended, killed with its shim", 1
		case errors.Is(err, containerd.ErrUnavailable):
			absent = true
		case tries > 0: // the daemon is about to notice that the shim is gone
			tries--
			time.Sleep(250 * time.Millisecond)
			continue
		default:
			return fmt.Sprintf("cannot be watched: %v", err), 1
		}
		if err := d.await(context.Background()); err != nil {
			return err.Error(), 1
		}
	}
}

// exec runs a program in the container of a service, with the runc that
// containerd's shim uses too.
func (d *daemon) exec(ctx context.Context, b *bundle.Bundle, args []string) error {
	return d.m.runc.execIn(ctx, runcRoot(namespace(b)), b.Name, args)
}

// runcRoot is where containerd's shim has the state of runc for a namespace.
func runcRoot(namespace string) string { return filepath.Join(containerdRun, "runc", namespace) }

// remove removes what exists of the task and the container, so that the name
// can be used again. Containerd rejects some of these calls while it still
// works on an earlier one, so remove tries again until nothing is left.
func (d *daemon) remove(b *bundle.Bundle) {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	space := namespace(b)
	d.dismiss(b)
	for {
		if err := d.await(ctx); err != nil {
			return // the machine stops, which removes the rest
		}
		err := d.removeTask(ctx, space, b.Name)
		if err == nil {
			err = d.client.DeleteContainer(ctx, space, b.Name)
		}
		if err == nil || errors.Is(err, containerd.ErrNotFound) {
			return
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			d.m.out.say("service %s: clean up: %v", b.Name, err)
			return
		}
	}
}

// removeTask removes the task of a container. If a start was interrupted,
// containerd may have forgotten the task and left what a new one would collide
// with.
func (d *daemon) removeTask(ctx context.Context, space, name string) error {
	d.client.KillTask(ctx, space, name, syscall.SIGKILL, true) // fails if nothing runs
	err := d.client.DeleteTask(ctx, space, name)
	if !errors.Is(err, containerd.ErrNotFound) {
		return err
	}
	root := runcRoot(space)
	if _, err := os.Lstat(filepath.Join(root, name)); err == nil {
		if err := d.m.reaper.run(ctx, d.m.runc.command(nil, "--root", root, "delete", "--force", name)); err != nil {
			return err
		}
	}
	dir := filepath.Join(containerdRun, "io.containerd.runtime.v2.task", space, name)
	if _, err := os.Lstat(dir); err != nil {
		return nil
	}
	if err := bundle.UnmountBelow(dir); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}
