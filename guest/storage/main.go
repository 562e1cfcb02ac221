// Command storage is the program of the packages format, mount, extend, swap,
// losetup and dm-crypt. It runs under the names that LinuxKit's packages use,
// with their arguments: format, mountie, extend, swap.sh, loopy and crypto.
// Each prepares disks once, as an onboot container.
package main

import (
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/guest/blockdev"
)

// commands are the programs by their names. With the build tag nocrypt, crypto and
// what it needs are missing.
var commands = map[string]func(flags *flag.FlagSet, args []string) error{
	"format":  formatCommand,
	"mountie": mountCommand,
	"extend":  extendCommand,
	"swap.sh": swapCommand,
	"loopy":   loopCommand,
}

func main() {
	name := filepath.Base(os.Args[0])
	log.SetFlags(0)
	log.SetPrefix(strings.TrimSuffix(name, ".sh") + ": ")
	command, ok := commands[name]
	if !ok {
		log.Fatalf("unknown program name %q", name)
	}
	if err := command(flag.NewFlagSet(name, flag.ExitOnError), os.Args[1:]); err != nil {
		log.Fatal(err)
	}
}

// parse parses the arguments of a command. usage describes the min to max
// arguments after the flags.
func parse(flags *flag.FlagSet, args []string, usage string, min, max int) ([]string, error) {
	usage = fmt.Sprintf("usage: %s [flags] %s", flags.Name(), usage)
	flags.Usage = func() {
		fmt.Fprintln(flags.Output(), usage)
		flags.PrintDefaults()
	}
	flags.Parse(args)
	if n := flags.NArg(); n < min || n > max {
		return nil, fmt.Errorf("%d arguments given; %s", n, usage)
	}
	return flags.Args(), nil
}

// timeoutFlag defines how long a command waits for its disk. Clouds attach
// disks to running machines.
func timeoutFlag(flags *flag.FlagSet) *time.Duration {
	return flags.Duration("timeout", 10*time.Second, "wait for the disk for `DURATION`")
}

// await calls try until it succeeds or the timeout has elapsed. It returns the
// error of the last call.
func await(timeout time.Duration, try func() error) error {
	for deadline := time.Now().Add(timeout); ; time.Sleep(100 * time.Millisecond) {
		err := try()
		if err == nil || !time.Now().Before(deadline) {
			return err
		}
	}
}

// openTable opens a disk to write its partition table. It returns the sizes of
// the disk and of its sectors in bytes.
func openTable(path string, flags int) (f *os.File, size, sector int64, err error) {
	if f, err = blockdev.Open(path, flags); err != nil {
		return nil, 0, 0, err
	}
	size, err = f.Seek(0, io.SeekEnd)
	if err == nil {
		var n int
		n, err = unix.IoctlGetInt(int(f.Fd()), unix.BLKSSZGET)
		sector = int64(n)
	}
	if err != nil {
		f.Close()
		return nil, 0, 0, err
	}
	return f, size, sector, nil
}

// openControl opens the control device of a driver, which makes the kernel load
// the module of the driver.
func openControl(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("%w (does the machine have the module of the driver?)", err)
	}
	return f, nil
}

// mountAs mounts a device on a directory.
func mountAs(device, dir, kind string) error {
	err := unix.Mount(device, dir, kind, unix.MS_RELATIME, "")
	if err == unix.ENODEV {
		return fmt.Errorf("mount %s: the kernel does not support %s: add slipwaybuild/modules to init", device, kind)
	}
	if err != nil {
		return fmt.Errorf("mount %s (%s) on %s: %w", device, kind, dir, err)
	}
	return nil
}
