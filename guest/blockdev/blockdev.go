// Package blockdev finds and opens the block devices of a machine.
package blockdev

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Sys is where the kernel lists block devices (Linux,
// Documentation/ABI/stable/sysfs-block).
const Sys = "/sys/class/block"

// Names returns the names of all block devices, sorted.
func Names() ([]string, error) {
	entries, err := os.ReadDir(Sys)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

// Physical returns the disks in the order of their names, without CDs and
// read-only disks.
func Physical() ([]string, error) {
	names, err := Names()
	var paths []string
	for _, name := range names {
		if IsPhysical(name) && Number(name, "ro") == 0 && Number(name, "size") > 0 && !strings.HasPrefix(name, "sr") {
			paths = append(paths, filepath.Join("/dev", name))
		}
	}
	return paths, err
}

// IsPhysical reports whether a device is a disk, neither a partition nor made by
// a driver, for example loop.
func IsPhysical(name string) bool {
	_, err := os.Stat(filepath.Join(Sys, name, "device"))
	_, partition := os.Stat(filepath.Join(Sys, name, "partition"))
	return err == nil && partition != nil
}

// Number returns a numeric attribute of a device, or -1 if the kernel does not
// provide it.
func Number(name, attribute string) int64 {
	text, err := os.ReadFile(filepath.Join(Sys, name, attribute))
	if err != nil {
		return -1
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return -1
	}
	return n
}

// Open opens a block device. With unix.O_EXCL it fails if the device is
// mounted or part of another one.
func Open(path string, flags int) (*os.File, error) {
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || info.Mode()&(fs.ModeDevice|fs.ModeCharDevice) != fs.ModeDevice {
		f.Close()
		return nil, fmt.Errorf("%s is not a block device", path)
	}
	return f, nil
}

// EmptySize is how much of each end of a disk must be zero for the disk to be
// empty, in bytes. Every partition table, filesystem and volume manager writes
// there.
const EmptySize = 1 << 20

// IsEmpty reports whether there are only zeros at both ends of a device.
func IsEmpty(f io.ReadSeeker) (bool, error) {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return false, err
	}
	zeros, buf := make([]byte, EmptySize), make([]byte, min(EmptySize, size))
	for _, at := range []int64{0, size - int64(len(buf))} {
		if _, err := f.Seek(at, io.SeekStart); err != nil {
			return false, err
		}
		if _, err := io.ReadFull(f, buf); err != nil {
			return false, err
		}
		if !bytes.Equal(buf, zeros[:len(buf)]) {
			return false, nil
		}
	}
	return true, nil
}
