//go:build linux || darwin || freebsd

package disk

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// nextData returns the next bytes at or after at that are not in a hole, or
// size, size. What cannot tell its holes is one piece of data.
func nextData(file *os.File, at, size int64) (start, end int64, err error) {
	start, err = unix.Seek(int(file.Fd()), at, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO): // no more data
		return size, size, nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.ENOTTY):
		return at, size, nil
	case err != nil:
		return 0, 0, &os.PathError{Op: "seek to data", Path: file.Name(), Err: err}
	}
	end, err = unix.Seek(int(file.Fd()), start, unix.SEEK_HOLE)
	if err != nil {
		return 0, 0, &os.PathError{Op: "seek to hole", Path: file.Name(), Err: err}
	}
	return start, min(end, size), nil
}
