package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/guest/modprobe"
	"github.com/slipway-build/slipway/internal/kernel/cmdline"
)

// setPanic makes the kernel reboot 10 seconds after a panic, and panic after an
// oops, unless its command line says otherwise. The end of process 1 is a
// panic. By default the kernel would stop for good.
func setPanic(args []cmdline.Arg) error {
	var errs []error
	for _, s := range []struct{ file, value, arg string }{
		{"panic", "10", "panic"},
		{"panic_on_oops", "1", "oops"},
	} {
		if given(args, s.arg, "sysctl.kernel."+s.file, "sysctl/kernel/"+s.file) {
			continue
		}
		errs = append(errs, os.WriteFile("/proc/sys/kernel/"+s.file, []byte(s.value), 0))
	}
	return errors.Join(errs...)
}

// given reports whether the kernel command line has one of the arguments.
func given(args []cmdline.Arg, keys ...string) bool {
	for _, key := range keys {
		if _, ok := cmdline.Lookup(args, key); ok {
			return true
		}
	}
	return false
}

const (
	watchdogPath    = "/dev/watchdog"
	watchdogTimeout = 60 // seconds
)

// startWatchdog makes a watchdog reboot the machine if process 1 hangs: that of
// the hardware, or else one of the kernel. The kernel argument slipway.watchdog
// sets its timeout in seconds; 0 leaves the watchdog to other programs. A
// kernel without watchdogs is no error.
func startWatchdog(loader *modprobe.Loader, args []cmdline.Arg) error {
	timeout := watchdogTimeout
	if text, ok := cmdline.Lookup(args, "slipway.watchdog"); ok {
		n, err := strconv.ParseUint(text, 10, 15)
		if err != nil {
			return fmt.Errorf("slipway.watchdog=%q: not a number of seconds", text)
		}
		timeout = int(n)
	}
	if timeout == 0 {
		return nil
	}
	if _, err := os.Stat(watchdogPath); err != nil && loader != nil {
		if err := loader.Load("softdog"); err != nil && !errors.Is(err, modprobe.ErrNotFound) {
			return fmt.Errorf("watchdog: %w", err)
		}
	}
	f, err := os.OpenFile(watchdogPath, os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("watchdog: %w", err)
	}
	// The hardware may not support this timeout, and then keeps its own.
	unix.IoctlSetPointerInt(int(f.Fd()), unix.WDIOC_SETTIMEOUT, timeout)
	if n, err := unix.IoctlGetInt(int(f.Fd()), unix.WDIOC_GETTIMEOUT); err == nil && n > 0 {
		timeout = n
	}
	go func() { // the file stays open: closing it can stop the watchdog
		for {
			if _, err := f.Write([]byte{0}); err != nil {
				return // then the machine reboots
			}
			time.Sleep(time.Duration(timeout) * time.Second / 4)
		}
	}()
	return nil
}
