package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/exporter/gpt"
	"github.com/slipway-build/slipway/exporter/verity"
	"github.com/slipway-build/slipway/guest/blockdev"
)

// errNoPartition is the error for a partition that no disk has.
var errNoPartition = errors.New("no disk has it")

// mountVerified mounts the root filesystem with a root hash. dm-verity verifies
// each block that the kernel reads. The error wraps verity.ErrMismatch or
// verity.ErrFormat if the disk does not belong to the root hash, and errNoPartition
// if it may still appear.
func mountVerified(root verity.Hash, kind, options string) error {
	dataID, treeID := root.PartitionIDs()
	data, err := findPartition(dataID)
	if err != nil {
		return fmt.Errorf("root partition %s: %w", dataID, err)
	}
	tree, err := findPartition(treeID)
	if err != nil {
		return fmt.Errorf("partition %s with the hash tree of the root: %w", treeID, err)
	}
	f, err := blockdev.Open(tree, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	superblock, err := verity.Read(f)
	if err == nil {
		err = superblock.CheckRoot(f, root)
	}
	const sector = 512
	if size := blockdev.Number(filepath.Base(data), "size") * sector; err == nil && superblock.DataSize() > size {
		err = fmt.Errorf("%w: the superblock is for %d bytes, but %s has %d", verity.ErrFormat, superblock.DataSize(), data, size)
	}
	if err != nil {
		return fmt.Errorf("%s: %w: the disk was changed or is damaged", tree, err)
	}
	device, err := makeMapped("root", superblock.DataSize()/sector, "verity", superblock.Table(data, tree, root))
	if err != nil {
		return fmt.Errorf("set up dm-verity for %s: %w", data, err)
	}
	return mountMachine(device, kind, options)
}

// findPartition returns the device of the partition with an ID.
func findPartition(id gpt.GUID) (string, error) {
	names, err := blockdev.Names()
	if err != nil {
		return "", err
	}
	for _, name := range names {
		if !blockdev.IsPhysical(name) {
			continue
		}
		number := partitionNumber(filepath.Join("/dev", name), id)
		if number == 0 {
			continue
		}
		files, _ := filepath.Glob(filepath.Join(blockdev.Sys, name, "*", "partition")) // the pattern is valid
		for _, file := range files {
			partition := filepath.Base(filepath.Dir(file))
			if blockdev.Number(partition, "partition") == int64(number) {
				return filepath.Join("/dev", partition), nil
			}
		}
	}
	return "", errNoPartition
}

// partitionNumber returns the number of the partition with an ID on a disk, or 0.
func partitionNumber(disk string, id gpt.GUID) int {
	f, err := os.Open(disk)
	if err != nil {
		return 0
	}
	defer f.Close()
	table, err := gpt.Read(f)
	if err != nil {
		return 0 // a disk of something else
	}
	for _, p := range table.Partitions {
		if p.ID == id {
			return p.Number
		}
	}
	return 0
}

// makeMapped makes a read-only device of the device mapper with one target, and
// returns its path (Linux, include/uapi/linux/dm-ioctl.h).
func makeMapped(name string, sectors int64, target, params string) (string, error) {
	const control = "/dev/mapper/control"
	type request struct {
		unix.DmIoctl
		target unix.DmTargetSpec
		params [1024]byte
	}
	call := func(number uintptr, change func(*request)) (uint64, error) {
		var r request
		r.Version = [3]uint32{unix.DM_VERSION_MAJOR}
		r.Data_size, r.Data_start = uint32(unsafe.Sizeof(r)), uint32(unsafe.Offsetof(r.target))
		copy(r.Name[:], name)
		change(&r)
		err := ioctl(control, number, unsafe.Pointer(&r))
		return r.Dev, err
	}
	device, err := call(unix.DM_DEV_CREATE, func(*request) {})
	if err != nil {
		return "", err
	}
	_, err = call(unix.DM_TABLE_LOAD, func(r *request) {
		r.Flags, r.Target_count = unix.DM_READONLY_FLAG, 1
		r.target.Length = uint64(sectors)
		copy(r.target.Target_type[:], target)
		copy(r.params[:len(r.params)-1], params)
	})
	if err == nil {
		_, err = call(unix.DM_DEV_SUSPEND, func(*request) {}) // without the flag to suspend, it resumes
	}
	if err != nil {
		_, removeErr := call(unix.DM_DEV_REMOVE, func(*request) {})
		return "", errors.Join(err, removeErr)
	}
	return filepath.Join("/dev", "dm-"+strconv.Itoa(int(unix.Minor(device)))), nil
}
