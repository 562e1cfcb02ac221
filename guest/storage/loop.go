package main

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/guest/blockdev"
)

// loopCommand makes a loop device from a file.
func loopCommand(flags *flag.FlagSet, args []string) error {
	var create bool
	var size int64
	var device string
	for _, name := range []string{"c", "create"} {
		flags.BoolVar(&create, name, false, "create FILE if it is missing")
	}
	for _, name := range []string{"s", "size"} {
		flags.Int64Var(&size, name, 10, "size of a new FILE in `MIB`")
	}
	for _, name := range []string{"d", "dev"} {
		flags.StringVar(&device, name, "/dev/loop0", "attach FILE to this `DEVICE`")
	}
	names, err := parse(flags, args, "FILE", 1, 1)
	if err != nil {
		return err
	}
	if _, err := os.Stat(names[0]); errors.Is(err, fs.ErrNotExist) && create {
		if err := allocate(names[0], size<<20); err != nil {
			return err
		}
	}
	number, err := strconv.Atoi(strings.TrimPrefix(device, "/dev/loop"))
	if err != nil {
		return fmt.Errorf("--dev %s: must be /dev/loop and a number", device)
	}
	if err := attach(names[0], number); err != nil {
		return err
	}
	log.Printf("attached %s to %s", names[0], device)
	return nil
}

// allocate makes a file of a size in bytes with all blocks allocated, so that a
// disk that fills up later does not break its users.
func allocate(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Fallocate(int(f.Fd()), 0, 0, size); err != nil {
		os.Remove(path)
		return fmt.Errorf("create %s of %d MiB: %w", path, size>>20, err)
	}
	return f.Sync()
}

// attach attaches a file to the loop device of a number.
func attach(path string, number int) error {
	c, err := openControl("/dev/loop-control")
	if err != nil {
		return err
	}
	defer c.Close()
	if err := unix.IoctlSetInt(int(c.Fd()), unix.LOOP_CTL_ADD, number); err != nil && err != unix.EEXIST {
		return fmt.Errorf("create /dev/loop%d: %w", number, err)
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	device, err := blockdev.Open("/dev/loop"+strconv.Itoa(number), os.O_RDWR)
	if err != nil {
		return err
	}
	defer device.Close()
	config := unix.LoopConfig{Fd: uint32(file.Fd())}
	copy(config.Info.File_name[:len(config.Info.File_name)-1], path)
	if err := unix.IoctlLoopConfigure(int(device.Fd()), &config); err != nil {
		return fmt.Errorf("attach %s to %s: %w", path, device.Name(), err)
	}
	return nil
}
