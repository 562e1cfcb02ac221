package run

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/slipway-build/slipway/internal/vm"
)

// powerOffTimeout is how long a machine may take to power off before it is
// killed.
const powerOffTimeout = 30 * time.Second

// A Session is a machine that this process runs.
type Session struct {
	*vm.Machine
	Entry    *Entry
	listener net.Listener
	control  string // directory of the socket
}

// Start powers on the machine that the record of an entry describes. The caller
// must call Close.
func Start(ctx context.Context, e *Entry) (*Session, error) {
	e.Config.LogDir = e.Dir
	machine, err := vm.Start(ctx, e.Config)
	if err != nil {
		return nil, err
	}
	s := &Session{Machine: machine, Entry: e}
	if err := s.open(); err != nil {
		s.Kill()
		return nil, err
	}
	go s.serve()
	return s, nil
}

// open makes the machine visible to other processes.
func (s *Session) open() (err error) {
	// Not in the folder of the machine, because the path of a socket has at
	// most 103 bytes.
	if s.control, err = os.MkdirTemp("", "slipway"); err != nil {
		return err
	}
	r := &s.Entry.Record
	r.Control = filepath.Join(s.control, "control")
	if s.listener, err = net.Listen("unix", r.Control); err != nil {
		os.RemoveAll(s.control)
		return err
	}
	if !r.Config.NoNetwork {
		r.SSHAddress = s.Machine.SSHAddress()
	}
	r.State, r.PID = Running, os.Getpid()
	if err := s.Entry.save(); err != nil {
		s.listener.Close()
		os.RemoveAll(s.control)
		return err
	}
	return nil
}

// Requests of other processes.
const (
	requestPowerOff = "poweroff"
	requestKill     = "kill"
)

// serve answers the requests of other processes, one in each connection.
func (s *Session) serve() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(time.Minute))
			line, err := bufio.NewReader(conn).ReadString('\n')
			if err != nil {
				return
			}
			switch strings.TrimSpace(line) {
			case requestPowerOff:
				err = s.PressPowerButton(context.Background())
			case requestKill:
				s.Kill()
			default:
				err = fmt.Errorf("unknown request %q", line)
			}
			if err != nil {
				fmt.Fprintln(conn, err)
				return
			}
			fmt.Fprintln(conn, "ok")
		}()
	}
}

// PowerOff presses the power button, and kills the machine if that has no
// effect within 30 seconds or ctx is done.
func (s *Session) PowerOff(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, powerOffTimeout)
	defer cancel()
	err := s.PressPowerButton(ctx)
	if err == nil {
		err = s.Wait(ctx)
	}
	s.Kill()
	return err
}

// Close kills the machine if it still runs, and records how it ended: with err,
// or by powering off with the guest's exit status. It leaves the record and the
// log for other processes if keep is set or the machine failed.
func (s *Session) Close(err error, keep bool) error {
	s.Kill()
	s.listener.Close()
	os.RemoveAll(s.control)
	if !keep && err == nil {
		return s.Entry.Remove()
	}
	s.Entry.end(s.ExitStatus(), err)
	return errors.Join(s.Entry.save(), s.Entry.release())
}

// request sends a request to the process that runs a machine.
func (r Record) request(ctx context.Context, request string) error {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", r.Control)
	if err != nil {
		return fmt.Errorf("machine %s: %w", r.Name, err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	fmt.Fprintln(conn, request)
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil && request != requestKill { // which can end the process before it answers
		return fmt.Errorf("machine %s: %w", r.Name, err)
	}
	if answer = strings.TrimSpace(answer); answer != "ok" && answer != "" {
		return fmt.Errorf("machine %s: %s", r.Name, answer)
	}
	return nil
}

// Stop presses the power button of a machine and waits until it is off. It
// kills the machine after the timeout.
func (s Store) Stop(ctx context.Context, r Record, timeout time.Duration) error {
	if timeout > 0 {
		if err := r.request(ctx, requestPowerOff); err != nil {
			return err
		}
		if s.awaitEnd(ctx, r.Name, timeout) {
			return nil
		}
	}
	if err := r.request(ctx, requestKill); err != nil && !s.awaitEnd(ctx, r.Name, time.Second) {
		return err
	}
	if !s.awaitEnd(ctx, r.Name, powerOffTimeout) {
		return fmt.Errorf("machine %s does not stop: end process %d", r.Name, r.PID)
	}
	return context.Cause(ctx)
}

// awaitEnd waits until a machine has ended and reports whether it has.
func (s Store) awaitEnd(ctx context.Context, name string, timeout time.Duration) bool {
	deadline := time.After(timeout)
	for {
		if r, err := s.read(name); err != nil || r.State == Ended {
			return true
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-deadline:
			return false
		case <-ctx.Done():
			return false
		}
	}
}
