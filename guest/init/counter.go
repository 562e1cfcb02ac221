package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/internal/kernel/mountinfo"
)

// A counter is a number in a file that survives a reboot.
type counter struct {
	path string
	efi  bool // whether the file is an EFI variable
}

// counterVariable is the EFI variable that counts reboots. The GUID is random.
const (
	efiVariables    = "/sys/firmware/efi/efivars"
	counterVariable = "SlipwayReboots-7c1e4f0b-52d9-4a3e-9a6f-0d8b6c2f41ea"
	counterDir      = "/var/lib/slipway"
	counterFile     = "reboots"
)

// findCounter returns the counter of reboots: an EFI variable, or else a file in
// /var/lib/slipway, if that is on a disk.
func findCounter() (*counter, error) {
	var efi unix.Statfs_t
	if err := unix.Statfs(efiVariables, &efi); err == nil && efi.Type == unix.EFIVARFS_MAGIC && efi.Flags&unix.ST_RDONLY == 0 {
		return &counter{filepath.Join(efiVariables, counterVariable), true}, nil
	}
	mounts, err := mountinfo.Read()
	if err != nil {
		return nil, err
	}
	if onDisk(mounts, counterDir) {
		return &counter{filepath.Join(counterDir, counterFile), false}, nil
	}
	return nil, fmt.Errorf("nothing survives that can count reboots: the machine has no EFI variables, and %s is not on a disk", counterDir)
}

// onDisk reports whether a path is on a filesystem of a disk.
func onDisk(mounts []mountinfo.Mount, path string) bool {
	var last mountinfo.Mount // the longest mount point above path, and the last one there
	for _, m := range mounts {
		above := m.Path == path || strings.HasPrefix(path, strings.TrimSuffix(m.Path, "/")+"/")
		if above && len(m.Path) >= len(last.Path) {
			last = m
		}
	}
	return strings.HasPrefix(last.Source, "/dev/")
}

// read returns the number, which is 0 at first.
func (c *counter) read() (int, error) {
	text, err := os.ReadFile(c.path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if c.efi { // the attributes come first
		text = text[min(len(text), 4):]
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 31)
	if err != nil {
		return 0, fmt.Errorf("%s: not a number: %.20q", c.path, text)
	}
	return int(n), nil
}

// write writes the number, such that it survives a reboot.
func (c *counter) write(n int) error {
	text := strconv.Itoa(n) + "\n"
	if !c.efi {
		if err := os.MkdirAll(filepath.Dir(c.path), 0o755); err != nil {
			return err
		}
		return replaceFile(c.path, []byte(text))
	}
	if err := c.mutable(); err != nil {
		return err
	}
	// UEFI specification, 8.2: non-volatile, for boot services and the system.
	const attributes = 1 | 2 | 4
	f, err := os.OpenFile(c.path, os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Write(append(binary.LittleEndian.AppendUint32(nil, attributes), text...))
	return err
}

// clear makes the number 0.
func (c *counter) clear() error {
	if c.efi {
		if err := c.mutable(); err != nil {
			return err
		}
	}
	if err := os.Remove(c.path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// mutable lets the variable be changed. The kernel protects variables that it
// does not know (Linux, Documentation/filesystems/efivarfs.rst).
func (c *counter) mutable() error {
	f, err := os.Open(c.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil {
		return &os.PathError{Op: "get flags", Path: c.path, Err: err}
	}
	const immutable = 0x10 // FS_IMMUTABLE_FL
	if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags&^immutable); err != nil {
		return &os.PathError{Op: "set flags", Path: c.path, Err: err}
	}
	return nil
}

// replaceFile replaces a file such that after a crash it has the old or the new
// contents.
func replaceFile(path string, contents []byte) error {
	next := path + ".new"
	f, err := os.OpenFile(next, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(contents)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(next, path)
}
