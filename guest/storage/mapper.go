package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/guest/blockdev"
)

// mapper is the directory of mapped devices.
const mapper = "/dev/mapper"

// mapEncrypted makes /dev/mapper/NAME from a device that is encrypted without a
// header, as in the plain mode of cryptsetup(8). The cipher is in the form of
// Linux, Documentation/admin-guide/device-mapper/dm-crypt.rst.
func mapEncrypted(name, device, cipher string, key []byte) error {
	f, err := blockdev.Open(device, os.O_RDWR)
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	var stat unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &stat); err != nil {
		return err
	}
	const sector = 512 // unit of tables
	params := fmt.Sprintf("%s %s 0 %d:%d 0", cipher, hex.EncodeToString(key), unix.Major(stat.Rdev), unix.Minor(stat.Rdev))
	if err := mapDevice(name, "crypt", uint64(size/sector), params); err != nil {
		return fmt.Errorf("map %s as %s: %w", device, name, err)
	}
	return nil
}

// mapDevice makes a device with one target. The order of the requests is that
// of dmsetup(8).
func mapDevice(name, target string, sectors uint64, params string) error {
	c, err := openControl(filepath.Join(mapper, "control"))
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := dmRequest(c, unix.DM_DEV_CREATE, name, nil); err == unix.EBUSY {
		return errors.New("the name is in use")
	} else if err != nil {
		return err
	}
	spec := unix.DmTargetSpec{Length: sectors}
	copy(spec.Target_type[:], target)
	table := append(unsafe.Slice((*byte)(unsafe.Pointer(&spec)), unsafe.Sizeof(spec)), params...)
	table = append(table, 0)
	_, err = dmRequest(c, unix.DM_TABLE_LOAD, name, table)
	var number uint64
	if err == nil {
		number, err = dmRequest(c, unix.DM_DEV_SUSPEND, name, nil) // without DM_SUSPEND_FLAG it resumes the device
	}
	if err == nil {
		err = os.Symlink(fmt.Sprintf("../dm-%d", unix.Minor(number)), filepath.Join(mapper, name))
	}
	if err != nil {
		return errors.Join(err, unmapDevice(name))
	}
	return nil
}

func unmapDevice(name string) error {
	c, err := openControl(filepath.Join(mapper, "control"))
	if err != nil {
		return err
	}
	defer c.Close()
	if err := os.Remove(filepath.Join(mapper, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	_, err = dmRequest(c, unix.DM_DEV_REMOVE, name, nil)
	return err
}

// dmRequest does an ioctl of linux/dm-ioctl.h and returns the number of the
// device.
func dmRequest(c *os.File, request uintptr, name string, table []byte) (uint64, error) {
	var head unix.DmIoctl
	size := uint32(unsafe.Sizeof(head))
	buf := make([]byte, int(size)+len(table))
	head = unix.DmIoctl{Version: [3]uint32{unix.DM_VERSION_MAJOR}, Data_size: uint32(len(buf)), Data_start: size, Flags: unix.DM_SECURE_DATA_FLAG}
	if len(name) >= len(head.Name) {
		return 0, fmt.Errorf("a name may have %d bytes", len(head.Name)-1)
	}
	copy(head.Name[:], name)
	if table != nil {
		head.Target_count = 1
	}
	copy(buf[size:], table)
	response := (*unix.DmIoctl)(unsafe.Pointer(&buf[0]))
	*response = head
	err := ioctl(c, request, unsafe.Pointer(response))
	return response.Dev, err
}
