package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/guest/modprobe"
	"github.com/slipway-build/slipway/internal/kernel/cmdline"
	"github.com/slipway-build/slipway/internal/kernel/kmod"
)

// openModules returns a loader for the modules of the running kernel. It returns
// nil without an error if the machine has none.
func openModules(args []cmdline.Arg) (*modprobe.Loader, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return nil, err
	}
	index, err := kmod.Open(filepath.Join("/lib/modules", unix.ByteSliceToString(name.Release[:])))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return modprobe.NewLoader(index, args), nil
}

// loadDrivers loads the drivers of all present devices. A driver of a bus makes
// new devices appear, so it repeats until it finds no new device. It loads
// several drivers at a time, because some wait for their device.
func loadDrivers(loader *modprobe.Loader) error {
	const concurrency = 4
	var errs []error
	var mu sync.Mutex
	seen := map[string]bool{}
	for more := true; more; {
		more = false
		var all sync.WaitGroup
		slots := make(chan struct{}, concurrency)
		for _, modalias := range modaliases() {
			if seen[modalias] {
				continue
			}
			seen[modalias], more = true, true
			slots <- struct{}{}
			all.Go(func() {
				if err := loader.LoadFor(modalias); err != nil {
					mu.Lock()
					defer mu.Unlock()
					errs = append(errs, err)
				}
				<-slots
			})
		}
		all.Wait()
	}
	if _, err := os.Stat("/sys/firmware/efi/efivars"); err == nil {
		errs = append(errs, loader.Load("efivarfs")) // no device has it as its driver
	}
	return errors.Join(errs...)
}

// makeNodes makes the device nodes of modules that the kernel loads when a
// program opens the node, for example /dev/loop-control or /dev/net/tun. If
// such a module is built in, the kernel makes the node itself.
func makeNodes(nodes []kmod.Node) error {
	var errs []error
	for _, n := range nodes {
		mode := uint32(unix.S_IFCHR | 0o600)
		if n.Block {
			mode = unix.S_IFBLK | 0o600
		}
		path := filepath.Join("/dev", n.Path)
		os.MkdirAll(filepath.Dir(path), 0o755) // if this fails, mknod reports it
		if err := unix.Mknod(path, mode, int(unix.Mkdev(n.Major, n.Minor))); err != nil && err != unix.EEXIST {
			errs = append(errs, fmt.Errorf("make %s: %w", path, err))
		}
	}
	return errors.Join(errs...)
}

// modaliases returns the modalias of each device on each bus.
func modaliases() []string {
	files, _ := filepath.Glob("/sys/bus/*/devices/*/modalias") // the pattern is valid
	var names []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if name := strings.TrimSpace(string(text)); err == nil && name != "" { // a device may disappear at any time
			names = append(names, name)
		}
	}
	return names
}

// A hotplug receives the events of devices from the kernel. It loads the drivers
// of new devices and passes on what happens to disks.
type hotplug struct {
	fd     int
	loader *modprobe.Loader // nil without modules
	disks  *disks
	out    *console
}

func listenForDevices() (*hotplug, error) {
	const kernelEvents = 1 // multicast group of the kernel; 2 is that of udev
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, fmt.Errorf("hotplug: %w", err)
	}
	// A burst of events must not overrun the socket while a driver is loading.
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 1<<20)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: kernelEvents}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("hotplug: %w", err)
	}
	return &hotplug{fd: fd}, nil
}

func (h *hotplug) serve() {
	buffer := make([]byte, 16<<10) // larger than any uevent
	for {
		n, from, err := unix.Recvfrom(h.fd, buffer, 0)
		switch {
		case err == unix.ENOBUFS: // events are lost
			h.disks.scan()
			continue
		case err == unix.EINTR:
			continue
		case err != nil:
			h.out.say("hotplug: %v: new devices will not be noticed", err)
			return
		}
		if sender, ok := from.(*unix.SockaddrNetlink); !ok || sender.Pid != 0 {
			continue // not from the kernel
		}
		event := parseEvent(buffer[:n])
		if event["ACTION"] == "add" && event["MODALIAS"] != "" && h.loader != nil {
			if err := h.loader.LoadFor(event["MODALIAS"]); err != nil {
				h.out.say("hotplug: %v", err)
			}
		}
		if name := event["DEVNAME"]; event["ACTION"] == "add" && event["SUBSYSTEM"] == "ptp" {
			os.Chmod(filepath.Join("/dev", filepath.Base(name)), 0o444) // chrony reads it without root, and works without it
		}
		if name := event["DEVNAME"]; event["SUBSYSTEM"] == "block" && name != "" {
			h.disks.changed(name)
		}
	}
}

// parseEvent parses a uevent: a line "ACTION@PATH", then KEY=VALUE fields, each
// followed by a zero byte.
func parseEvent(event []byte) map[string]string {
	fields := map[string]string{}
	for field := range bytes.SplitSeq(event, []byte{0}) {
		if key, value, ok := bytes.Cut(field, []byte("=")); ok {
			fields[string(key)] = string(value)
		}
	}
	return fields
}

// modprobeCommand is the program modprobe, which loads all modules that its
// arguments name. The kernel runs it for a module that it needs, for example as
// "modprobe -q -- fs-overlay".
func modprobeCommand(args []string) error {
	quiet := false
	var names []string
	for _, arg := range args {
		switch {
		case arg == "-q" || arg == "-qb" || arg == "-abq":
			quiet = true
		case arg == "-a" || arg == "-b" || arg == "--":
		case strings.HasPrefix(arg, "-"):
			return fmt.Errorf("%s: unknown option; usage: modprobe [-a] [-b] [-q] MODULE…", arg)
		default:
			names = append(names, arg)
		}
	}
	kernelArgs, err := cmdline.Read()
	if err != nil {
		return err
	}
	loader, err := openModules(kernelArgs)
	if err != nil {
		return err
	}
	if loader == nil {
		return errors.New("no modules for this kernel in /lib/modules")
	}
	var errs []error
	for _, name := range names {
		if err := loader.Load(name); !quiet || !errors.Is(err, modprobe.ErrNotFound) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// setClock sets the system clock from the hardware clock, unless the kernel has
// done so.
func setClock() error {
	if time.Now().Year() >= 2020 {
		return nil
	}
	f, err := os.Open("/dev/rtc0")
	if err != nil {
		return fmt.Errorf("clock: %w", err)
	}
	defer f.Close()
	now, err := unix.IoctlGetRTCTime(int(f.Fd()))
	if err != nil {
		return fmt.Errorf("clock: %s: %w", f.Name(), err)
	}
	t := time.Date(int(now.Year)+1900, time.Month(now.Mon+1), int(now.Mday), int(now.Hour), int(now.Min), int(now.Sec), 0, time.UTC)
	return os.NewSyscallError("settimeofday", unix.Settimeofday(&unix.Timeval{Sec: t.Unix()}))
}
