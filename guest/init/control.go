package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/slipway-build/slipway/guest/bundle"
	"github.com/slipway-build/slipway/internal/contract/policy"
)

// controlSocket is where process 1 serves the program service: one JSON request
// and one JSON answer per connection.
const controlSocket = "/run/init/control.sock"

type request struct {
	Args []string `json:"args"`
}

type answer struct {
	Text  string `json:"text"`
	Error string `json:"error,omitempty"`
}

// listenForControl serves requests of root only.
func (m *machine) listenForControl() error {
	if err := os.MkdirAll(filepath.Dir(controlSocket), 0o700); err != nil {
		return err
	}
	listener, err := net.Listen("unix", controlSocket)
	if err != nil {
		return fmt.Errorf("control: %w", err)
	}
	if err := os.Chmod(controlSocket, 0o600); err != nil {
		return fmt.Errorf("control: %w", err)
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				m.out.say("control: %v", err)
				return
			}
			go m.serveControl(conn)
		}
	}()
	return nil
}

func (m *machine) serveControl(conn net.Conn) {
	defer conn.Close()
	var r request
	if err := json.NewDecoder(conn).Decode(&r); err != nil {
		return
	}
	var a answer
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { // until the client ends
		defer cancel()
		io.Copy(io.Discard, conn)
	}()
	text, err := m.control(ctx, r.Args)
	a.Text = text
	if err != nil {
		a.Error = err.Error()
	}
	json.NewEncoder(conn).Encode(a) // an error means that the client is gone
}

// control handles a request of the program service. That program shows logs
// without a request. When ctx ends, it stops waiting.
func (m *machine) control(ctx context.Context, args []string) (string, error) {
	if len(args) == 0 {
		return "", errors.New("no command")
	}
	switch command, names := args[0], args[1:]; command {
	case "list":
		return m.list(), nil
	case "timeline":
		if len(names) == 1 && names[0] == "--svg" {
			return m.times.svg(), nil
		}
		return m.times.text(), nil
	case "wait-healthy":
		return m.controlWait(ctx, names)
	case "status", "start", "stop", "restart":
		var text strings.Builder
		for _, name := range names {
			s, err := m.findService(name)
			if err != nil {
				return text.String(), err
			}
			switch command {
			case "status":
				text.WriteString(s.status())
				continue
			case "stop", "restart":
				s.turnOff()
			}
			if command != "stop" {
				if err := s.turnOn(); err != nil {
					return text.String(), err
				}
			}
			fmt.Fprintln(&text, s.line())
		}
		return text.String(), nil
	default:
		return "", fmt.Errorf("%s: unknown command", command)
	}
}

// controlWait handles the request wait-healthy: [--timeout DURATION] [NAME…].
func (m *machine) controlWait(ctx context.Context, args []string) (string, error) {
	var timeout time.Duration
	if len(args) > 1 && args[0] == "--timeout" {
		var err error
		if timeout, err = time.ParseDuration(args[1]); err != nil || timeout <= 0 {
			return "", fmt.Errorf("--timeout %q: must be a duration, for example 5m", args[1])
		}
		args = args[2:]
	}
	var services []*service
	for _, name := range args {
		s, err := m.findService(name)
		if err != nil {
			return "", err
		}
		services = append(services, s)
	}
	return "", m.waitHealthy(ctx, services, timeout)
}

// turnOff stops the service and waits until it has stopped.
func (s *service) turnOff() {
	s.update(func() { s.wanted = false })
	s.await(s.resting, nil)
}

// turnOn starts a stopped service and waits for the result.
func (s *service) turnOn() error {
	before, tries, rests := 0, 0, false
	s.update(func() { before, tries, rests, s.wanted = s.starts, s.tries, s.resting(), !s.closing })
	if !rests || !s.wanted {
		return nil
	}
	s.await(func() bool { return s.tries > tries && (s.starts > before || s.state == pausing || s.resting()) }, nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.starts == before {
		return fmt.Errorf("service %s: %s", s.name, s.end)
	}
	return nil
}

// list returns a table of all services.
func (m *machine) list() string {
	m.mu.Lock()
	services := slices.Clone(m.services)
	m.mu.Unlock()
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tSTATE\tHEALTH\tSINCE\tPID\tSTARTS\tRESTART\tLAST END")
	now := sinceBoot()
	for _, s := range services {
		s.mu.Lock()
		pid := "-"
		if s.pid > 0 {
			pid = fmt.Sprint(s.pid)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%.0fs\t%s\t%d\t%s\t%s\n", s.name, s.state, cmp.Or(s.health, "-"), (now - s.since).Seconds(), pid, s.starts, s.restart(), cmp.Or(s.end, "-"))
		s.mu.Unlock()
	}
	w.Flush()
	return b.String()
}

func (s *service) restart() policy.Restart { return cmp.Or(s.policy.Restart, policy.Never) }

// line returns the state of the service in a few words.
func (s *service) line() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pid > 0 {
		return fmt.Sprintf("%s: %s, pid %d", s.name, s.state, s.pid)
	}
	return fmt.Sprintf("%s: %s", s.name, s.state)
}

// status returns everything that is known about the service.
func (s *service) status() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	row := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-9s %s\n", name, fmt.Sprintf(format, args...))
	}
	row("service", "%s", s.name)
	row("state", "%s for %.0f s", s.state, (sinceBoot() - s.since).Seconds())
	if s.pid > 0 {
		row("pid", "%d", s.pid)
		if events := memoryEvents(s.pid); events != "" {
			dir := filepath.Dir(events)
			row("cgroup", "%s", strings.TrimPrefix(dir, bundle.CgroupRoot))
			if used, err := os.ReadFile(filepath.Join(dir, "memory.current")); err == nil {
				row("memory", "%s bytes", strings.TrimSpace(string(used)))
			}
		}
	}
	if s.health != unchecked {
		row("health", "%s", s.health)
	}
	if s.problem != "" {
		row("problem", "%s", s.problem)
	}
	row("starts", "%d", s.starts)
	if s.end != "" {
		row("last end", "%s", s.end)
	}
	row("restart", "%s", s.restart())
	if len(s.policy.After) > 0 {
		row("after", "%s", strings.Join(s.policy.After, ", "))
	}
	row("log", "%s", s.stream.place)
	return b.String()
}
