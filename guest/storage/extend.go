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
)

// extendCommand makes the only partition of a disk, and the filesystem in it, as large as the disk: of those that are named, or else of all. A
// filesystem may be mounted already.
func extendCommand(flags *flag.FlagSet, args []string) error {
	kind := flags.String("type", "", "only filesystems of this `TYPE`: ext4, xfs or btrfs (default any of them)")
	stop := flags.Bool("stop-on-error", true, "stop at the first disk that fails")
	disks, err := parse(flags, args, "[DEVICE...]", 0, math.MaxInt)
	if err != nil {
		return err
	}
	named := len(disks) > 0
	if !named {
		if disks, err = physicalDisks(); err != nil {
			return err
		}
	}
	var errs []error
	for _, path := range disks {
		err := extend(path, *kind)
		if other := (otherDisk{}); errors.As(err, &other) && !named {
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

// otherDisk is the error of a disk that extend is not for.
type otherDisk struct{ error }

func extend(path, kind string) error {
	d, err := look(path)
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
		return otherDisk{fmt.Errorf("%v, not %s", d, orAny(kind))}
	case len(d.partitions) > 1:
		return otherDisk{fmt.Errorf("%s has more than one partition", path)}
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
		log.Printf("%v, grown from %d to %d MiB", target, before>>20, after>>20)
	}
	return nil
}

func orAny(kind string) string {
	if kind == "" {
		return "ext4, xfs or btrfs"
	}
	return kind
}

// extendPartition writes the new end to the partition table and tells it to the kernel.
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
	_             [128]byte // names that nobody reads
	_             int32
}

// growTable lets the only partition of a table end where the disk does, and gives that end in bytes. Sizes are in bytes.
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

// The requests to filesystems, of ext4.h, xfs_fs.h and btrfs.h. All of them work on mounted ones only.
const (
	ext4Resize  = 0x40086610 // EXT4_IOC_RESIZE_FS
	xfsGrow     = 0x4010586e // XFS_IOC_FSGROWFSDATA
	btrfsResize = 0x50009403 // BTRFS_IOC_RESIZE
)

// superblockSize is how much of a superblock growFilesystem reads, in bytes.
const superblockSize = 512

// growFilesystem makes a filesystem as large as its device and gives the room in it before and after, in bytes.
func growFilesystem(path, kind string) (before, after int64, err error) {
	device, err := openDisk(path, os.O_RDWR)
	if err != nil {
		return 0, 0, err
	}
	defer device.Close()
	size, err := device.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, 0, err
	}
	head := make([]byte, superblockSize)
	if _, err := device.ReadAt(head, 0); err != nil {
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
	blocks := uint64(size / stat.Bsize)
	switch kind {
	case "ext4":
		err = ioctl(root, ext4Resize, unsafe.Pointer(&blocks))
	case "xfs":
		const imaxPercent = 127 // in the superblock; what is not given anew would change
		err = ioctl(root, xfsGrow, unsafe.Pointer(&struct {
			blocks  uint64
			percent uint32
		}{blocks, uint32(head[imaxPercent])}))
	case "btrfs":
		var arg struct {
			_    int64
			name [4088]byte
		}
		copy(arg.name[:], "max")
		err = ioctl(root, btrfsResize, unsafe.Pointer(&arg))
	}
	if err != nil {
		return 0, 0, fmt.Errorf("grow %s on %s: %w", kind, path, err)
	}
	err = unix.Fstatfs(int(root.Fd()), &stat)
	return before, int64(stat.Blocks) * stat.Bsize, err
}

func ioctl(f *os.File, request uintptr, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}
