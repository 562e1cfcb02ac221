//go:build linux || darwin || freebsd

package disk

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// nextData returns the next range at or after an offset that is not a hole, and size,
// size if there is none. If the system cannot find holes, the rest is one range.
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
