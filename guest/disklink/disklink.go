// Package disklink keeps the links by which programs find disks, as udev does on
// other systems: /dev/disk/by-id, by-label, by-partuuid, by-path and by-uuid, and
// for an EBS volume the name that EC2 knows it by, for example /dev/sdf.
package disklink

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// A Keeper keeps the links to all devices that its user names.
type Keeper struct {
	root string // of the filesystem; "/" except in tests

	mu     sync.Mutex
	links  map[string][]string // by device
	owners map[string][]string // devices by link; the link leads to the first
}

// New returns a keeper of /dev below root, which is "/" for the machine.
func New(root string) *Keeper {
	return &Keeper{root: root, links: map[string][]string{}, owners: map[string][]string{}}
}

// Devices returns the names of all block devices of the kernel.
func (k *Keeper) Devices() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(k.root, "sys/class/block"))
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

// Update makes the links to a device by its name in /dev, and removes those that
// no longer hold. If the device is gone, it removes all. Of several devices with
// the same label or UUID, the first keeps the link until it is gone. Update may
// wait for the device; for different devices it may be called at the same time.
func (k *Keeper) Update(name string) error {
	wanted, err := names(k.root, name)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // removed
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	errs := []error{err}
	for _, link := range k.links[name] {
		if slices.Contains(wanted, link) {
			continue
		}
		k.owners[link] = slices.DeleteFunc(k.owners[link], func(owner string) bool { return owner == name })
		errs = append(errs, k.point(link))
	}
	for _, link := range wanted {
		if slices.Contains(k.owners[link], name) {
			continue
		}
		k.owners[link] = append(k.owners[link], name)
		errs = append(errs, k.point(link))
	}
	if k.links[name] = wanted; len(wanted) == 0 {
		delete(k.links, name)
	}
	return errors.Join(errs...)
}

// point makes a link lead to its first owner, or removes it if it has none. It
// replaces nothing but links.
func (k *Keeper) point(link string) error {
	path := filepath.Join(k.root, "dev", link)
	if info, err := os.Lstat(path); err == nil && info.Mode()&fs.ModeSymlink == 0 {
		return nil // a device has this name
	}
	owners := k.owners[link]
	if len(owners) == 0 {
		delete(k.owners, link)
		if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	target, err := filepath.Rel(dir, filepath.Join(k.root, "dev", owners[0]))
	if err != nil {
		return err
	}
	partial := filepath.Join(dir, ".disklink-partial")
	if err := os.Remove(partial); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(target, partial); err != nil {
		return err
	}
	return os.Rename(partial, path)
}
