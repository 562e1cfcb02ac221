package main

import (
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/internal/kernel/cmdline"
)

// What a Nitro enclave tells its parent instance when it has booted. nitro-cli
// waits for this byte, and sends it back (AWS Nitro Enclaves SDK, bootstrap/init.c).
const (
	heartbeatPort = 9000
	heartbeat     = 0xb7
)

// CIDs of vsock, beside those of vsock(7).
const (
	hostCID   = unix.VMADDR_CID_HOST
	parentCID = 3 // of the parent instance, for its enclaves
)

// inEnclave reports whether the machine is a Nitro enclave. Only enclaves have a
// Nitro Secure Module.
func inEnclave() bool {
	_, err := os.Stat("/dev/nsm")
	return err == nil
}

// joinHost tells the parent instance that the enclave runs, and copies the log of
// the init to it, or to the host of another machine, if the kernel argument
// slipway.vsock_log names a port there.
func (m *machine) joinHost() error {
	cid := uint32(hostCID)
	if inEnclave() {
		cid = parentCID
		m.resets = true
		if err := ready(); err != nil {
			return fmt.Errorf("tell the parent instance that the enclave runs: %w", err)
		}
	}
	text, ok := cmdline.Lookup(m.args, "slipway.vsock_log")
	if !ok {
		return nil
	}
	port, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return fmt.Errorf("slipway.vsock_log=%q: not a port", text)
	}
	conn, err := dialVsock(cid, uint32(port))
	if err != nil {
		return fmt.Errorf("copy the log to port %d of the host: %w", port, err)
	}
	m.out.mirror(&hostLog{conn})
	return nil
}

// ready sends the heartbeat.
func ready() error {
	conn, err := dialVsock(parentCID, heartbeatPort)
	if err != nil {
		return err
	}
	defer conn.Close()
	return beat(conn)
}

// beat sends the heartbeat, and expects it back.
func beat(conn io.ReadWriter) error {
	b := []byte{heartbeat}
	if _, err := conn.Write(b); err != nil {
		return err
	}
	if _, err := io.ReadFull(conn, b); err != nil {
		return fmt.Errorf("no answer: %w", err)
	}
	if b[0] != heartbeat {
		return fmt.Errorf("the answer is %#x, not %#x", b[0], heartbeat)
	}
	return nil
}

// dialVsock connects to a port, for which the kernel waits 2 seconds. Reading and
// writing time out too, so that a host that hangs does not stop the machine.
func dialVsock(cid, port uint32) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	timeout := unix.Timeval{Sec: 5}
	for _, option := range []int{unix.SO_SNDTIMEO, unix.SO_RCVTIMEO} {
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, option, &timeout); err != nil {
			unix.Close(fd)
			return nil, os.NewSyscallError("setsockopt", err)
		}
	}
	if err := unix.Connect(fd, &unix.SockaddrVM{CID: cid, Port: port}); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("connect", err)
	}
	return os.NewFile(uintptr(fd), fmt.Sprintf("vsock %d:%d", cid, port)), nil
}

// A hostLog writes to the host until that fails once, so that a host which reads
// no more costs one timeout.
type hostLog struct{ conn io.WriteCloser }

func (l *hostLog) Write(text []byte) (int, error) {
	if l.conn == nil {
		return len(text), nil
	}
	n, err := l.conn.Write(text)
	if err != nil {
		l.conn.Close()
		l.conn = nil
	}
	return n, err
}
