package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/internal/testutil/need"
)

// loopDevice returns a block device of size bytes, full of old data.
func loopDevice(t *testing.T, size int) string {
	t.Helper()
	need.Root(t)
	file, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.Write(bytes.Repeat([]byte{0xee}, size)); err != nil {
		t.Fatal(err)
	}
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer control.Close()
	for range 10 { // others may take the device first
		number, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			t.Fatal(err)
		}
		path := "/dev/loop" + strconv.Itoa(number)
		device, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.IoctlSetInt(int(device.Fd()), unix.LOOP_SET_FD, int(file.Fd())); err != nil {
			device.Close()
			continue
		}
		t.Cleanup(func() {
			unix.IoctlSetInt(int(device.Fd()), unix.LOOP_CLR_FD, 0)
			device.Close()
		})
		return path
	}
	t.Fatal("no free loop device")
	return ""
}

// TestInstall writes to a real block device.
func TestInstall(t *testing.T) {
	i, data := testImage(3*chunkSize + 1<<20)
	path := loopDevice(t, len(data)+2<<20)
	d := inspect(path, i.size)
	if d.unfit != nil || d.content == "" || d.size != int64(len(data)+2<<20) {
		t.Errorf("%+v", d)
	}
	if err := install(path, i); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got[:len(data)], data) || !isZero(got[len(got)-1<<20:]) || isZero(got[len(data):]) {
		t.Errorf("the device has %d bytes, %v", len(got), err)
	}
}

// TestInUse checks that nothing is written to a device that something uses, for
// example a mounted file system, and to one that is too small.
func TestInUse(t *testing.T) {
	i, _ := testImage(2 * chunkSize)
	path := loopDevice(t, 3*chunkSize)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	user, err := os.OpenFile(path, os.O_RDONLY|unix.O_EXCL, 0) // as a mount does
	if err != nil {
		t.Fatal(err)
	}
	if d := inspect(path, i.size); d.unfit == nil || !strings.Contains(d.String(), "it is in use") {
		t.Errorf("%v", d)
	}
	if err := install(path, i); err == nil {
		t.Error("install succeeds")
	}
	user.Close()
	large, _ := testImage(4 * chunkSize)
	if err := install(path, large); err == nil || !strings.Contains(err.Error(), "nothing was written") {
		t.Errorf("a device that is too small: %v", err)
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the device has changed, %v", err)
	}
}
