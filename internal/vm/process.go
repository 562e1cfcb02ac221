package vm

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
)

// spawn starts a command that ends when this process exits for any reason. The
// channel receives the result of cmd.Wait.
func spawn(cmd *exec.Cmd) (<-chan error, error) {
	cmd.SysProcAttr = dieWithParent()
	started, ended := make(chan error), make(chan error, 1)
	go func() {
		// The kernel sends the signal when the thread that forked exits, so
		// this goroutine keeps its thread.
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			ended <- cmd.Wait()
		}
	}()
	return ended, <-started
}

// freePort returns a TCP port of 127.0.0.1 that is free at the moment.
func freePort() (int, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port, nil
}

// tailOf returns the last lines of a log, for an error message.
func tailOf(file string, lines int) string {
	data, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	return lastLines(string(data), lines)
}
