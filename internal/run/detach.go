package run

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// supervisorLog has the errors of a process that runs a machine in the
// background.
const supervisorLog = "supervisor.log"

// Detach starts a process that runs the machine of an entry in the background,
// and waits until the machine is powered on. The command line of the process is
// the program with the arguments and the name of the machine; it must call
// Supervise. Detach hands over the entry.
func (s Store) Detach(ctx context.Context, e *Entry, program string, args ...string) error {
	if err := e.save(); err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(e.Dir, supervisorLog), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(program, append(args, e.Name)...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = newSession()
	if err := e.release(); err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("run in the background: %w", err)
	}
	died := make(chan struct{})
	go func() { cmd.Wait(); close(died) }()
	for {
		var over bool
		select {
		case <-died:
			over = true
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			cmd.Process.Kill()
			return context.Cause(ctx)
		}
		if r, err := s.load(e.Name); err == nil && r.State != Starting {
			return nil
		}
		if over {
			// The process removes the file, but it stays open here.
			text, err := io.ReadAll(io.NewSectionReader(log, 0, 64<<10))
			if message := strings.TrimSpace(string(text)); message != "" {
				_, message, _ = strings.Cut(message, ": ") // after the program's name
				return errors.New(message)
			}
			return errors.Join(errors.New("the process for the background exited"), err)
		}
	}
}

// Supervise runs the machine of a name, which Detach has prepared, until it
// ends.
func (s Store) Supervise(ctx context.Context, name string) error {
	e, err := s.open(name)
	if err != nil {
		return err
	}
	session, err := Start(ctx, e)
	if err != nil {
		return errors.Join(err, e.Remove())
	}
	return session.Close(session.Wait(ctx), true)
}

// open takes over the folder of a machine that is about to run.
func (s Store) open(name string) (*Entry, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	e := s.entry(name)
	if err := e.acquire(); err != nil {
		return nil, err
	}
	var err error
	e.Record, err = s.load(name)
	if err == nil && e.State != Starting {
		err = fmt.Errorf("machine %s is not about to start", name)
	}
	if err == nil {
		err = e.lockState()
	}
	if err != nil {
		e.release()
		return nil, err
	}
	return e, nil
}

// load reads a record as its process wrote it.
func (s Store) load(name string) (r Record, err error) {
	data, err := os.ReadFile(filepath.Join(s.dir, name, recordFile))
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	return r, err
}
