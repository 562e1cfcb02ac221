package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// A reaper starts processes and waits for them. Process 1 inherits every
// orphan, so it must wait for any child. If two parts of it did so, each could
// take the status that the other waits for. Only the reaper calls fork and
// wait4; for this reason the init does not use os/exec.
type reaper struct {
	mu      sync.Mutex // held from fork until the process is in waiting, and while reaping
	waiting map[int]*process
}

// A command is a program to start. Its only environment variable is PATH.
type command struct {
	path           string
	args           []string // without the name of the program
	stdout, stderr *os.File // nil: discarded
	cgroup         *os.File // directory of its cgroup; nil: the cgroup of the init
}

// process is a child, or a grandchild whose parents are gone.
type process struct {
	pid    int
	memory string             // see task; only for a container that runs without its runc
	done   chan struct{}      // closed at its end
	status syscall.WaitStatus // valid only after done is closed
}

const pathEnv = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func newReaper() *reaper {
	r := &reaper{waiting: map[int]*process{}}
	died := make(chan os.Signal, 1) // one is enough: reap handles all children that have ended
	signal.Notify(died, syscall.SIGCHLD)
	go func() {
		for range died {
			r.reap()
		}
	}()
	return r
}

func (r *reaper) reap() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if pid <= 0 {
			return
		}
		if p, ok := r.waiting[pid]; ok {
			p.status = status
			close(p.done)
			delete(r.waiting, pid)
		}
	}
}

// start starts a program.
func (r *reaper) start(c command) (*process, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	attr := &syscall.ProcAttr{
		Env:   []string{pathEnv},
		Files: []uintptr{null.Fd(), null.Fd(), null.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	}
	if c.stdout != nil {
		attr.Files[1] = c.stdout.Fd()
	}
	if c.stderr != nil {
		attr.Files[2] = c.stderr.Fd()
	}
	if c.cgroup != nil {
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, int(c.cgroup.Fd())
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	pid, err := syscall.ForkExec(c.path, append([]string{c.path}, c.args...), attr)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", c.path, err)
	}
	return r.expect(pid), nil
}

// watch waits for a process that another one started and leaves to process 1.
func (r *reaper) watch(pid int) (*process, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := syscall.Kill(pid, 0); err != nil {
		return nil, fmt.Errorf("process %d: %w", pid, err)
	}
	return r.expect(pid), nil
}

func (r *reaper) expect(pid int) *process {
	p := &process{pid: pid, done: make(chan struct{})}
	r.waiting[pid] = p
	return p
}

// run starts a program and waits for it. A status other than 0 is an error.
// When ctx ends, run kills the program and its process group.
func (r *reaper) run(ctx context.Context, c command) error {
	p, err := r.start(c)
	if err != nil {
		return err
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		syscall.Kill(-p.pid, syscall.SIGKILL)
		<-p.done
		return fmt.Errorf("%s: %w", c.path, context.Cause(ctx))
	}
	if p.status != 0 {
		return fmt.Errorf("%s: %s", c.path, describe(p.status))
	}
	return nil
}

// describe returns how a process ended: "exit 0", "killed by SIGTERM".
// exitStatus returns the exit status of a process as a shell does.
func exitStatus(status syscall.WaitStatus) int {
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}

func describe(status syscall.WaitStatus) string {
	if status.Signaled() {
		return "killed by " + unix.SignalName(status.Signal())
	}
	return fmt.Sprintf("exit %d", status.ExitStatus())
}
