package bundle

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/internal/kernel/mountinfo"
)

// flagWords are the options of fstab(5) and mount(8) that are flags of
// mount(2). Those in clearWords clear a flag.
var flagWords = map[string]uintptr{
	"bind":        unix.MS_BIND,
	"dirsync":     unix.MS_DIRSYNC,
	"iversion":    unix.MS_I_VERSION,
	"lazytime":    unix.MS_LAZYTIME,
	"mand":        unix.MS_MANDLOCK,
	"noatime":     unix.MS_NOATIME,
	"nodev":       unix.MS_NODEV,
	"nodiratime":  unix.MS_NODIRATIME,
	"noexec":      unix.MS_NOEXEC,
	"nosuid":      unix.MS_NOSUID,
	"nosymfollow": unix.MS_NOSYMFOLLOW,
	"rbind":       unix.MS_BIND | unix.MS_REC,
	"relatime":    unix.MS_RELATIME,
	"remount":     unix.MS_REMOUNT,
	"ro":          unix.MS_RDONLY,
	"silent":      unix.MS_SILENT,
	"strictatime": unix.MS_STRICTATIME,
	"sync":        unix.MS_SYNCHRONOUS,
}

var clearWords = map[string]uintptr{
	"async":         unix.MS_SYNCHRONOUS,
	"atime":         unix.MS_NOATIME,
	"defaults":      0,
	"dev":           unix.MS_NODEV,
	"diratime":      unix.MS_NODIRATIME,
	"exec":          unix.MS_NOEXEC,
	"loud":          unix.MS_SILENT,
	"noiversion":    unix.MS_I_VERSION,
	"nolazytime":    unix.MS_LAZYTIME,
	"nomand":        unix.MS_MANDLOCK,
	"norelatime":    unix.MS_RELATIME,
	"nostrictatime": unix.MS_STRICTATIME,
	"rw":            unix.MS_RDONLY,
	"suid":          unix.MS_NOSUID,
	"symfollow":     unix.MS_NOSYMFOLLOW,
}

// propagationWords need a separate mount(2).
var propagationWords = map[string]uintptr{
	"private":     unix.MS_PRIVATE,
	"rprivate":    unix.MS_PRIVATE | unix.MS_REC,
	"rshared":     unix.MS_SHARED | unix.MS_REC,
	"rslave":      unix.MS_SLAVE | unix.MS_REC,
	"runbindable": unix.MS_UNBINDABLE | unix.MS_REC,
	"shared":      unix.MS_SHARED,
	"slave":       unix.MS_SLAVE,
	"unbindable":  unix.MS_UNBINDABLE,
}

// parseOptions parses mount options. Unknown ones are data for the filesystem.
func parseOptions(options []string) (flags uintptr, propagation []uintptr, data string) {
	var unknown []string
	for _, word := range options {
		if flag, ok := flagWords[word]; ok {
			flags |= flag
		} else if flag, ok := clearWords[word]; ok {
			flags &^= flag
		} else if flag, ok := propagationWords[word]; ok {
			propagation = append(propagation, flag)
		} else {
			unknown = append(unknown, word)
		}
	}
	return flags, propagation, strings.Join(unknown, ",")
}

// Mount mounts in the machine. It makes the destination, and the upper and work
// directories of an overlay.
func Mount(m specs.Mount) error {
	flags, propagation, data := parseOptions(m.Options)
	fail := func(err error) error {
		return fmt.Errorf("mount %s (%s) on %s: %w", m.Source, m.Type, m.Destination, err)
	}
	if err := makeTarget(m.Source, m.Destination, flags&unix.MS_BIND != 0); err != nil {
		return fail(err)
	}
	for _, option := range m.Options {
		key, dir, _ := strings.Cut(option, "=")
		if key == "upperdir" || key == "workdir" {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return fail(err)
			}
		}
	}
	if err := unix.Mount(m.Source, m.Destination, m.Type, flags, data); err != nil {
		return fail(err)
	}
	// The kernel accepts no other flag together with a bind, and none together
	// with a change of propagation.
	const bound = unix.MS_BIND | unix.MS_REC | unix.MS_REMOUNT | unix.MS_SILENT
	if flags&unix.MS_BIND != 0 && flags&unix.MS_REMOUNT == 0 && flags&^bound != 0 {
		if err := unix.Mount("", m.Destination, "", unix.MS_REMOUNT|flags&^unix.MS_REC, ""); err != nil {
			return fail(err)
		}
	}
	for _, flag := range propagation {
		if err := unix.Mount("", m.Destination, "", flag, ""); err != nil {
			return fail(err)
		}
	}
	return nil
}

// makeTarget makes the mount point: a directory, or a file if a file is bound
// on it.
func makeTarget(source, target string, bind bool) error {
	if bind {
		info, err := os.Stat(source)
		if err != nil {
			return err
		}
		if !info.IsDir() {
			return makeFile(target)
		}
	}
	return os.MkdirAll(target, 0o755)
}

func makeFile(path string) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

// bindNamespace binds a namespace on a file, which keeps the namespace alive.
func bindNamespace(source, path string) error {
	if err := makeFile(path); err != nil {
		return err
	}
	if err := unix.Mount(source, path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind namespace %s on %s: %w", source, path, err)
	}
	return nil
}

// unbindNamespace undoes bindNamespace. It does nothing if no namespace is
// bound on the path.
func unbindNamespace(path string) {
	var fs unix.Statfs_t
	if unix.Statfs(path, &fs) == nil && fs.Type == unix.NSFS_MAGIC {
		unix.Unmount(path, unix.MNT_DETACH)
	}
}

// UnmountBelow unmounts everything at dir and below it, the last mount first. A
// busy mount is detached: it disappears with its last user.
func UnmountBelow(dir string) error {
	mounts, err := mountinfo.Read()
	if err != nil {
		return err
	}
	var errs []error
	for _, m := range slices.Backward(mounts) {
		if m.Path != dir && !strings.HasPrefix(m.Path, dir+"/") {
			continue
		}
		err := unix.Unmount(m.Path, 0)
		if errors.Is(err, unix.EBUSY) {
			err = unix.Unmount(m.Path, unix.MNT_DETACH)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("unmount %s: %w", m.Path, err))
		}
	}
	return errors.Join(errs...)
}
