package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	logDir   = "/var/log"
	logLimit = 1 << 20 // bytes of one file
	logKeep  = 2       // older files beside it: NAME.log.1, NAME.log.2
	fifoDir  = "/run/init"
)

// logFile is a log of bounded size: when the file is full it becomes NAME.1, NAME.1 becomes NAME.2, and the oldest goes.
type logFile struct {
	path  string
	limit int64
	keep  int

	mu   sync.Mutex
	file *os.File
	size int64
}

func openLogFile(path string) (*logFile, error) {
	l := &logFile{path: path, limit: logLimit, keep: logKeep}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	return l, l.open()
}

func (l *logFile) open() error {
	file, err := openLog(l.path)
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err != nil {
		file.Close()
		return err
	}
	l.file, l.size = file, info.Size()
	return nil
}

// Write appends text. Files are changed at the end of a line, unless a line is longer than a file may be.
func (l *logFile) Write(text []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for rest := text; len(rest) > 0; {
		part := rest
		if l.size+int64(len(rest)) > l.limit && l.size > 0 {
			part = rest[:bytes.LastIndexByte(rest[:max(0, min(int64(len(rest)), l.limit-l.size))], '\n')+1]
			if len(part) == 0 {
				if err := l.rotate(); err != nil {
					return 0, err
				}
				continue
			}
		}
		n, err := l.file.Write(part)
		l.size += int64(n)
		if err != nil {
			return 0, err
		}
		rest = rest[n:]
	}
	return len(text), nil
}

func (l *logFile) rotate() error {
	l.file.Close()
	for i := l.keep; i > 0; i-- {
		newer := l.path
		if i > 1 {
			newer += "." + strconv.Itoa(i-1)
		}
		if err := os.Rename(newer, l.path+"."+strconv.Itoa(i)); err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	return l.open()
}

// stream is where a service writes, all that it has to say: a FIFO which init reads into a log. It outlives the service, containerd and its shims,
// and never lets a writer wait for a full disk.
type stream struct {
	fifo string
	log  *logFile
}

// openStream makes the FIFO of a name and reads it from then on. With a console everything is shown there instead of kept.
func openStream(name string, console io.Writer) (*stream, error) {
	s := &stream{fifo: filepath.Join(fifoDir, name)}
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
		if s.log, err = openLogFile(filepath.Join(logDir, name+".log")); err != nil {
			in.Close()
			return nil, err
		}
		out = s.log
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

// writer opens the FIFO for a process.
func (s *stream) writer() (*os.File, error) { return os.OpenFile(s.fifo, os.O_WRONLY, 0) }

// path is the newest file of the log, "" if there is none.
func (s *stream) path() string {
	if s.log == nil {
		return ""
	}
	return s.log.path
}

// quote shows the end of the log on the console.
func (s *stream) quote(out *console) {
	if s.log != nil {
		out.quote(tail(s.log.path, 10))
	}
}
