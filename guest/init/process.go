package main

import (
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// family starts processes and waits for them. Process 1 inherits every orphan, so it must wait for any child; were two parts of it to
// wait, each could take the status that the other waits for. This is the only place that calls wait4 or fork, which is why os/exec is not used.
type family struct {
	mu      sync.Mutex // held from fork to the entry in waiting, and while reaping
	waiting map[int]*process
}

// command is a program to start. It gets no more of the environment than pathEnv.
type command struct {
	path           string
	args           []string // without the name of the program
	stdout, stderr *os.File // nil: nowhere
	cgroup         *os.File // directory of the cgroup to start in; nil: that of init
}

// process is a child, or a grandchild whose parents are gone.
type process struct {
	pid    int
	memory string             // as in task, of a container that runs without its runc
	done   chan struct{}      // closed at its end
	status syscall.WaitStatus // to be read after that
}

const pathEnv = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func newFamily() *family {
	f := &family{waiting: map[int]*process{}}
	died := make(chan os.Signal, 1) // one is enough: reap takes all that there are
	signal.Notify(died, syscall.SIGCHLD)
	go func() {
		for range died {
			f.reap()
		}
	}()
	return f
}

func (f *family) reap() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if pid <= 0 {
			return
		}
		if p, ok := f.waiting[pid]; ok {
			p.status = status
			close(p.done)
			delete(f.waiting, pid)
		}
	}
}

// start starts a program.
func (f *family) start(c command) (*process, error) {
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
	f.mu.Lock()
	defer f.mu.Unlock()
	pid, err := syscall.ForkExec(c.path, append([]string{c.path}, c.args...), attr)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", c.path, err)
	}
	return f.expect(pid), nil
}

// adopt waits for a process that another one made and left to process 1, or is about to leave.
func (f *family) adopt(pid int) (*process, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := syscall.Kill(pid, 0); err != nil {
		return nil, fmt.Errorf("process %d: %w", pid, err)
	}
	return f.expect(pid), nil
}

func (f *family) expect(pid int) *process {
	p := &process{pid: pid, done: make(chan struct{})}
	f.waiting[pid] = p
	return p
}

// run starts a program and waits for its end. Any other status than 0 is an error.
func (f *family) run(c command) error {
	p, err := f.start(c)
	if err != nil {
		return err
	}
	if <-p.done; p.status != 0 {
		return fmt.Errorf("%s: %s", c.path, describe(p.status))
	}
	return nil
}

// describe tells how a process ended: "exit 0", "killed by SIGTERM".
func describe(status syscall.WaitStatus) string {
	if status.Signaled() {
		return "killed by " + unix.SignalName(status.Signal())
	}
	return fmt.Sprintf("exit %d", status.ExitStatus())
}
