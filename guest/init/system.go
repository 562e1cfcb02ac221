package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/guest/bundle"
	"github.com/slipway-build/slipway/internal/kernel/cmdline"
)

// raiseLimits sets the limits of LinuxKit for everything that runs in the
// machine: a million files, and any number of processes. Without
// CAP_SYS_RESOURCE it raises them as far as it may. A container may lack that.
func raiseLimits() error {
	const files = 1 << 20
	limits := bundle.OwnLimits()
	return errors.Join(
		os.NewSyscallError("setrlimit NOFILE", raiseLimit(limits, unix.RLIMIT_NOFILE, files)),
		os.NewSyscallError("setrlimit NPROC", raiseLimit(limits, unix.RLIMIT_NPROC, unix.RLIM_INFINITY)),
	)
}

func raiseLimit(limits *bundle.Limits, kind int, value uint64) error {
	if limits != nil {
		value = min(value, limits.Hard(kind))
	}
	return unix.Setrlimit(kind, &unix.Rlimit{Cur: value, Max: value})
}

// hugePagesMemory is the memory, in bytes, from which on transparent huge pages
// stay enabled.
const hugePagesMemory = 4 << 30

// setHugePages disables transparent huge pages in a machine with little memory,
// unless the kernel command line configures them. With them, the kernel keeps
// 45 MiB of 1 GiB free, and programs use 2 MiB where they need a few KiB
// (Linux, Documentation/admin-guide/mm/transhuge.rst).
func setHugePages(args []cmdline.Arg) error {
	if _, ok := cmdline.Lookup(args, "transparent_hugepage"); ok {
		return nil
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return os.NewSyscallError("sysinfo", err)
	}
	if uint64(info.Totalram)*uint64(info.Unit) >= hugePagesMemory {
		return nil
	}
	err := os.WriteFile("/sys/kernel/mm/transparent_hugepage/enabled", []byte("never"), 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil // the kernel does not support them
	}
	return err
}

func raiseLoopback() error {
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	return nil
}

// setHostname sets the name in /etc/hostname, or a name made from the address
// of the first network interface.
func setHostname() error {
	text, err := os.ReadFile("/etc/hostname")
	name := strings.TrimSpace(string(text))
	if err != nil || name == "" {
		name = "linuxkit"
		if address, err := os.ReadFile("/sys/class/net/eth0/address"); err == nil {
			name += "-" + strings.ReplaceAll(strings.TrimSpace(string(address)), ":", "")
		}
	}
	if err := unix.Sethostname([]byte(name)); err != nil {
		return fmt.Errorf("hostname %q: %w", name, err)
	}
	return nil
}

// makeResolvConf makes an empty file at the target of the link
// /etc/resolv.conf, so that containers can bind it before the network is up.
func makeResolvConf() error {
	target, err := os.Readlink("/etc/resolv.conf")
	if err != nil {
		return nil // a regular file of the machine, or nothing
	}
	if !filepath.IsAbs(target) {
		target = filepath.Join("/etc", target)
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(target, os.O_CREATE|os.O_RDONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}
