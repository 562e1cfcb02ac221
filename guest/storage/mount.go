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
	var path string
	var content blkid.Content
	err = await(*timeout, func() error {
		path, content, err = findFilesystem(*device)
		return err
	})
	if err != nil {
		return err
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
	names, err := blockDevices()
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
		case device == "" && number(name, "partition") > 0 && filesystems[content.Type].args != nil && !inUse(path):
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
	f, err := openDisk(path, os.O_RDONLY|unix.O_EXCL)
	if err != nil {
		return true
	}
	f.Close()
	return false
}

// linkByUUID makes the links in /dev/disk/by-uuid for all filesystems.
func linkByUUID() error {
	const dir = "/dev/disk/by-uuid"
	names, err := blockDevices()
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
