package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/slipway-build/slipway/guest/blkid"
	"github.com/slipway-build/slipway/guest/blockdev"
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

// inspect returns a device with its content and partitions.
func inspect(path string) (device, error) {
	// A link, for example in /dev/disk/by-id, has another name than the device
	// has in sysfs.
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return device{}, err
	}
	name := filepath.Base(path)
	d := device{path: path, physical: blockdev.IsPhysical(name)}
	f, err := blockdev.Open(path, os.O_RDONLY)
	if err != nil {
		return device{}, err
	}
	defer f.Close()
	if d.empty, err = blockdev.IsEmpty(f); err != nil || d.empty {
		return d, err
	}
	if d.content, err = blkid.Probe(f); err != nil && !errors.Is(err, blkid.ErrUnknown) {
		return device{}, fmt.Errorf("%s: %w", path, err)
	}
	children, _ := filepath.Glob(filepath.Join(blockdev.Sys, name, name+"*", "partition")) // the pattern is valid
	for _, child := range children {
		child = filepath.Base(filepath.Dir(child))
		found, err := inspect(filepath.Join("/dev", child))
		if err != nil {
			return device{}, err
		}
		const unit = 512 // of sysfs, regardless of the sector size
		d.partitions = append(d.partitions, partition{found, int(blockdev.Number(child, "partition")), blockdev.Number(child, "start") * unit})
	}
	slices.SortFunc(d.partitions, func(a, b partition) int { return cmp.Compare(a.number, b.number) })
	return d, nil
}
