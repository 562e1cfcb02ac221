package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/guest/bundle"
	"github.com/slipway-build/slipway/internal/contract"
	"github.com/slipway-build/slipway/internal/kernel/mountinfo"
)

// setRoot mounts the initramfs over itself. The first mount can neither be
// moved nor replaced by pivot_root(2), which runc uses; the second can. Nothing
// is copied. A root on a disk or CD needs none of this.
func setRoot() error {
	var fs unix.Statfs_t
	if err := unix.Statfs("/", &fs); err != nil {
		return err
	}
	if fs.Type != unix.RAMFS_MAGIC && fs.Type != unix.TMPFS_MAGIC {
		return nil
	}
	const dir = "/run" // another mount will cover it
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return errors.Join(
		unix.Mount("/", dir, "", unix.MS_BIND, ""),
		unix.Chdir(dir),
		unix.Mount(dir, "/", "", unix.MS_MOVE, ""),
		unix.Chroot("."),
		unix.Chdir("/"),
	)
}

const noExec = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// mountKernel mounts the interfaces of the kernel, and /dev.
func mountKernel() error {
	return mountAll([]mount{
		{"proc", "/proc", noExec | unix.MS_RELATIME, ""},
		{"sysfs", "/sys", noExec | unix.MS_RELATIME, ""},
		{"devtmpfs", "/dev", unix.MS_NOSUID | unix.MS_NOEXEC | unix.MS_RELATIME, "size=10m,nr_inodes=248418,mode=755"},
	})
}

// mountWritable makes / read-only and mounts the writable directories. Sizes,
// options and directories are those of LinuxKit.
func mountWritable() error {
	var errs []error
	// The root of an initramfs is writable until here, so missing directories
	// can be made.
	for _, dir := range contract.MountPoints() {
		os.MkdirAll("/"+dir, 0o755) // on a read-only root this fails; if the directory is missing, the mount reports it
	}
	// In a container the mount belongs to it, but the filesystem does not.
	if err := unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
		errs = append(errs, fmt.Errorf("make / read-only: %w", err))
	}
	options := map[string]string{"run": "size=10%,mode=755", "tmp": "size=10%,mode=1777", "var": "size=50%,mode=755"}
	var mounts []mount
	for _, dir := range contract.TemporaryDirectories() {
		mounts = append(mounts, mount{"tmpfs", "/" + dir, noExec | unix.MS_RELATIME, options[dir]})
	}
	errs = append(errs,
		mountAll(mounts),
		makeAll(
			[]string{
				"/run/config", "/run/lock", "/run/log/onboot", "/run/resolvconf",
				"/var/cache", "/var/empty", "/var/lib", "/var/local", "/var/lock", "/var/log", "/var/opt", "/var/spool", "/var/tmp",
			},
			map[string]string{
				"/var/run":        "/run",
				"/var/config":     "/run/config",
				"/var/log/onboot": "/run/log/onboot",
			}),
		os.Chmod("/var/tmp", 0o1777),
	)
	return errors.Join(errs...)
}

// fillDev makes what programs expect in /dev besides devices.
func fillDev() error {
	return errors.Join(
		makeAll(
			[]string{"/dev/mqueue", "/dev/pts", "/dev/shm"},
			map[string]string{
				"/dev/fd":     "/proc/self/fd",
				"/dev/stdin":  "/proc/self/fd/0",
				"/dev/stdout": "/proc/self/fd/1",
				"/dev/stderr": "/proc/self/fd/2",
			}),
		mountAll([]mount{
			{"mqueue", "/dev/mqueue", noExec, ""},
			{"tmpfs", "/dev/shm", noExec, "mode=1777"},
			{"devpts", "/dev/pts", unix.MS_NOSUID | unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"},
		}),
	)
}

// makeAll makes directories and symbolic links.
func makeAll(dirs []string, links map[string]string) error {
	var errs []error
	for _, dir := range dirs {
		errs = append(errs, os.MkdirAll(dir, 0o755))
	}
	for link, target := range links {
		errs = append(errs, os.Symlink(target, link))
	}
	return errors.Join(errs...)
}

// mountControl mounts cgroups and those other interfaces that the kernel has,
// then makes all mounts shared, so that containers can pass mounts to each
// other.
func mountControl(unified bool) error {
	errs := []error{mountCgroups(unified)}
	known, err := os.ReadFile("/proc/filesystems")
	errs = append(errs, err)
	for _, m := range []mount{
		{"securityfs", "/sys/kernel/security", noExec, ""},
		{"debugfs", "/sys/kernel/debug", noExec, ""},
		{"tracefs", "/sys/kernel/tracing", noExec, ""},
		{"configfs", "/sys/kernel/config", noExec, ""},
		{"fusectl", "/sys/fs/fuse/connections", noExec, ""},
		{"selinuxfs", "/sys/fs/selinux", unix.MS_NOSUID | unix.MS_NOEXEC, ""},
		{"pstore", "/sys/fs/pstore", noExec, ""},
		{"bpf", "/sys/fs/bpf", noExec, "mode=700"},
		{"efivarfs", "/sys/firmware/efi/efivars", noExec, ""},
		{"binfmt_misc", "/proc/sys/fs/binfmt_misc", noExec, ""},
	} {
		if _, err := os.Stat(m.target); err == nil && hasFilesystem(string(known), m.kind) {
			errs = append(errs, mountAll([]mount{m}))
		}
	}
	errs = append(errs, unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""))
	return errors.Join(errs...)
}

// mountCgroups mounts the single hierarchy of version 2, or a hierarchy per
// controller of version 1.
func mountCgroups(unified bool) error {
	if unified {
		if err := mountUnified(); err != nil {
			return err
		}
		if inContainer() {
			if err := bundle.LeaveRoot(); err != nil {
				return fmt.Errorf("cgroups: %w", err)
			}
		}
		return bundle.EnableControllers(bundle.CgroupRoot)
	}
	controllers, err := controllersV1()
	errs := []error{err, mountAll([]mount{{"tmpfs", bundle.CgroupRoot, noExec | unix.MS_RELATIME, "mode=755,size=10m"}})}
	for _, controller := range controllers {
		err := mountAll([]mount{{"cgroup", filepath.Join(bundle.CgroupRoot, controller), noExec | unix.MS_RELATIME, controller}})
		if errors.Is(err, unix.EINVAL) { // /proc/cgroups also has the controllers of version 2
			err = fmt.Errorf("this kernel has no controller %s for cgroups v1, so its limits do not apply", controller)
		}
		errs = append(errs, err)
	}
	// Without this, nothing can run in a new cgroup until it is assigned
	// processors.
	clone := filepath.Join(bundle.CgroupRoot, "cpuset/cgroup.clone_children")
	if _, err := os.Stat(clone); err == nil {
		errs = append(errs, os.WriteFile(clone, []byte("1"), 0))
	}
	return errors.Join(errs...)
}

// mountUnified mounts the hierarchy of version 2. A container engine may have
// mounted it, often read-only.
func mountUnified() error {
	var fs unix.Statfs_t
	if err := unix.Statfs(bundle.CgroupRoot, &fs); err != nil || fs.Type != unix.CGROUP2_SUPER_MAGIC {
		return mountAll([]mount{{"cgroup2", bundle.CgroupRoot, noExec | unix.MS_RELATIME, ""}})
	}
	if err := unix.Mount("", bundle.CgroupRoot, "", unix.MS_REMOUNT|unix.MS_BIND|noExec|unix.MS_RELATIME, ""); err != nil {
		return fmt.Errorf("make %s writable: %w", bundle.CgroupRoot, err)
	}
	return nil
}

// controllersV1 returns the controllers for cgroups of version 1, several with
// commas between them if they are in one hierarchy: those of the kernel or, in a
// container, those that the host has mounted. A host can also use both versions.
func controllersV1() ([]string, error) {
	if inContainer() {
		text, err := os.ReadFile("/proc/self/cgroup")
		return ownControllers(string(text)), err
	}
	text, err := os.ReadFile("/proc/cgroups")
	return cgroupControllers(string(text)), err
}

// ownControllers returns the controllers of version 1 that a process is subject
// to whose /proc/PID/cgroup, cgroups(7), is text.
func ownControllers(text string) []string {
	var all []string
	for line := range strings.Lines(text) {
		_, hierarchy, _ := strings.Cut(line, ":")
		controllers, _, _ := strings.Cut(hierarchy, ":")
		if controllers != "" && !strings.HasPrefix(controllers, "name=") {
			all = append(all, controllers)
		}
	}
	return all
}

// cgroupControllers returns the enabled controllers in the text of
// /proc/cgroups, cgroups(7).
func cgroupControllers(text string) []string {
	var names []string
	for line := range strings.Lines(text) {
		if fields := strings.Fields(line); len(fields) == 4 && fields[3] == "1" {
			names = append(names, fields[0])
		}
	}
	return names
}

// hasFilesystem reports whether the text of /proc/filesystems has a type. An
// attempt to mount another type would make the kernel look for a module.
func hasFilesystem(known, kind string) bool {
	for line := range strings.Lines(known) {
		if fields := strings.Fields(line); len(fields) > 0 && fields[len(fields)-1] == kind {
			return true
		}
	}
	return false
}

type mount struct {
	kind, target string
	flags        uintptr
	data         string
}

func mountAll(mounts []mount) error {
	var errs []error
	for _, m := range mounts {
		os.MkdirAll(m.target, 0o755) // if this fails, the mount reports it
		if err := unix.Mount(m.kind, m.target, m.kind, m.flags, m.data); err != nil {
			errs = append(errs, fmt.Errorf("mount %s on %s: %w", m.kind, m.target, err))
		}
	}
	return errors.Join(errs...)
}

// mountVolumes mounts the volumes. What is written to a volume lies over its
// content, in memory. A volume without a directory for that is read-only.
func mountVolumes() error {
	dirs, err := bundle.List("/" + contract.Volumes)
	errs := []error{err}
	for _, dir := range dirs {
		lower, tmp, merged := filepath.Join(dir, contract.Lower), filepath.Join(dir, contract.Tmp), filepath.Join(dir, contract.Merged)
		mounts := []specs.Mount{
			{Type: "tmpfs", Source: "tmpfs", Destination: tmp},
			{Type: "overlay", Source: "overlay", Destination: merged, Options: []string{
				"lowerdir=" + lower, "upperdir=" + filepath.Join(tmp, "upper"), "workdir=" + filepath.Join(tmp, "work"),
			}},
		}
		if _, err := os.Stat(tmp); err != nil {
			mounts = []specs.Mount{{Source: lower, Destination: merged, Options: []string{"bind", "ro"}}}
		}
		for _, m := range mounts {
			if err := bundle.Mount(m); err != nil {
				errs = append(errs, fmt.Errorf("volume %s: %w", filepath.Base(dir), err))
				break
			}
		}
	}
	return errors.Join(errs...)
}

// unmountDisks unmounts the filesystems on disks and on the network. It makes
// those read-only that cannot be unmounted.
func unmountDisks() error {
	mounts, err := mountinfo.Read()
	errs := []error{err}
	for _, p := range slices.Backward(mounts) {
		switch {
		case p.Path == "/":
		case p.Type == "overlay" || strings.HasPrefix(p.Source, "/dev/"):
			if err := unix.Unmount(p.Path, 0); err == nil || p.Type == "overlay" {
				continue
			}
			if err := unix.Mount("", p.Path, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
				errs = append(errs, fmt.Errorf("unmount %s: %w", p.Path, err))
			}
		case networkFilesystem(p.Type):
			if err := unix.Unmount(p.Path, unix.MNT_FORCE|unix.MNT_DETACH); err != nil {
				errs = append(errs, fmt.Errorf("unmount %s: %w", p.Path, err))
			}
		}
	}
	return errors.Join(errs...)
}

// swapOff disables all swap. A swap file keeps its filesystem busy.
func swapOff() error {
	text, err := os.ReadFile("/proc/swaps")
	if errors.Is(err, os.ErrNotExist) {
		return nil // the kernel does not support swap
	}
	mounts, mountsErr := mountinfo.Read()
	errs := []error{err, mountsErr}
	for _, file := range swaps(string(text)) {
		// If the container that enabled it is gone, the path starts at the root
		// of the filesystem, which may be mounted anywhere. The kernel rejects
		// other files.
		err := swapOffFile(file)
		for i := 0; err != nil && i < len(mounts); i++ {
			if swapOffFile(filepath.Join(mounts[i].Path, file)) == nil {
				err = nil
			}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("swapoff %s: %w", file, err))
		}
	}
	return errors.Join(errs...)
}

// swaps returns the paths in the text of /proc/swaps, proc_swaps(5).
func swaps(text string) []string {
	var files []string
	for i, line := range strings.Split(text, "\n") {
		if fields := strings.Fields(line); i > 0 && len(fields) > 0 {
			files = append(files, fields[0])
		}
	}
	return files
}

func swapOffFile(path string) error {
	name, err := unix.BytePtrFromString(path)
	if err != nil {
		return err
	}
	if _, _, errno := unix.Syscall(unix.SYS_SWAPOFF, uintptr(unsafe.Pointer(name)), 0, 0); errno != 0 {
		return errno
	}
	return nil
}

// releaseDevices removes mapped devices, then loop devices. The file behind a
// loop device keeps its filesystem busy, even after that is unmounted.
func releaseDevices() error {
	var errs []error
	if mapped, _ := filepath.Glob("/sys/class/block/dm-*"); len(mapped) > 0 { // the pattern is valid
		request := unix.DmIoctl{Version: [3]uint32{unix.DM_VERSION_MAJOR}}
		request.Data_size = uint32(unsafe.Sizeof(request))
		if err := ioctl("/dev/mapper/control", unix.DM_REMOVE_ALL, unsafe.Pointer(&request)); err != nil {
			errs = append(errs, fmt.Errorf("release %w", err))
		}
	}
	files, _ := filepath.Glob("/sys/class/block/loop*/loop/backing_file") // the pattern is valid
	for _, file := range files {
		name := filepath.Base(filepath.Dir(filepath.Dir(file)))
		if err := ioctl(filepath.Join("/dev", name), unix.LOOP_CLR_FD, nil); err != nil {
			errs = append(errs, fmt.Errorf("release %w", err))
		}
	}
	return errors.Join(errs...)
}

func ioctl(path string, request uintptr, arg unsafe.Pointer) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(arg)); errno != 0 {
		return fmt.Errorf("%s: %w", path, errno)
	}
	return nil
}

func networkFilesystem(kind string) bool {
	switch kind {
	case "9p", "ceph", "cifs", "nfs", "nfs4", "smb3", "virtiofs":
		return true
	}
	return false
}
