package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/internal/kernel/cmdline"
)

// raiseLimits gives everything that runs in the machine LinuxKit's limits: a million files, and any number of processes.
func raiseLimits() error {
	const files = 1 << 20
	return errors.Join(
		os.NewSyscallError("setrlimit NOFILE", unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: files, Max: files})),
		os.NewSyscallError("setrlimit NPROC", unix.Setrlimit(unix.RLIMIT_NPROC, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY})),
	)
}

// littleMemory in bytes is what a machine has little memory with less of.
const littleMemory = 4 << 30

// setHugePages turns transparent huge pages off in a machine with little memory, unless the kernel's command line tells what to do with them: for
// their sake the kernel keeps 45 MiB of 1 GiB free, and programs hold 2 MiB where they need a few KiB. See transhuge.rst in the kernel's documentation.
func setHugePages(args []cmdline.Arg) error {
	if _, told := cmdline.Lookup(args, "transparent_hugepage"); told {
		return nil
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return os.NewSyscallError("sysinfo", err)
	}
	if uint64(info.Totalram)*uint64(info.Unit) >= littleMemory {
		return nil
	}
	err := os.WriteFile("/sys/kernel/mm/transparent_hugepage/enabled", []byte("never"), 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil // a kernel without them
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

// setHostname takes the name from /etc/hostname, or makes one from the address of the first network card.
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

// makeResolvConf makes an empty file where /etc/resolv.conf leads to, so that containers can bind it before there is a network.
func makeResolvConf() error {
	target, err := os.Readlink("/etc/resolv.conf")
	if err != nil {
		return nil // no link: a file of the machine, or none
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
