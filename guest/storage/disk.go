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

// device is a block device and what it holds.
type device struct {
	path       string
	physical   bool // a disk, not a partition of one and not made by a driver such as loop
	empty      bool // zeros at both ends
	content    blkid.Content
	partitions []partition
}

// partition is a partition as the kernel sees it.
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
		return d.path + " holds something unknown"
	}
	var texts []string
	for _, p := range d.partitions {
		texts = append(texts, p.String())
	}
	return strings.Join(texts, ", ")
}

// sysBlock is where the kernel lists block devices. See Documentation/ABI/stable/sysfs-block of Linux.
const sysBlock = "/sys/class/block"

// blockDevices lists the names of all block devices, sorted.
func blockDevices() ([]string, error) {
	entries, err := os.ReadDir(sysBlock)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

// physicalDisks lists the disks in the order of their names, without those that cannot be written and CDs.
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

// number reads a number that the kernel tells of a device; -1 if it does not.
func number(name, what string) int64 {
	text, err := os.ReadFile(filepath.Join(sysBlock, name, what))
	if err != nil {
		return -1
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return -1
	}
	return n
}

// look finds out what is on a device and its partitions.
func look(path string) (device, error) {
	// A link, as in /dev/disk/by-id, has another name than the kernel's.
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
	children, _ := filepath.Glob(filepath.Join(sysBlock, name, name+"*", "partition")) // the pattern is right
	for _, child := range children {
		child = filepath.Base(filepath.Dir(child))
		found, err := look(filepath.Join("/dev", child))
		if err != nil {
			return device{}, err
		}
		const unit = 512 // of sysfs, whatever the sectors of the disk
		d.partitions = append(d.partitions, partition{found, int(number(child, "partition")), number(child, "start") * unit})
	}
	slices.SortFunc(d.partitions, func(a, b partition) int { return cmp.Compare(a.number, b.number) })
	return d, nil
}

// emptySize is how much there is to see of a disk at each end: every partition table, filesystem and volume manager has something there.
const emptySize = 1 << 20

// isEmpty tells whether there are only zeros at both ends of a device.
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
