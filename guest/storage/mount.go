package main

import (
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/guest/blkid"
	"github.com/slipway-build/slipway/guest/blockdev"
	"github.com/slipway-build/slipway/internal/kernel/mountinfo"
)

// mountCommand mounts the filesystem on a device, or with a label or UUID, or
// on the first partition that is not in use.
func mountCommand(flags *flag.FlagSet, args []string) error {
	device := flags.String("device", "", "mount this `DEVICE`, LABEL=… or UUID=…")
	label := flags.String("label", "", "mount the filesystem with this `LABEL`")
	uuid := flags.String("uuid", "", "mount the filesystem with this `UUID`")
	timeout := timeoutFlag(flags)
	words, err := parse(flags, args, "[DEVICE] MOUNTPOINT", 1, 2)
	if err != nil {
		return err
	}
	dir := words[len(words)-1]
	if len(words) == 2 {
		*device = words[0]
	}
	switch {
	case *device != "":
	case *label != "":
		*device = "LABEL=" + *label
	case *uuid != "":
		*device = "UUID=" + *uuid
	}
	// The init runs the container again for a new disk if an annotation says so.
	mounted, err := mountedOn(dir)
	if err != nil {
		return err
	}
	if *device == "" && mounted != "" {
		log.Printf("%s is already mounted on %s: nothing to do", mounted, dir)
		return nil
	}
	var path string
	var content blkid.Content
	err = await(*timeout, func() error {
		path, content, err = findFilesystem(*device)
		return err
	})
	if err != nil {
		return err
	}
	if same(path, mounted) {
		log.Printf("%s is already mounted on %s: nothing to do", path, dir)
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := mountAs(path, dir, content.Type); err != nil {
		return err
	}
	log.Printf("mounted %s (%v) on %s", path, content, dir)
	return linkByUUID()
}

// mountedOn returns the device that is mounted on a directory, or "".
func mountedOn(dir string) (device string, err error) {
	if resolved, err := filepath.EvalSymlinks(dir); err == nil { // else it does not exist
		dir = resolved
	}
	mounts, err := mountinfo.Read()
	for _, m := range mounts {
		if m.Path == filepath.Clean(dir) {
			device = m.Source
		}
	}
	if !strings.HasPrefix(device, "/dev/") {
		device = ""
	}
	return device, err
}

// same reports whether two paths, which may be symbolic links, lead to the same
// device.
func same(a, b string) bool {
	one, err1 := os.Stat(a)
	other, err2 := os.Stat(b)
	return err1 == nil && err2 == nil && os.SameFile(one, other)
}

// findFilesystem returns the device to mount: a path, LABEL=…, UUID=…, or for
// "" the first partition with a filesystem for Linux that is not in use.
func findFilesystem(device string) (string, blkid.Content, error) {
	label, byLabel := strings.CutPrefix(device, "LABEL=")
	uuid, byUUID := strings.CutPrefix(device, "UUID=")
	if device != "" && !byLabel && !byUUID {
		content, err := blkid.Identify(device)
		switch {
		case errors.Is(err, blkid.ErrUnknown):
			err = fmt.Errorf("%s: %w", device, err)
		case err == nil && !content.Mountable():
			err = fmt.Errorf("%s holds %v, which is not a filesystem", device, content)
		}
		return device, content, err
	}
	names, err := blockdev.Names()
	if err != nil {
		return "", blkid.Content{}, err
	}
	for _, name := range names {
		path := filepath.Join("/dev", name)
		content, err := blkid.Identify(path)
		switch {
		case err != nil || !content.Mountable():
		case byLabel && content.Label == label, byUUID && strings.EqualFold(content.UUID, uuid):
			return path, content, nil
		case device == "" && blockdev.Number(name, "partition") > 0 && filesystems[content.Type].args != nil && !inUse(path):
			return path, content, nil
		}
	}
	if device == "" {
		device = "unused partition with a filesystem"
	}
	return "", blkid.Content{}, fmt.Errorf("%s not found on this machine", device)
}

// inUse reports whether a device is mounted or part of another one.
func inUse(path string) bool {
	f, err := blockdev.Open(path, os.O_RDONLY|unix.O_EXCL)
	if err != nil {
		return true
	}
	f.Close()
	return false
}

// linkByUUID makes the links in /dev/disk/by-uuid for all filesystems.
func linkByUUID() error {
	const dir = "/dev/disk/by-uuid"
	names, err := blockdev.Names()
	errs := []error{err, os.MkdirAll(dir, 0o755)}
	for _, name := range names {
		content, err := blkid.Identify(filepath.Join("/dev", name))
		if err != nil || content.UUID == "" || !filepath.IsLocal(content.UUID) {
			continue
		}
		link := filepath.Join(dir, content.UUID)
		if err := os.Symlink(filepath.Join("../..", name), link); err != nil && !errors.Is(err, os.ErrExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
