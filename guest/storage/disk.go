package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/slipway-build/slipway/guest/blkid"
)

// A device is a block device with its content.
type device struct {
	path       string
	physical   bool // a disk, neither a partition nor made by a driver, for example loop
	empty      bool // whether there are only zeros at both ends
	content    blkid.Content
	partitions []partition
}

// A partition is a partition as the kernel sees it.
type partition struct {
	device
	number int
	start  int64 // bytes
}

func (d device) String() string {
	switch {
	case d.empty:
		return d.path + " is empty"
	case d.content.Type != "":
		return fmt.Sprintf("%s holds %v", d.path, d.content)
	case len(d.partitions) == 0:
		return d.path + " has unknown content"
	}
	var texts []string
	for _, p := range d.partitions {
		texts = append(texts, p.String())
	}
	return strings.Join(texts, ", ")
}

// sysBlock is where the kernel lists block devices (Linux,
// Documentation/ABI/stable/sysfs-block).
const sysBlock = "/sys/class/block"

// blockDevices returns the names of all block devices, sorted.
func blockDevices() ([]string, error) {
	entries, err := os.ReadDir(sysBlock)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

// physicalDisks returns the disks in the order of their names, without CDs and
// read-only disks.
func physicalDisks() ([]string, error) {
	names, err := blockDevices()
	var paths []string
	for _, name := range names {
		if isPhysical(name) && number(name, "ro") == 0 && number(name, "size") > 0 && !strings.HasPrefix(name, "sr") {
			paths = append(paths, filepath.Join("/dev", name))
		}
	}
	return paths, err
}

func isPhysical(name string) bool {
	_, err := os.Stat(filepath.Join(sysBlock, name, "device"))
	_, partition := os.Stat(filepath.Join(sysBlock, name, "partition"))
	return err == nil && partition != nil
}

// number returns a numeric attribute of a device, or -1 if the kernel does not
// provide it.
func number(name, attribute string) int64 {
	text, err := os.ReadFile(filepath.Join(sysBlock, name, attribute))
	if err != nil {
		return -1
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return -1
	}
	return n
}

// inspect returns a device with its content and partitions.
func inspect(path string) (device, error) {
	// A link, for example in /dev/disk/by-id, has another name than the device
	// has in sysfs.
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return device{}, err
	}
	name := filepath.Base(path)
	d := device{path: path, physical: isPhysical(name)}
	f, err := openDisk(path, os.O_RDONLY)
	if err != nil {
		return device{}, err
	}
	defer f.Close()
	if d.empty, err = isEmpty(f); err != nil || d.empty {
		return d, err
	}
	if d.content, err = blkid.Probe(f); err != nil && !errors.Is(err, blkid.ErrUnknown) {
		return device{}, fmt.Errorf("%s: %w", path, err)
	}
	children, _ := filepath.Glob(filepath.Join(sysBlock, name, name+"*", "partition")) // the pattern is valid
	for _, child := range children {
		child = filepath.Base(filepath.Dir(child))
		found, err := inspect(filepath.Join("/dev", child))
		if err != nil {
			return device{}, err
		}
		const unit = 512 // of sysfs, regardless of the sector size
		d.partitions = append(d.partitions, partition{found, int(number(child, "partition")), number(child, "start") * unit})
	}
	slices.SortFunc(d.partitions, func(a, b partition) int { return cmp.Compare(a.number, b.number) })
	return d, nil
}

// emptySize is how much of each end of a disk must be zero for the disk to be
// empty, in bytes. Every partition table, filesystem and volume manager writes
// there.
const emptySize = 1 << 20

// isEmpty reports whether there are only zeros at both ends of a device.
func isEmpty(f io.ReadSeeker) (bool, error) {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return false, err
	}
	zeros, buf := make([]byte, emptySize), make([]byte, min(emptySize, size))
	for _, at := range []int64{0, size - int64(len(buf))} {
		if _, err := f.Seek(at, io.SeekStart); err != nil {
			return false, err
		}
		if _, err := io.ReadFull(f, buf); err != nil {
			return false, err
		}
		if !bytes.Equal(buf, zeros[:len(buf)]) {
			return false, nil
		}
	}
	return true, nil
}
