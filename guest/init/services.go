package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/guest/bundle"
	"github.com/slipway-build/slipway/internal/contract"
	"github.com/slipway-build/slipway/internal/contract/policy"
)

// engine runs the containers of services: containerd, or runc alone.
type engine interface {
	// start starts the container of a bundle, which writes to the stream.
	start(ctx context.Context, b *bundle.Bundle, out *stream) (*task, error)
	// remove takes away what a start has left, one that failed too.
	remove(b *bundle.Bundle)
}

// task is a running container.
type task struct {
	pid    int    // of its first process
	memory string // memory.events of its cgroup, "" if it has none
	signal func(syscall.Signal) error
	done   chan struct{} // closed at its end
	end    string        // how; this and the next to be read after that
	failed bool
}

// state is what a service does.
type state string

const (
	waiting  state = "waiting"  // for a service that it needs
	starting state = "starting" // its container is being made
	running  state = "running"
	pausing  state = "pausing" // will be started again
	ended    state = "ended"   // by itself, and stays so
	failed   state = "failed"  // the same, with an error
	stopped  state = "stopped" // because somebody asked for that
)

// Pauses before a service is started again.
const (
	firstPause = time.Second
	lastPause  = time.Minute
	calm       = time.Minute // a service that has run so long is well: the next pause is the first one again
)

// startTimeout is how long the start of a container may take.
const startTimeout = 2 * time.Minute

// service is a container that should run as long as the machine.
type service struct {
	name   string
	bundle *bundle.Bundle
	policy policy.Policy
	needs  []*service
	out    *console
	times  *timeline
	stream *stream
	engine func(ctx context.Context) (engine, error) // waits until there is one

	mu      sync.Mutex
	changed chan struct{} // closed and replaced at each change
	wanted  bool          // that it runs
	closing bool          // the machine stops: it is never wanted again
	state   state
	since   time.Duration // after the start of the kernel
	pid     int
	tries   int
	starts  int    // tries that succeeded
	end     string // of the last run
}

func newService(name string) *service {
	return &service{name: name, changed: make(chan struct{}), state: waiting, wanted: true}
}

// update changes the service, under its lock.
func (s *service) update(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *service) enter(next state) {
	s.update(func() { s.state, s.since = next, sinceBoot() })
}

// await waits until a condition about the service holds, or for the other channel. It tells whether the condition holds.
func (s *service) await(condition func() bool, other <-chan struct{}) bool {
	for {
		s.mu.Lock()
		ok, changed := condition(), s.changed
		s.mu.Unlock()
		if ok {
			return true
		}
		select {
		case <-changed:
		case <-other:
			return false
		}
	}
}

func (s *service) unwanted() bool { return !s.wanted }

// resting tells that nothing happens until somebody asks for it.
func (s *service) resting() bool { return s.state == ended || s.state == failed || s.state == stopped }

// settled tells that the first start has come to an end, a good one or a bad one.
func (s *service) settled() bool { return s.starts > 0 || s.state == pausing || s.resting() }

func (s *service) say(format string, args ...any) {
	s.out.say("service %s: %s", s.name, fmt.Sprintf(format, args...))
}

// supervise keeps the service as it is wanted, until the machine stops.
func (s *service) supervise() {
	pause := firstPause
	for {
		if s.await(func() bool { return s.wanted || s.closing }, nil); s.closing {
			return
		}
		end, failure, ran := s.run()
		var wanted bool
		s.update(func() { s.pid, s.end, wanted = 0, end, s.wanted })
		if !wanted {
			s.say("stopped: %s", end)
			s.enter(stopped)
			pause = firstPause
			continue
		}
		if !s.policy.Restart.Again(failure) {
			s.say("%s, see %s", end, s.stream.place)
			s.update(func() {
				s.wanted, s.state, s.since = false, ended, sinceBoot()
				if failure {
					s.state = failed
				}
			})
			continue
		}
		if ran >= calm {
			pause = firstPause
		}
		s.say("%s, starts again in %v", end, pause)
		s.enter(pausing)
		over := make(chan struct{})
		timer := time.AfterFunc(pause, func() { close(over) })
		if s.await(s.unwanted, over) {
			s.enter(stopped)
		}
		timer.Stop()
		pause = min(2*pause, lastPause)
	}
}

// run runs the service once, as long as it is wanted. It tells how it ended, whether that is a failure, and for how long it ran.
func (s *service) run() (end string, failure bool, ran time.Duration) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { // who waits or starts is interrupted
		if s.await(s.unwanted, ctx.Done()) {
			cancel()
		}
	}()
	s.update(func() { s.state, s.since, s.tries = waiting, sinceBoot(), s.tries+1 })
	if err := s.awaitNeeded(ctx); err != nil {
		return "failed: " + err.Error(), true, 0
	}
	engine, err := s.engine(ctx)
	if err != nil {
		return "failed: " + err.Error(), true, 0
	}
	s.enter(starting)
	begin := time.Now()
	over := func(bool) {}
	if s.tries == 1 { // the timeline is that of the machine's start
		over = s.times.begin("service " + s.name)
	}
	// To interrupt a start would leave half a container.
	patient, giveUp := context.WithTimeout(context.WithoutCancel(ctx), startTimeout)
	defer giveUp()
	task, err := engine.start(patient, s.bundle, s.stream)
	over(err != nil)
	if err != nil {
		engine.remove(s.bundle)
		s.stream.quote(s.out)
		return "failed: " + err.Error(), true, 0
	}
	started := time.Now()
	s.say("started in %.2f s", started.Sub(begin).Seconds())
	s.update(func() { s.state, s.since, s.pid, s.starts = running, sinceBoot(), task.pid, s.starts+1 })
	if s.await(s.unwanted, task.done) {
		s.stop(task)
	}
	select {
	case <-task.done:
	default:
		return "does not end", true, time.Since(started)
	}
	end = task.end
	if outOfMemory(task.memory) {
		end += ", out of memory"
	}
	engine.remove(s.bundle)
	return end, task.failed, time.Since(started)
}

// awaitNeeded waits until all that the service needs has been started.
func (s *service) awaitNeeded(ctx context.Context) error {
	for _, other := range s.needs {
		if !other.await(func() bool { return other.starts > 0 || other.resting() }, ctx.Done()) {
			return errors.New("no longer wanted")
		}
		other.mu.Lock()
		starts := other.starts
		other.mu.Unlock()
		if starts == 0 {
			return fmt.Errorf("needs service %s, which has not been started", other.name)
		}
	}
	return nil
}

// stop asks a container to end, and kills it if it has not after the time that it has.
func (s *service) stop(t *task) {
	patience := s.policy.Timeout
	if patience == 0 {
		patience = policy.StopTimeout
	}
	for _, step := range []struct {
		signal   syscall.Signal
		patience time.Duration
	}{{syscall.SIGTERM, patience}, {syscall.SIGKILL, 2 * time.Second}} {
		signal := step.signal
		if status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", t.pid)); err == nil && isDeaf(status, signal) {
			signal = syscall.SIGKILL // no use in waiting
		}
		if err := t.signal(signal); err != nil {
			s.say("%s: %v", unix.SignalName(signal), err)
		}
		select {
		case <-t.done:
			return
		case <-time.After(step.patience):
			s.say("still running %v after %s", step.patience, unix.SignalName(signal))
		}
	}
}

// startServices starts all services at once. Those that wait for each other are started in no order.
func (m *machine) startServices(ctx context.Context) error {
	m.checkContainerd()
	dirs, err := bundle.List("/" + contract.Bundles(contract.Services))
	if err != nil {
		return err
	}
	if m.containerd == nil && len(dirs) > 0 {
		m.out.say("containerd: not in this machine: services run under runc alone")
	}
	byName := map[string]*service{}
	var all []*service
	for _, dir := range dirs {
		s, err := m.service(dir)
		if err != nil {
			m.out.say("service %s: failed: %v", filepath.Base(dir), err)
			continue
		}
		byName[s.name] = s
		all = append(all, s)
	}
	after := map[string][]string{}
	for _, s := range all {
		after[s.name] = s.policy.After
	}
	cycle := policy.Cycle(after)
	if cycle != nil {
		m.out.say("services wait for each other: %s: they start in no order", strings.Join(cycle, " waits for "))
	}
	for _, s := range all {
		for _, name := range s.policy.After {
			if other := byName[name]; other == nil {
				m.out.say("service %s: needs service %s, which is not in this machine", s.name, name)
			} else if cycle == nil {
				s.needs = append(s.needs, other)
			}
		}
	}
	m.mu.Lock()
	m.services = all
	m.mu.Unlock()
	for _, s := range all {
		go s.supervise()
	}
	for _, s := range all {
		s.await(s.settled, ctx.Done())
	}
	return nil
}

// service reads the bundle of a service.
func (m *machine) service(dir string) (*service, error) {
	b, err := bundle.Open(dir)
	if err != nil {
		return nil, err
	}
	s := newService(b.Name)
	s.bundle, s.out, s.times, s.engine = b, m.out, m.times, m.engine
	s.policy = m.policy(b, contract.Services)
	s.stream, err = m.openStream(s.name)
	return s, err
}

// policy reads the annotations of a bundle. What is wrong with them is told and has no effect.
func (m *machine) policy(b *bundle.Bundle, section string) policy.Policy {
	annotations, err := b.Annotations()
	p, wrong := policy.Parse(section, annotations)
	if err := errors.Join(err, wrong); err != nil {
		m.out.say("%s: %v", b.Name, err)
	}
	return p
}

// engine gives what runs services, when it is ready.
func (m *machine) engine(ctx context.Context) (engine, error) {
	if m.containerd == nil {
		return m.runc, nil
	}
	return m.containerd, m.containerd.await(ctx)
}

// findService gives a service by its name.
func (m *machine) findService(name string) *service {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := slices.IndexFunc(m.services, func(s *service) bool { return s.name == name })
	if i < 0 {
		return nil
	}
	return m.services[i]
}

// started counts the services that have been started.
func (m *machine) started() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, s := range m.services {
		s.mu.Lock()
		if s.starts > 0 {
			n++
		}
		s.mu.Unlock()
	}
	return n
}

// stopServices stops all services, each when those that need it have stopped.
func (m *machine) stopServices() {
	m.mu.Lock()
	services := m.services
	m.mu.Unlock()
	var all sync.WaitGroup
	for _, s := range services {
		all.Go(func() {
			for _, other := range services {
				if slices.Contains(other.needs, s) {
					other.await(other.resting, nil)
				}
			}
			s.update(func() { s.wanted, s.closing = false, true })
			s.await(s.resting, nil)
		})
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		all.Wait()
	}()
	select {
	case <-done:
	case <-time.After(startTimeout + time.Minute):
		m.out.say("services do not stop, stop anyway")
	}
}

// memoryEvents is the file in which the kernel counts for a process's cgroup what it did for want of memory, "" if there is none. Before a
// container is started its process is there to ask for.
func memoryEvents(pid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::/"); ok && path != "" {
			return filepath.Join(bundle.CgroupRoot, path, "memory.events")
		}
	}
	return ""
}

// outOfMemory tells whether the kernel has killed a process of the cgroup because it had no memory left (cgroups(7), memory.events).
func outOfMemory(events string) bool {
	text, err := os.ReadFile(events)
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		if count, ok := strings.CutPrefix(line, "oom_kill "); ok {
			return strings.TrimSpace(count) != "0"
		}
	}
	return false
}

// isDeaf tells from /proc/PID/status whether a signal does nothing to a process: it is the first of its PID namespace and
// does not catch the signal (pid_namespaces(7), "The namespace init process").
func isDeaf(status []byte, signal syscall.Signal) bool {
	first, caught := false, uint64(0)
	for line := range strings.Lines(string(status)) {
		key, value, _ := strings.Cut(line, ":")
		fields := strings.Fields(value)
		switch key {
		case "NSpid":
			first = len(fields) > 1 && fields[len(fields)-1] == "1"
		case "SigCgt":
			var err error
			if caught, err = strconv.ParseUint(strings.TrimSpace(value), 16, 64); err != nil {
				return false
			}
		}
	}
	return first && caught&(1<<(signal-1)) == 0
}
