package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
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

// An engine runs the containers of services: containerd, or runc alone.
type engine interface {
	// start starts the container of a bundle, for the first time or again. Its
	// output goes to the stream.
	start(ctx context.Context, b *bundle.Bundle, out *stream, first bool) (*task, error)
	// exec runs a program in a running container. It is an error if the program
	// does not exit with status 0.
	exec(ctx context.Context, b *bundle.Bundle, args []string) error
	// remove removes what start has made, also if it failed.
	remove(b *bundle.Bundle)
}

// task is a running container.
type task struct {
	pid    int    // of its first process
	memory string // path of memory.events of its cgroup; "": none
	signal func(syscall.Signal) error
	done   chan struct{} // closed at its end
	end    string        // how it ended; end and status are valid only after done is closed
	status int           // of its first process
}

// A state is what a service currently does.
type state string

const (
	waiting  state = "waiting"  // for a service that it needs, or for its turn
	starting state = "starting" // its container is being created
	running  state = "running"
	pausing  state = "pausing" // until it is restarted
	ended    state = "ended"   // by itself, for good
	failed   state = "failed"  // the same, with an error
	stopped  state = "stopped" // on request
)

// The delay before a service is restarted doubles each time.
const (
	firstDelay = time.Second
	maxDelay   = time.Minute
	stable     = time.Minute // after running for so long, the delay is firstDelay again
)

// startTimeout is how long the start of a container may take once it is its
// turn.
const startTimeout = 2 * time.Minute

// newTurns returns a channel whose capacity is how many services may start at
// the same time. More starts than processors only slow each other down, until
// all of them exceed startTimeout. Two keep one processor busy while the other
// start waits.
func newTurns() chan struct{} { return make(chan struct{}, max(2, runtime.NumCPU())) }

// A service is a container that should run as long as the machine.
type service struct {
	name   string
	bundle *bundle.Bundle
	policy policy.Policy
	needs  []*service
	out    *console
	times  *timeline
	stream *stream
	engine func(ctx context.Context) (engine, error) // waits until it is ready
	turns  chan struct{}                             // holds an element for each service that starts
	// finished stops the machine because this service, a batch job, has ended
	// for good.
	finished func(status int)
	touch    func() // called at each change

	mu      sync.Mutex
	changed chan struct{} // closed and replaced at each change
	wanted  bool          // whether it should run
	closing bool          // whether the machine stops; then wanted stays false
	state   state
	since   time.Duration // when it entered the state, as sinceBoot
	pid     int
	memory  string // of its task; "": it does not run
	kills   int    // of processes of ended runs that were out of memory
	tries   int
	starts  int    // tries that succeeded
	end     string // of the last run
	health  health
	problem string // why the last check failed
	works   bool   // whether a check has succeeded since the last start
	sick    bool   // whether it must be restarted because it is unhealthy
}

func newService(name string) *service {
	return &service{name: name, changed: make(chan struct{}), state: waiting, wanted: true, touch: func() {}}
}

// update changes the service, under its lock.
func (s *service) update(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
	close(s.changed)
	s.changed = make(chan struct{})
	s.touch()
}

func (s *service) enter(next state) {
	s.update(func() { s.state, s.since = next, sinceBoot() })
}

// await waits until a condition on the service holds, or until the other
// channel is closed. It reports whether the condition holds.
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

// resting reports whether nothing happens without a request.
func (s *service) resting() bool { return s.state == ended || s.state == failed || s.state == stopped }

// settled reports whether the first start has succeeded or failed.
func (s *service) settled() bool { return s.starts > 0 || s.state == pausing || s.resting() }

func (s *service) say(format string, args ...any) {
	s.out.say("service %s: %s", s.name, fmt.Sprintf(format, args...))
}

// supervise runs the service as its policy and requests demand, until the
// machine stops.
func (s *service) supervise() {
	delay := firstDelay
	for {
		if s.await(func() bool { return s.wanted || s.closing }, nil); s.closing {
			return
		}
		r := s.run()
		var wanted bool
		s.update(func() { s.pid, s.end, wanted = 0, r.end, s.wanted })
		if !wanted {
			s.say("stopped: %s", r.end)
			s.enter(stopped)
			delay = firstDelay
			continue
		}
		if !r.again && !s.policy.Restart.Again(r.failed) {
			s.say("%s, see %s", r.end, s.stream.place)
			if r.failed && r.took > 0 {
				s.stream.quote(s.out)
			}
			s.update(func() {
				s.wanted, s.state, s.since = false, ended, sinceBoot()
				if r.failed {
					s.state = failed
				}
			})
			if s.policy.Batch {
				s.finished(r.status)
			}
			continue
		}
		if r.took >= stable && !r.useless {
			delay = firstDelay
		}
		s.say("%s; restarting in %v", r.end, delay)
		s.enter(pausing)
		elapsed := make(chan struct{})
		timer := time.AfterFunc(delay, func() { close(elapsed) })
		if s.await(s.unwanted, elapsed) {
			s.enter(stopped)
		}
		timer.Stop()
		delay = min(2*delay, maxDelay)
	}
}

// A run is one run of a service.
type run struct {
	end     string // how it ended
	failed  bool
	status  int           // of its first process; 1 if there was none
	again   bool          // whether the service must be restarted whatever its policy
	took    time.Duration // 0: the container was not started
	useless bool          // whether the checks of its health have all failed
}

// run runs the service once, until it ends, is no longer wanted, or is unhealthy
// and must be restarted.
func (s *service) run() run {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { // interrupts waiting
		if s.await(s.unwanted, ctx.Done()) {
			cancel()
		}
	}()
	s.update(func() { s.state, s.since, s.tries = waiting, sinceBoot(), s.tries+1 })
	task, engine, err := s.start(ctx)
	if err != nil {
		// A container that was too slow to start is not at fault.
		return run{end: "failed: " + err.Error(), failed: true, status: 1, again: errors.Is(err, errSlow)}
	}
	started := time.Now()
	s.update(func() {
		s.state, s.since, s.pid, s.memory, s.starts = running, sinceBoot(), task.pid, task.memory, s.starts+1
	})
	if s.policy.Health != nil {
		go s.monitor(ctx, engine, task)
	}
	if s.await(func() bool { return !s.wanted || s.sick }, task.done) {
		s.stop(task)
	}
	cancel()
	r := run{took: time.Since(started)}
	sick := s.endHealth(&r)
	select {
	case <-task.done:
	default:
		r.end, r.failed, r.status = "could not be killed", true, 1
		return r
	}
	r.end, r.failed, r.status = task.end, task.status != 0, task.status
	kills := oomKills(task.memory)
	if kills > 0 {
		r.end += ", out of memory"
	}
	s.update(func() { s.kills, s.memory = s.kills+kills, "" })
	if sick {
		r.end, r.failed, r.status = "unhealthy, "+r.end, true, max(r.status, 1)
	}
	engine.remove(s.bundle)
	return r
}

// errSlow is the cause of a start that exceeds its timeout.
var errSlow = fmt.Errorf("not started within %v", startTimeout)

// start starts the container when it is the service's turn. If that fails, it
// removes what remains of the container before the next service starts.
func (s *service) start(ctx context.Context) (*task, engine, error) {
	if err := s.awaitNeeded(ctx); err != nil {
		return nil, nil, err
	}
	engine, err := s.engine(ctx)
	if err != nil {
		return nil, nil, err
	}
	select {
	case s.turns <- struct{}{}:
		defer func() { <-s.turns }()
	case <-ctx.Done():
		return nil, nil, errCanceled
	}
	s.enter(starting)
	begin := time.Now()
	finish := func(bool) {}
	first := s.tries == 1
	if first { // the timeline shows only the boot
		finish = s.times.begin("service " + s.name)
	}
	// The start is not interrupted, since that would leave half a container.
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), startTimeout, errSlow)
	defer cancel()
	task, err := engine.start(ctx, s.bundle, s.stream, first)
	finish(err != nil)
	if err != nil {
		if ctx.Err() != nil {
			err = errSlow
		}
		engine.remove(s.bundle)
		s.stream.quote(s.out)
		return nil, nil, err
	}
	s.say("started in %.2f s", time.Since(begin).Seconds())
	return task, engine, nil
}

var errCanceled = errors.New("canceled")

// awaitNeeded waits until all services that this one needs have started.
func (s *service) awaitNeeded(ctx context.Context) error {
	for _, other := range s.needs {
		if !other.await(func() bool { return other.starts > 0 || other.resting() }, ctx.Done()) {
			return errCanceled
		}
		other.mu.Lock()
		starts := other.starts
		other.mu.Unlock()
		if starts == 0 {
			return fmt.Errorf("needs service %s, which did not start", other.name)
		}
	}
	return nil
}

// stop asks a container to end, and kills it after its timeout.
func (s *service) stop(t *task) {
	timeout := s.policy.Timeout
	if timeout == 0 {
		timeout = policy.StopTimeout
	}
	for _, step := range []struct {
		signal  syscall.Signal
		timeout time.Duration
	}{{syscall.SIGTERM, timeout}, {syscall.SIGKILL, 2 * time.Second}} {
		signal := step.signal
		if status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", t.pid)); err == nil && ignoresSignal(status, signal) {
			signal = syscall.SIGKILL
		}
		if err := t.signal(signal); err != nil {
			s.say("%s: %v", unix.SignalName(signal), err)
		}
		select {
		case <-t.done:
			return
		case <-time.After(step.timeout):
			s.say("still running %v after %s", step.timeout, unix.SignalName(signal))
		}
	}
}

// startServices starts all services, several at a time. If some wait for each
// other, no service waits for another.
func (m *machine) startServices(ctx context.Context) error {
	m.checkContainerd()
	m.report(saveDumps(m.dumps, logDir))
	dirs, err := bundle.List("/" + contract.Bundles(contract.Services))
	if err != nil {
		return err
	}
	if m.containerd == nil && len(dirs) > 0 {
		m.out.say("containerd: not in this machine; running services with runc")
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
		m.out.say("services wait for each other: %s; starting them in any order", strings.Join(cycle, " waits for "))
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
	go m.keepMetrics()
	for _, s := range all {
		go s.supervise()
	}
	go m.watchBoot(ctx, findCounter)
	for _, s := range all {
		s.await(s.settled, ctx.Done())
	}
	return nil
}

// service opens the bundle of a service.
func (m *machine) service(dir string) (*service, error) {
	b, err := bundle.Open(dir)
	if err != nil {
		return nil, err
	}
	s := newService(b.Name)
	s.bundle, s.out, s.times, s.engine, s.turns, s.finished, s.touch = b, m.out, m.times, m.engine, m.turns, m.finishBatch, m.touch
	s.policy = m.policy(b, contract.Services)
	s.stream, err = m.openStream(s.name)
	return s, err
}

// policy reads the annotations of a bundle. It prints errors in them and
// otherwise ignores these annotations.
func (m *machine) policy(b *bundle.Bundle, section string) policy.Policy {
	annotations, err := b.Annotations()
	p, parseErr := policy.Parse(section, annotations)
	if err := errors.Join(err, parseErr); err != nil {
		m.out.say("%s: %v", b.Name, err)
	}
	return p
}

// engine returns the engine for services when it is ready.
func (m *machine) engine(ctx context.Context) (engine, error) {
	if m.containerd == nil {
		return m.runc, nil
	}
	return m.containerd, m.containerd.await(ctx)
}

// findService returns the service with a name.
func (m *machine) findService(name string) (*service, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var names []string
	for _, s := range m.services {
		if s.name == name {
			return s, nil
		}
		names = append(names, s.name)
	}
	return nil, fmt.Errorf("no service %s (services: %s)", name, strings.Join(names, ", "))
}

// started returns the number of services that have been started.
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

// stopServices stops all services, each one after those that need it.
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
		m.out.say("services do not stop; stopping anyway")
	}
}

// memoryEvents returns the file in which the kernel counts the out-of-memory
// events of the cgroup of a process, or "". It works from the creation of a
// container on.
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

// oomKills returns how many processes of the cgroup the kernel has killed because
// it was out of memory (cgroups(7), memory.events).
func oomKills(events string) int {
	text, err := os.ReadFile(events)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if count, ok := strings.CutPrefix(line, "oom_kill "); ok {
			n, err := strconv.Atoi(strings.TrimSpace(count))
			if err != nil {
				return 0
			}
			return n
		}
	}
	return 0
}

// ignoresSignal reports, from /proc/PID/status, whether a signal has no effect
// on a process because it is the first of its PID namespace and does not catch
// the signal (pid_namespaces(7), "The namespace init process").
func ignoresSignal(status []byte, signal syscall.Signal) bool {
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
