package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/slipway-build/slipway/guest/bundle"
	"github.com/slipway-build/slipway/internal/contract"
	"github.com/slipway-build/slipway/internal/contract/policy"
)

// runAll runs the containers of a section one after another, in the order of
// their names.
func (m *machine) runAll(ctx context.Context, section string) error {
	dirs, err := bundle.List("/" + contract.Bundles(section))
	for _, dir := range dirs {
		if ctx.Err() != nil {
			break
		}
		m.runToEnd(ctx, section, dir)
	}
	return err
}

// runToEnd runs one container of the boot or shutdown. If it fails, its policy
// may stop the machine.
func (m *machine) runToEnd(ctx context.Context, kind, dir string) {
	name := kind + " " + filepath.Base(dir)
	b, err := bundle.Open(dir)
	if err != nil {
		m.out.say("%s: failed: %v", name, err)
		return
	}
	p := m.policy(b, kind)
	finish := m.times.begin(name)
	err = m.runOnce(ctx, kind, b, p)
	failed := err != nil && !errors.Is(err, errStopped)
	finish(failed)
	if p.Batch && !errors.Is(err, errStopped) {
		m.finishBatch(statusOf(err))
		<-ctx.Done()
	}
	if !failed || ctx.Err() != nil {
		return
	}
	switch p.Failure {
	case policy.Halt:
		m.stopFor(ctx, name, halt)
	case policy.Reboot:
		m.stopFor(ctx, name, reboot)
	}
}

// runOnce runs one container and prints how it ended.
func (m *machine) runOnce(ctx context.Context, kind string, b *bundle.Bundle, p policy.Policy) error {
	name := kind + " " + b.Name
	logs, err := m.openLogs(filepath.Join("/run/log", kind), kind+"."+b.Name)
	if err != nil {
		m.out.say("%s: %v", name, err)
		return nil
	}
	defer logs.close()
	begin := sinceBoot()
	err = m.runBundle(ctx, name, b, p.Timeout, logs)
	if releaseErr := b.Release(); releaseErr != nil {
		m.out.say("%s: clean up: %v", name, releaseErr)
	}
	switch {
	case err == nil:
		m.out.say("%s: done in %.2f s, exit 0", name, (sinceBoot() - begin).Seconds())
	case errors.Is(err, errStopped): // for example because it asked for that itself
		m.out.say("%s: stopped: %v", name, err)
	default:
		m.out.say("%s: failed: %v", name, err)
		m.noteFailure(fmt.Sprintf("%s: failed: %v", name, err), logs.quote(m.out)...)
	}
	return err
}

// An exitError is the error of a container whose process failed.
type exitError syscall.WaitStatus

func (e exitError) Error() string { return describe(syscall.WaitStatus(e)) }

// statusOf returns the exit status of a container from its error; 1 if the error
// is another one.
func statusOf(err error) int {
	var exit exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exitStatus(syscall.WaitStatus(exit))
	}
	return 1
}

// finishBatch powers the machine off because a batch job has ended. The exit
// status of the job becomes that of the machine.
func (m *machine) finishBatch(status int) {
	state := powerOff
	state.status = &status
	requestPower(m.requests, state)
}

var errStopped = errors.New("the machine stops")

// stopFor stops the machine because a container failed, and waits until ctx ends.
func (m *machine) stopFor(ctx context.Context, name string, state powerState) {
	m.out.say("%s: %s, as its annotation %sfailure requires", name, state.name, policy.Prefix)
	requestPower(m.requests, state)
	<-ctx.Done()
}

// runBundle runs a container until it ends or exceeds the timeout. A timeout of
// 0 means none.
func (m *machine) runBundle(ctx context.Context, name string, b *bundle.Bundle, timeout time.Duration, logs *logs) error {
	run := m.runc.run
	if b.Attaches() { // which happens between creation and start
		run = m.runc.create
	}
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, timeout, fmt.Errorf("stopped after its timeout of %v", timeout))
		defer cancel()
	}
	defer os.Remove(pidFile(b))
	p, err := run(ctx, b, logs.stdout, logs.stderr)
	if err == nil {
		err = m.waitFor(ctx, name, b, p)
	}
	if err != nil || b.Attaches() {
		return errors.Join(err, m.runc.delete(b, logs.stderr))
	}
	return nil
}

// waitFor waits for the end of a container, and ends it when ctx ends. It is an
// error if the container fails.
func (m *machine) waitFor(ctx context.Context, name string, b *bundle.Bundle, p *process) error {
	begin := time.Now()
	reminder := time.NewTicker(30 * time.Second)
	defer reminder.Stop()
	for {
		select {
		case <-p.done:
			if p.status != 0 {
				return exitError(p.status)
			}
			return nil
		case <-reminder.C:
			m.out.say("%s: still running after %.0f s", name, time.Since(begin).Seconds())
		case <-ctx.Done():
			pid, signal := p.pid, syscall.SIGTERM
			if container := readPID(pidFile(b)); container != 0 { // otherwise p is the container itself, or it does not exist yet
				pid = container
			}
			if status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)); err == nil && ignoresSignal(status, signal) {
				signal = syscall.SIGKILL
			}
			syscall.Kill(pid, signal)
			select {
			case <-p.done:
			case <-time.After(5 * time.Second): // then delete kills it
			}
			if err := context.Cause(ctx); err != context.Canceled {
				return err
			}
			return errStopped
		}
	}
}

// logs are the two files to which a container writes.
type logs struct{ stdout, stderr *os.File }

// openLogs opens the logs NAME.out and NAME: the console if
// linuxkit.runc_console=1 is set, a logging daemon if there is one, or else the
// files DIR/NAME.out.log and DIR/NAME.log.
func (m *machine) openLogs(dir, name string) (*logs, error) {
	if m.flag("linuxkit.runc_console") {
		console, err := os.OpenFile("/dev/console", os.O_WRONLY|syscall.O_NOCTTY, 0)
		return &logs{console, console}, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	stdout, err1 := openLog(dir, name+".out")
	stderr, err2 := openLog(dir, name)
	return &logs{stdout, stderr}, errors.Join(err1, err2)
}

func openLog(dir, name string) (*os.File, error) {
	if pipe, ok := handOver(name); ok {
		return os.NewFile(uintptr(pipe), name), nil
	}
	return os.OpenFile(filepath.Join(dir, name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
}

// quote prints the end of the logs on the console, unless they went there, and
// returns it.
func (l *logs) quote(out *console) (ends [][]byte) {
	if l.stdout == l.stderr {
		return nil
	}
	for _, file := range []*os.File{l.stdout, l.stderr} {
		end := tail(file.Name(), 10)
		out.quote(end)
		ends = append(ends, end)
	}
	return ends
}

func (l *logs) close() {
	l.stdout.Close()
	l.stderr.Close()
}
