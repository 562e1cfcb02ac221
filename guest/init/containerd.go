package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
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
	containerdSocket = "/run/containerd/containerd.sock"
	containerdConfig = "/etc/containerd/config.toml"
	containerdState  = "/var/lib/containerd"
	containerdCgroup = bundle.CgroupRoot + "/containerd"
)

// daemon is containerd, which is started again whenever it ends: containers live on without it. As an engine it runs the services.
type daemon struct {
	m      *machine
	client *containerd.Client
	stream *stream

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced at each change
	ready    bool
	process  *process // nil while there is none
	stopping bool
}

// hasContainerd tells whether the machine was built with containerd.
func hasContainerd() bool {
	info, err := os.Stat(containerdPath)
	return err == nil && info.Mode().IsRegular()
}

// launchContainerd starts the daemon and keeps it running.
func (m *machine) launchContainerd(stream *stream) {
	// It makes the directory itself, but then it would not be known which one it is.
	if err := os.MkdirAll(containerdState, 0o711); err != nil {
		m.out.say("containerd: %v", err)
	}
	m.containerd = &daemon{m: m, client: &containerd.Client{Socket: containerdSocket}, stream: stream, changed: make(chan struct{})}
	m.containerdPlace = places(containerdConfig, containerdState)
	go m.containerd.supervise()
}

// checkContainerd starts the daemon anew if it was started on other directories than those that are there now: it starts before the onboot
// containers, and one of them may mount a disk where it keeps its state.
func (m *machine) checkContainerd() {
	if m.containerd == nil || m.containerdPlace == places(containerdConfig, containerdState) {
		return
	}
	m.out.say("containerd: starts again, because %s has been mounted", containerdState)
	m.containerd.stop()
	m.launchContainerd(m.containerd.stream)
}

// places tells files and directories from others that are mounted over them.
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

func (d *daemon) update(change func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change()
	close(d.changed)
	d.changed = make(chan struct{})
}

// await waits until the daemon answers.
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

func (d *daemon) supervise() {
	pause := firstPause
	for {
		begin := sinceBoot()
		end := d.run()
		d.mu.Lock()
		stopping := d.stopping
		d.mu.Unlock()
		if stopping {
			return
		}
		if sinceBoot()-begin >= calm {
			pause = firstPause
		}
		d.m.out.say("containerd: %s, starts again in %v, see %s", end, pause, d.stream.place)
		d.stream.quote(d.m.out)
		time.Sleep(pause)
		pause = min(2*pause, lastPause)
	}
}

// run runs the daemon once and tells how it ended.
func (d *daemon) run() string {
	begin := sinceBoot()
	over := d.m.times.begin("containerd")
	p, err := d.launch()
	if err != nil {
		over(true)
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
			over(true)
			d.update(func() { d.process = nil })
			return describe(p.status) + " before it was ready"
		case <-time.After(20 * time.Millisecond):
		}
	}
	over(false)
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
	// A socket that a killed daemon has left would be taken for that of the new one.
	if err := os.Remove(containerdSocket); err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	c := command{path: containerdPath, stdout: out, stderr: out}
	// In a cgroup of its own it can be measured and limited; containers are beside it, not in it.
	if bundle.Unified() {
		if err := os.MkdirAll(containerdCgroup, 0o755); err != nil {
			return nil, err
		}
		if c.cgroup, err = os.Open(containerdCgroup); err != nil {
			return nil, err
		}
		defer c.cgroup.Close()
	}
	return d.m.family.start(c)
}

// stop ends the daemon for good. The shims of containers do not end with it.
func (d *daemon) stop() {
	var p *process
	d.update(func() { d.stopping, p = true, d.process })
	if p != nil {
		d.terminate(p)
	}
}

func (d *daemon) terminate(p *process) {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		syscall.Kill(p.pid, signal) // if it has just ended, that is seen now
		select {
		case <-p.done:
			return
		case <-time.After(5 * time.Second):
			d.m.out.say("containerd: still running 5 s after %v", signal)
		}
	}
}

func namespace(b *bundle.Bundle) string {
	if b.Runtime.Namespace != "" {
		return b.Runtime.Namespace
	}
	return runtimejson.DefaultNamespace
}

// start starts a container. If the daemon dies meanwhile, it is tried again with the next one.
func (d *daemon) start(ctx context.Context, b *bundle.Bundle, out *stream) (*task, error) {
	for {
		t, err := d.startTask(ctx, b, out)
		if !errors.Is(err, containerd.ErrUnavailable) {
			return t, err
		}
		if err := d.await(ctx); err != nil {
			return nil, err
		}
		d.remove(b)
	}
}

func (d *daemon) startTask(ctx context.Context, b *bundle.Bundle, out *stream) (*task, error) {
	if err := b.Prepare(); err != nil {
		return nil, err
	}
	spec, err := b.Spec()
	if err != nil {
		return nil, err
	}
	space := namespace(b)
	err = d.client.CreateContainer(ctx, space, b.Name, spec)
	if errors.Is(err, containerd.ErrAlreadyExists) { // from a daemon that was killed, or kept on a disk since the last start of the machine
		d.remove(b)
		err = d.client.CreateContainer(ctx, space, b.Name, spec)
	}
	if err != nil {
		return nil, fmt.Errorf("create the container: %w", err)
	}
	pid, err := d.client.CreateTask(ctx, space, b.Name, out.fifo, out.fifo)
	if err != nil {
		return nil, fmt.Errorf("create the task: %w", err)
	}
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
		case err != nil: // without the daemon, at least the first process is told
			return syscall.Kill(pid, signal)
		}
		return nil
	}
	go func() {
		defer close(t.done)
		t.end, t.failed = d.waitTask(space, b.Name)
	}()
	return t, nil
}

// waitTask waits for the end of a container, however many daemons that takes.
func (d *daemon) waitTask(space, id string) (end string, failure bool) {
	for {
		status, err := d.client.WaitTask(context.Background(), space, id)
		switch {
		case err == nil && status > 128 && unix.SignalName(syscall.Signal(status-128)) != "":
			return "ended, killed by " + unix.SignalName(syscall.Signal(status-128)), true
		case err == nil:
			return fmt.Sprintf("ended, exit %d", status), status != 0
		case errors.Is(err, containerd.ErrNotFound):
			return "ended while containerd was away", true
		case !errors.Is(err, containerd.ErrUnavailable):
			return fmt.Sprintf("no longer watched: %v", err), true
		}
		if err := d.await(context.Background()); err != nil {
			return err.Error(), true
		}
	}
}

// remove takes the task and the container away, whatever there is of them.
func (d *daemon) remove(b *bundle.Bundle) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := d.await(ctx); err != nil {
		return // the stop of the machine takes away the rest
	}
	space := namespace(b)
	d.client.KillTask(ctx, space, b.Name, syscall.SIGKILL, true) // each of these may have nothing to do
	d.client.DeleteTask(ctx, space, b.Name)
	if err := d.client.DeleteContainer(ctx, space, b.Name); err != nil && !errors.Is(err, containerd.ErrNotFound) && !errors.Is(err, containerd.ErrUnavailable) {
		d.m.out.say("service %s: clean up: %v", b.Name, err)
	}
}
