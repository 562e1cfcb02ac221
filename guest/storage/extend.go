package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"math"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/exporter/gpt"
	"github.com/slipway-build/slipway/exporter/mbr"

	"github.com/slipway-build/slipway/guest/blockdev"
)

// extendCommand extends the only partition of a disk, and its filesystem, to
// the size of the disk. Without arguments it does so for all disks. The
// filesystem may be mounted.
func extendCommand(flags *flag.FlagSet, args []string) error {
	kind := flags.String("type", "", "only extend filesystems of this `TYPE`: ext4, xfs or btrfs (default any)")
	stop := flags.Bool("stop-on-error", true, "stop at the first disk that fails")
	disks, err := parse(flags, args, "[DEVICE...]", 0, math.MaxInt)
	if err != nil {
		return err
	}
	named := len(disks) > 0
	if !named {
		if disks, err = blockdev.Physical(); err != nil {
			return err
		}
	}
	var errs []error
	for _, path := range disks {
		err := extend(path, *kind)
		if unsuitable := (unsuitableDisk{}); errors.As(err, &unsuitable) && !named {
			log.Printf("%v: skipped", err)
			continue
		}
		if err != nil && *stop {
			return err
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// unsuitableDisk is the error of a disk that cannot be extended by design.
type unsuitableDisk struct{ error }

func extend(path, kind string) error {
	d, err := inspect(path)
	if err != nil {
		return err
	}
	target := d
	if len(d.partitions) > 0 {
		target = d.partitions[0].device
	}
	_, ok := filesystems[target.content.Type]
	switch {
	case !ok || kind != "" && kind != target.content.Type:
		return unsuitableDisk{fmt.Errorf("%v, not %s", d, orAny(kind))}
	case len(d.partitions) > 1:
		return unsuitableDisk{fmt.Errorf("%s has more than one partition", path)}
	case len(d.partitions) == 1:
		if err := extendPartition(path, d.partitions[0]); err != nil {
			return fmt.Errorf("partition of %s: %w", path, err)
		}
	}
	before, after, err := growFilesystem(target.path, target.content.Type)
	if err != nil {
		return err
	}
	if before>>20 == after>>20 {
		log.Printf("%v, already as large as the disk", target)
	} else {
		log.Printf("%v, extended from %d to %d MiB", target, before>>20, after>>20)
	}
	return nil
}

func orAny(kind string) string {
	if kind == "" {
		return "ext4, xfs or btrfs"
	}
	return kind
}

// extendPartition writes the new end to the partition table and informs the
// kernel.
func extendPartition(path string, p partition) error {
	f, size, sector, err := openTable(path, os.O_RDWR)
	if err != nil {
		return err
	}
	defer f.Close()
	end, err := growTable(f, size, sector, p)
	if err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	resized := blkpgPartition{start: p.start, length: end - p.start, number: int32(p.number)}
	arg := unix.BlkpgIoctlArg{Op: unix.BLKPG_RESIZE_PARTITION, Datalen: int32(unsafe.Sizeof(resized)), Data: (*byte)(unsafe.Pointer(&resized))}
	return ioctl(f, unix.BLKPG, unsafe.Pointer(&arg))
}

// blkpgPartition is struct blkpg_partition of linux/blkpg.h.
type blkpgPartition struct {
	start, length int64 // bytes
	number        int32
	_             [128]byte // unused names
	_             int32
}

// growTable extends the only partition of a table to the end of the disk and
// returns that end. Sizes are in bytes.
func growTable(disk interface {
	io.ReaderAt
	io.WriterAt
}, size, sector int64, p partition) (int64, error) {
	sectors := uint64(size / sector)
	record, err := mbr.Read(disk)
	if err != nil {
		return 0, err
	}
	entry := &record.Partitions[0]
	switch {
	case p.number != 1:
		return 0, fmt.Errorf("it is number %d: only number 1 can be extended", p.number)
	case entry.Type == mbr.TypeGPT:
		if sector != gpt.SectorSize {
			return 0, fmt.Errorf("the sectors of the disk have %d bytes: with GPT it must be %d", sector, gpt.SectorSize)
		}
		table, err := gpt.Read(disk)
		if err != nil {
			return 0, err
		}
		if len(table.Partitions) != 1 || int64(table.Partitions[0].First)*sector != p.start {
			return 0, errors.New("the table is not the one that the kernel has read")
		}
		table.Sectors = sectors
		table.Partitions[0].Last = table.LastUsable()
		return int64(table.LastUsable()+1) * sector, writeGPT(disk, table)
	case int64(entry.First)*sector != p.start:
		return 0, errors.New("the table is not the one that the kernel has read")
	}
	last := min(sectors, math.MaxUint32)
	entry.Sectors = uint32(last) - entry.First
	return int64(last) * sector, writeMBR(disk, record)
}

// Requests to filesystems, from ext4.h, xfs_fs.h and btrfs.h. All require the
// filesystem to be mounted.
const (
	ext4Resize  = 0x40086610 // EXT4_IOC_RESIZE_FS
	xfsGrow     = 0x4010586e // XFS_IOC_FSGROWFSDATA
	btrfsResize = 0x50009403 // BTRFS_IOC_RESIZE
)

// growFilesystem extends a filesystem to the size of its device and returns its
// size before and after, in bytes.
func growFilesystem(path, kind string) (before, after int64, err error) {
	device, err := blockdev.Open(path, os.O_RDWR)
	if err != nil {
		return 0, 0, err
	}
	defer device.Close()
	size, err := device.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, 0, err
	}
	dir, err := os.MkdirTemp("", "extend")
	if err != nil {
		return 0, 0, err
	}
	defer os.Remove(dir)
	if err := mountAs(path, dir, kind); err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, unix.Unmount(dir, 0)) }()
	root, err := os.Open(dir)
	if err != nil {
		return 0, 0, err
	}
	defer root.Close()
	var stat unix.Statfs_t
	if err := unix.Fstatfs(int(root.Fd()), &stat); err != nil {
		return 0, 0, err
	}
	before = int64(stat.Blocks) * stat.Bsize
	if err := growMounted(root, device, kind, uint64(size/stat.Bsize)); err != nil {
		return 0, 0, fmt.Errorf("extend %s on %s: %w", kind, path, err)
	}
	err = unix.Fstatfs(int(root.Fd()), &stat)
	return before, int64(stat.Blocks) * stat.Bsize, err
}

// growMounted extends the filesystem whose root is open to a number of blocks.
func growMounted(root *os.File, device io.ReaderAt, kind string, blocks uint64) error {
	switch kind {
	case "ext4":
		return ioctl(root, ext4Resize, unsafe.Pointer(&blocks))
	case "xfs":
		// The request sets this percentage too, so keep the one in the superblock.
		const imaxPercent = 127
		var percent [1]byte
		if _, err := device.ReadAt(percent[:], imaxPercent); err != nil {
			return err
		}
		return ioctl(root, xfsGrow, unsafe.Pointer(&struct {
			blocks  uint64
			percent uint32
		}{blocks, uint32(percent[0])}))
	case "btrfs":
		var arg struct {
			_    int64
			name [4088]byte
		}
		copy(arg.name[:], "max")
		return ioctl(root, btrfsResize, unsafe.Pointer(&arg))
	}
	return errors.ErrUnsupported
}

func ioctl(f *os.File, request uintptr, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}
