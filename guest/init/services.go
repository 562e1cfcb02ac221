package main

import (
	"context"
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
)

// service is a container that should run as long as the machine.
type service struct {
	name   string
	pid    int // of its first process
	signal func(syscall.Signal) error
	done   chan struct{} // closed at its end
	end    string        // how; to be read after that
}

// startServices starts containerd, and with it all services at once. Without containerd, runc alone has to do.
func (m *machine) startServices(ctx context.Context) error {
	dirs, err := bundle.List("/containers/services")
	if err != nil {
		return err
	}
	start := m.startWithRunc
	if hasContainerd() {
		begin := time.Now()
		daemon, err := m.startContainerd(ctx)
		if err != nil {
			m.out.say("containerd: failed: %v: no service is started", err)
			m.out.quote(tail(containerdLog, 10))
			return nil
		}
		m.containerd = daemon
		m.out.say("containerd: ready in %.2f s", time.Since(begin).Seconds())
		go func() {
			<-daemon.process.done
			if ctx.Err() == nil {
				m.out.say("containerd: %s, see %s", describe(daemon.process.status), containerdLog)
			}
		}()
		start = daemon.start
	} else if len(dirs) > 0 {
		m.out.say("containerd: not in this machine: services run under runc alone")
	}
	var all sync.WaitGroup
	for _, dir := range dirs {
		all.Go(func() { m.startService(ctx, dir, start) })
	}
	all.Wait()
	return nil
}

// startService starts one service and tells how it went, and later how it ended.
func (m *machine) startService(ctx context.Context, dir string, start func(context.Context, *bundle.Bundle, *logs) (*service, error)) {
	name := filepath.Base(dir)
	begin := time.Now()
	fail := func(err error) {
		m.out.say("service %s: failed: %v", name, err)
	}
	logs, err := m.openLogs("/var/log", name)
	if err != nil {
		fail(err)
		return
	}
	defer logs.close()
	b, err := bundle.Open(dir)
	if err != nil {
		fail(err)
		return
	}
	s, err := start(context.WithoutCancel(ctx), b, logs) // the stop of the machine must still reach the service
	if err != nil {
		fail(err)
		logs.quote(m.out)
		return
	}
	m.mu.Lock()
	m.services = append(m.services, s)
	m.mu.Unlock()
	m.out.say("service %s: started in %.2f s", name, time.Since(begin).Seconds())
	go func() {
		<-s.done
		if ctx.Err() == nil {
			m.out.say("service %s: %s, see /var/log/%s.log", name, s.end, name)
		}
	}()
}

func (m *machine) startWithRunc(_ context.Context, b *bundle.Bundle, logs *logs) (*service, error) {
	p, err := m.runc.start(b, logs.stdout, logs.stderr)
	if err != nil {
		m.runc.remove(b, logs.stderr) // what went wrong is known already
		return nil, err
	}
	s := &service{name: b.Name, pid: p.pid, done: make(chan struct{})}
	s.signal = func(signal syscall.Signal) error {
		if err := syscall.Kill(p.pid, signal); err != syscall.ESRCH {
			return err
		}
		return nil // it has just ended
	}
	go func() {
		<-p.done
		s.end = "ended, " + describe(p.status)
		close(s.done)
	}()
	return s, nil
}

// stopServices asks every service to end, all at once, and kills those that have not after the time given.
func (m *machine) stopServices(patience time.Duration) {
	m.mu.Lock()
	running := slices.Clone(m.services)
	m.mu.Unlock()
	for _, step := range []struct {
		signal   syscall.Signal
		patience time.Duration
	}{{syscall.SIGTERM, patience}, {syscall.SIGKILL, 2 * time.Second}} {
		running = slices.DeleteFunc(running, (*service).ended)
		for _, s := range running {
			signal := step.signal
			if status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.pid)); err == nil && isDeaf(status, signal) {
				signal = syscall.SIGKILL // no use in waiting
			}
			if err := s.signal(signal); err != nil {
				m.out.say("service %s: %v: %v", s.name, signal, err)
			}
		}
		deadline := make(chan struct{})
		time.AfterFunc(step.patience, func() { close(deadline) })
		for _, s := range running {
			select {
			case <-s.done:
			case <-deadline:
				if !s.ended() {
					m.out.say("service %s: still running %v after %s", s.name, step.patience, unix.SignalName(step.signal))
				}
			}
		}
	}
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

func (s *service) ended() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}
