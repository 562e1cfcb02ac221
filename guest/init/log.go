package main

import (
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/guest/logfile"
)

const (
	logDir   = "/var/log"
	logLimit = 1 << 20 // bytes per file
	logKeep  = 2       // older files: NAME.log.1, NAME.log.2
	fifoDir  = "/run/init"
)

func openLogFile(path string) (*logfile.File, error) { return logfile.Open(path, logLimit, logKeep) }

// A stream takes the output of a service: a FIFO which the init reads into a
// log. It outlives the service, containerd and its shims, and a full disk never
// blocks the writer.
type stream struct {
	fifo  string
	place string // where its log is, for messages
	file  bool   // whether place is a file
}

// openStream makes the FIFO of a name and reads it. If console is not nil,
// output goes there instead of to a log.
func openStream(name string, console io.Writer) (*stream, error) {
	s := &stream{fifo: filepath.Join(fifoDir, name), place: "the console"}
	if err := os.MkdirAll(fifoDir, 0o700); err != nil {
		return nil, err
	}
	if err := unix.Mkfifo(s.fifo, 0o600); err != nil && err != unix.EEXIST {
		return nil, &os.PathError{Op: "mkfifo", Path: s.fifo, Err: err}
	}
	// Open it for writing too, so that it does not end when a writer does.
	in, err := os.OpenFile(s.fifo, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	var out io.Writer = console
	if console == nil {
		if out, err = s.openLog(name); err != nil {
			in.Close()
			return nil, err
		}
	}
	go func() {
		buffer := make([]byte, 8<<10)
		for {
			n, err := in.Read(buffer)
			if err != nil {
				return
			}
			out.Write(buffer[:n]) // on an error the output is dropped: the service must not wait
		}
	}()
	return s, nil
}

// openLog opens the log: at a logging daemon if there is one, or else in files.
func (s *stream) openLog(name string) (io.Writer, error) {
	if pipe, ok := handOver(name); ok {
		s.place = "the logging daemon"
		return nonblockingPipe(pipe), unix.SetNonblock(pipe, true)
	}
	s.place = filepath.Join(logDir, name+".log")
	s.file = true
	return openLogFile(s.place)
}

// handOver passes a log to the logging daemon: the reading end of a pipe. It
// returns the writing end. It is not ok if there is no daemon, or if the daemon
// does not accept the log.
func handOver(name string) (fd int, ok bool) {
	socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, false
	}
	defer unix.Close(socket)
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return -1, false
	}
	defer unix.Close(pipe[0])
	// A daemon that hangs must not block the machine.
	err = unix.Sendmsg(socket, []byte(name), unix.UnixRights(pipe[0]), &unix.SockaddrUnix{Name: logfile.DaemonSocket}, unix.MSG_DONTWAIT)
	if err != nil {
		unix.Close(pipe[1])
		return -1, false
	}
	return pipe[1], true
}

// nonblockingPipe is the descriptor of a pipe. When the pipe is full, Write drops
// the text.
type nonblockingPipe int

func (p nonblockingPipe) Write(text []byte) (int, error) { return unix.Write(int(p), text) }

// writer opens the FIFO for writing.
func (s *stream) writer() (*os.File, error) { return os.OpenFile(s.fifo, os.O_WRONLY, 0) }

// quote prints the end of the log on the console.
func (s *stream) quote(out *console) {
	if s.file {
		out.quote(tail(s.place, 10))
	}
}
