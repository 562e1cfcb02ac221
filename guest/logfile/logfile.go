// Package logfile writes logs of bounded size.
package logfile

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"sync"
)

// DaemonSocket is where a logging daemon, if the machine has one, receives logs:
// a datagram holds the name of a log and passes the descriptor to read it from.
// The protocol is that of LinuxKit's memlogd.
const DaemonSocket = "/run/linuxkit-external-logging.sock"

// File is a log of bounded size. When the file is full, it becomes NAME.1,
// NAME.1 becomes NAME.2, and so on; the oldest file is deleted.
type File struct {
	path  string
	limit int64 // bytes per file
	keep  int   // number of older files

	mu   sync.Mutex
	file *os.File
	size int64
}

// Open opens a log for appending and makes its directory if it is missing.
// limit is the size of a file in bytes, keep the number of older files.
func Open(path string, limit int64, keep int) (*File, error) {
	l := &File{path: path, limit: limit, keep: keep}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	return l, l.open()
}

func (l *File) open() error {
	file, err := os.OpenFile(l.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
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

// Write appends text. It rotates files at the end of a line, unless a line is
// longer than a file.
func (l *File) Write(text []byte) (int, error) {
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

// Close closes the log.
func (l *File) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file.Close()
}

func (l *File) rotate() error {
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
