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
	logLimit = 1 << 20 // bytes of one file
	logKeep  = 2       // older files beside it: NAME.log.1, NAME.log.2
	fifoDir  = "/run/init"

	// loggingSocket is where a logging daemon takes logs, if the machine has one, as LinuxKit's memlogd is: a datagram is the name of a log, and
	// brings the descriptor to read it from.
	loggingSocket = "/run/linuxkit-external-logging.sock"
)

func openLogFile(path string) (*logfile.File, error) { return logfile.Open(path, logLimit, logKeep) }

// stream is where a service writes, all that it has to say: a FIFO which init reads into a log. It outlives the service, containerd and its shims,
// and never lets a writer wait for a full disk.
type stream struct {
	fifo  string
	place string // where its log is
	file  bool   // that is a file
}

// openStream makes the FIFO of a name and reads it from then on. With a console everything is shown there instead of kept.
func openStream(name string, console io.Writer) (*stream, error) {
	s := &stream{fifo: filepath.Join(fifoDir, name), place: "the console"}
	if err := os.MkdirAll(fifoDir, 0o700); err != nil {
		return nil, err
	}
	if err := unix.Mkfifo(s.fifo, 0o600); err != nil && err != unix.EEXIST {
		return nil, &os.PathError{Op: "mkfifo", Path: s.fifo, Err: err}
	}
	// Open for writing too, so that it has no end when a writer goes.
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
			out.Write(buffer[:n]) // what a full disk does not take is lost: the service must not wait for it
		}
	}()
	return s, nil
}

// openLog finds what takes the log: a logging daemon if there is one, else files.
func (s *stream) openLog(name string) (io.Writer, error) {
	if pipe, ok := handOver(name); ok {
		s.place = "the logging daemon"
		return lossy(pipe), unix.SetNonblock(pipe, true)
	}
	s.place = filepath.Join(logDir, name+".log")
	s.file = true
	return openLogFile(s.place)
}

// handOver gives a log to the logging daemon: the reading end of a pipe, whose other end it returns. It is not ok if there is no daemon, or one that
// does not take it.
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
	// A daemon that hangs must not hang the machine.
	err = unix.Sendmsg(socket, []byte(name), unix.UnixRights(pipe[0]), &unix.SockaddrUnix{Name: loggingSocket}, unix.MSG_DONTWAIT)
	if err != nil {
		unix.Close(pipe[1])
		return -1, false
	}
	return pipe[1], true
}

// lossy is a pipe that does not block: what has no room in it is lost.
type lossy int

func (l lossy) Write(text []byte) (int, error) { return unix.Write(int(l), text) }

// writer opens the FIFO for a process.
func (s *stream) writer() (*os.File, error) { return os.OpenFile(s.fifo, os.O_WRONLY, 0) }

// quote shows the end of the log on the console.
func (s *stream) quote(out *console) {
	if s.file {
		out.quote(tail(s.place, 10))
	}
}
