package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/exporter/verity"
	"github.com/slipway-build/slipway/guest/modprobe"
	"github.com/slipway-build/slipway/internal/contract"
	"github.com/slipway-build/slipway/internal/kernel/cmdline"
)

const (
	newRoot = "/root" // in the small initramfs, which has no other such directory

	// rootTimeout is how long to wait for the disk.
	rootTimeout = 30 * time.Second
)

// enterRoot continues on a root filesystem on a disk, if this is the small
// initramfs that leads there. Then it returns only on an error. On the root
// filesystem itself it returns nil.
func enterRoot() error {
	kind, err := os.ReadFile("/" + contract.StartupMarker)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := mountKernel(); err != nil {
		return err
	}
	openConsole()
	args, err := cmdline.Read()
	if err != nil {
		return err
	}
	if err := setPanic(args); err != nil {
		return err
	}
	if err := mountRoot(args, string(kind)); err != nil {
		return err
	}
	return startIn(newRoot, args)
}

// A rootDisk is where the root filesystem is.
type rootDisk struct {
	kind, options string
	device        string       // "" for the first disk that holds a machine
	hash          *verity.Hash // with which dm-verity verifies it, or nil
}

// parseRoot returns the root filesystem that the kernel command line asks for.
func parseRoot(args []cmdline.Arg, kind string) (r rootDisk, err error) {
	r.kind = kind
	r.options, _ = cmdline.Lookup(args, "rootflags")
	if text, ok := cmdline.Lookup(args, verity.CmdlineKey); ok {
		hash, err := verity.ParseHash(text)
		if err != nil {
			return r, fmt.Errorf("kernel command line: %s=: %w", verity.CmdlineKey, err)
		}
		r.hash = &hash
		return r, nil
	}
	r.device, _ = cmdline.Lookup(args, "root")
	if r.device != "" && !strings.HasPrefix(r.device, "/dev/") {
		return r, fmt.Errorf("root=%s: not a device: use for example root=/dev/vda, or remove root= to use the first disk that holds a machine", r.device)
	}
	return r, nil
}

// mountRoot waits for the disk with the root filesystem, and mounts it.
func mountRoot(args []cmdline.Arg, kind string) error {
	root, err := parseRoot(args, kind)
	if err != nil {
		return err
	}
	loader, err := openModules(args)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(newRoot, 0o755); err != nil {
		return err
	}
	for deadline := time.Now().Add(rootTimeout); ; time.Sleep(20 * time.Millisecond) {
		// A device may appear long after its driver is loaded.
		var loadErr error
		if loader != nil {
			loadErr = errors.Join(loadDrivers(loader), root.loadModules(loader))
		}
		err := root.mount()
		if err == nil {
			return nil
		}
		if root.hash != nil && !errors.Is(err, errNoPartition) {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("no root filesystem within %v: %w", rootTimeout, errors.Join(loadErr, err))
		}
	}
}

// loadModules loads the modules that mount needs, unless the kernel has them built
// in.
func (r rootDisk) loadModules(loader *modprobe.Loader) error {
	modules := []string{r.kind}
	if r.hash != nil {
		modules = append(modules, "dm_verity")
		loader.LoadFor(verity.DigestModule) // without it, dm-verity is slower
	}
	var errs []error
	for _, module := range modules {
		if err := loader.Load(module); !errors.Is(err, modprobe.ErrNotFound) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// mount mounts the root filesystem, if its disk is there.
func (r rootDisk) mount() error {
	if r.hash != nil {
		return mountVerified(*r.hash, r.kind, r.options)
	}
	devices := []string{r.device}
	if r.device == "" {
		devices = nil
		disks, _ := filepath.Glob("/sys/class/block/*") // the pattern is valid
		for _, disk := range disks {
			devices = append(devices, filepath.Join("/dev", filepath.Base(disk)))
		}
	}
	var errs []error
	for _, device := range devices {
		err := mountMachine(device, r.kind, r.options)
		if err == nil {
			return nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", device, err))
	}
	return cmp.Or(errors.Join(errs...), errors.New("there is no disk"))
}

// mountMachine mounts a disk if it holds a machine.
func mountMachine(device, kind, options string) error {
	if err := unix.Mount(device, newRoot, kind, unix.MS_RDONLY, options); err != nil {
		return err
	}
	if _, err := os.Lstat(filepath.Join(newRoot, "sbin/init")); err != nil {
		unix.Unmount(newRoot, 0)
		return errors.New("it has no /sbin/init")
	}
	return nil
}

// startIn changes the root to a directory and executes the init there, with
// nothing mounted on it, as if the kernel had done so.
func startIn(root string, args []cmdline.Arg) error {
	for _, dir := range []string{"/dev", "/sys", "/proc"} {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", dir, err)
		}
	}
	// The initramfs cannot be seen from now on, but it uses memory.
	for _, name := range []string{"/lib", "/" + contract.StartupMarker, "/init"} {
		if err := os.RemoveAll(name); err != nil {
			return err
		}
	}
	err := errors.Join(
		unix.Chdir(root),
		unix.Mount(root, "/", "", unix.MS_MOVE, ""),
		unix.Chroot("."),
		unix.Chdir("/"),
	)
	if err != nil {
		return fmt.Errorf("enter the root filesystem: %w", err)
	}
	init, ok := cmdline.Lookup(args, "init")
	if !ok {
		init = "/sbin/init"
	}
	return fmt.Errorf("start %s: %w", init, unix.Exec(init, append([]string{init}, os.Args[1:]...), os.Environ()))
}
