// Package process runs the daemons that tests start. A daemon exits with the
// test process at the latest.
package process

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/slipway-build/slipway/internal/kernel/mountinfo"
)

// A Process is a running daemon.
type Process struct {
	cmd   *exec.Cmd
	log   string
	ended chan struct{}
	err   error // valid only after ended is closed
}

// Start starts cmd and writes its output to the file log.
func Start(cmd *exec.Cmd, log string) (*Process, error) {
	file, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	cmd.Stdout, cmd.Stderr = file, file
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGTERM
	p := &Process{cmd: cmd, log: log, ended: make(chan struct{})}
	started := make(chan error)
	go func() {
		// The kernel sends the signal when the thread that forked exits, so
		// this goroutine keeps its thread.
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
		}
		close(p.ended)
	}()
	return p, <-started
}

// Answers waits until the daemon accepts connections. It returns an error with
// the end of the log if the daemon exits, ctx is done, or 30 seconds have
// passed.
func (p *Process) Answers(ctx context.Context, network, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		conn, err := net.Dial(network, address)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-p.ended:
			return fmt.Errorf("exited: %v\n%s", p.err, p.Tail())
		case <-ctx.Done():
			return fmt.Errorf("does not answer: %w\n%s", context.Cause(ctx), p.Tail())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Tail returns the last 30 lines of the log.
func (p *Process) Tail() string {
	data, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	lines := bytes.SplitAfter(data, []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-30):], nil))
}

// Kill sends SIGKILL and waits until the daemon has exited.
func (p *Process) Kill() {
	p.cmd.Process.Kill()
	<-p.ended
}

// Stop sends SIGTERM, and SIGKILL after 15 seconds, and waits until the daemon
// has exited.
func (p *Process) Stop() {
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(15 * time.Second):
		p.Kill()
	}
}

// Unmount unmounts everything below dir, the last mount first.
func Unmount(dir string) error {
	mounts, err := mountinfo.Read()
	if err != nil {
		return err
	}
	for _, m := range slices.Backward(mounts) {
		if !strings.HasPrefix(m.Path, dir+"/") {
			continue
		}
		if err := syscall.Unmount(m.Path, syscall.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", m.Path, err)
		}
	}
	return nil
}
