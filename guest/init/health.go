package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netns"

	"github.com/slipway-build/slipway/internal/contract/policy"
)

// health is what the checks of a service have found.
type health string

const (
	unchecked health = ""         // the service has no check, or does not run
	untested  health = "starting" // no check has succeeded since the start
	healthy   health = "healthy"
	unhealthy health = "unhealthy"
)

// startInterval is the longest time between two checks of a service that is
// within its start period and has not been healthy yet.
const startInterval = 2 * time.Second

// monitor checks the health of a running service until ctx ends. If the service
// is unhealthy, monitor asks for a restart, unless the policy forbids it.
func (s *service) monitor(ctx context.Context, e engine, t *task) {
	h, state, begin, failures := s.policy.Health, untested, time.Now(), 0
	s.setHealth(ctx, state, nil, false)
	for {
		err := s.check(ctx, e, t)
		starts := state == untested && time.Since(begin) < h.StartPeriod
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			if state != healthy {
				s.say("healthy %.2f s after its start", time.Since(begin).Seconds())
			}
			failures, state = 0, healthy
		case starts:
		default:
			if failures++; failures >= h.Failures && state != unhealthy {
				s.say("unhealthy: %v", err)
				state = unhealthy
			}
		}
		s.setHealth(ctx, state, err, state == unhealthy && s.policy.Restart.Again(true))
		pause := h.Interval
		if starts && err != nil {
			pause = min(pause, startInterval)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

// setHealth records the result of a check, unless ctx has ended: then the check
// was one of an earlier run of the service.
func (s *service) setHealth(ctx context.Context, state health, err error, restart bool) {
	s.update(func() {
		if ctx.Err() != nil {
			return
		}
		s.health, s.sick, s.works, s.problem = state, restart, s.works || state == healthy, ""
		if err != nil {
			s.problem = err.Error()
		}
	})
}

// endHealth forgets the health of a run that ends, whose checks have been
// canceled. It notes in r what they found, and reports whether the run ends
// because of them.
func (s *service) endHealth(r *run) (sick bool) {
	s.update(func() {
		sick = s.sick
		r.useless = s.policy.Health != nil && !s.works
		s.health, s.problem, s.works, s.sick = unchecked, "", false, false
	})
	return sick
}

// check checks once whether a service works.
func (s *service) check(ctx context.Context, e engine, t *task) error {
	h := s.policy.Health
	ctx, cancel := context.WithTimeoutCause(ctx, h.Timeout, fmt.Errorf("no answer within %v", h.Timeout))
	defer cancel()
	var err error
	switch {
	case h.Command != nil:
		err = e.exec(ctx, s.bundle, h.Command)
	default:
		err = probe(ctx, h, t.pid)
	}
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// probe connects to an address in the network namespace of a process, and gets
// the URL if there is one.
func probe(ctx context.Context, h *policy.Health, pid int) error {
	address, u := h.Address, &url.URL{}
	if h.URL != "" {
		var err error
		if u, err = url.Parse(h.URL); err != nil {
			return err
		}
		if address = u.Host; u.Port() == "" {
			address += ":80"
		}
	}
	conn, err := dialIn(ctx, pid, address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if h.URL == "" {
		return nil
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	return get(conn, u)
}

// get sends an HTTP request (RFC 9112) and reads the status. The package
// net/http would make the init half as large again.
func get(conn io.ReadWriter, u *url.URL) error {
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: slipway\r\nAccept: */*\r\nConnection: close\r\n\r\n", u.RequestURI(), u.Host); err != nil {
		return err
	}
	line, err := bufio.NewReaderSize(io.LimitReader(conn, 1<<10), 1<<10).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	version, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
	code, _, _ := strings.Cut(rest, " ")
	status, err := strconv.Atoi(code)
	if err != nil || !strings.HasPrefix(version, "HTTP/1.") {
		return fmt.Errorf("the answer is not HTTP: %.80q", line)
	}
	if status < 200 || status > 399 {
		return fmt.Errorf("status %d", status)
	}
	return nil
}

// dialIn connects to a TCP address in the network namespace of a process.
func dialIn(ctx context.Context, pid int, address string) (net.Conn, error) {
	dial := func() (net.Conn, error) { return new(net.Dialer).DialContext(ctx, "tcp", loopback(address)) }
	path := fmt.Sprintf("/proc/%d/ns/net", pid)
	theirs, err := os.Readlink(path)
	if err != nil {
		return nil, err
	}
	if ours, err := os.Readlink("/proc/self/ns/net"); err != nil || ours == theirs {
		return dial()
	}
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result)
	go func() {
		// The thread ends with this goroutine, because it is never unlocked. It
		// is not the main thread, which belongs to main.
		runtime.LockOSThread()
		ns, err := netns.GetFromPath(path)
		if err != nil {
			done <- result{err: err}
			return
		}
		defer ns.Close()
		if err := netns.Set(ns); err != nil {
			done <- result{err: fmt.Errorf("enter %s: %w", path, err)}
			return
		}
		conn, err := dial()
		done <- result{conn, err}
	}()
	r := <-done
	return r.conn, r.err
}

// loopback replaces the host localhost. To resolve it, the init would need
// /etc/hosts, and more than one thread.
func loopback(address string) string {
	if port, ok := strings.CutPrefix(address, "localhost:"); ok {
		return "127.0.0.1:" + port
	}
	return address
}

// execIn runs a program in a container, whose state is below root; empty: runc's
// default. It is an error if the program does not exit with status 0.
func (r *runc) execIn(ctx context.Context, root, name string, args []string) error {
	out, in, err := os.Pipe()
	if err != nil {
		return err
	}
	defer out.Close()
	said := make(chan []byte, 1)
	go func() { said <- lastRead(out) }()
	id := filepath.Join(fifoDir, name+".check.pid")
	defer os.Remove(id)
	command := append([]string{"exec", "--pid-file", id, name}, args...)
	if root != "" {
		command = append([]string{"--root", root}, command...)
	}
	c := r.command(in, command...)
	c.stdout = in
	p, err := r.reaper.start(c)
	in.Close()
	if err != nil {
		return err
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		endCheck(p, id)
		return context.Cause(ctx)
	}
	if p.status == 0 {
		return nil
	}
	select {
	case text := <-said:
		if line := bytes.TrimSpace(lastLines(text, 1)); len(line) > 0 {
			return fmt.Errorf("%s: %.200q", describe(p.status), line)
		}
	case <-time.After(100 * time.Millisecond): // the program has left a process that holds the pipe
	}
	return errors.New(describe(p.status))
}

// lastRead returns the end of what can be read from a file.
func lastRead(f io.Reader) []byte {
	var last []byte
	buffer := make([]byte, 4<<10)
	for {
		n, err := f.Read(buffer)
		if n > 0 {
			last = append(last[:0], buffer[:n]...)
		}
		if err != nil {
			return last
		}
	}
}

// endCheck kills the program of a check, whose process ID is in a file, and
// then its runc.
func endCheck(p *process, file string) {
	pids := []int{-p.pid}
	if pid := readPID(file); pid != 0 {
		pids = []int{pid, -p.pid}
	}
	for _, pid := range pids {
		syscall.Kill(pid, syscall.SIGKILL)
		select {
		case <-p.done:
			return
		case <-time.After(time.Second):
		}
	}
}
