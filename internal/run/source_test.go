package run

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/exporter/fat"
	"github.com/slipway-build/slipway/internal/vm"
)

// write writes a file whose parts are at the given offsets.
func write(t *testing.T, path string, size int, parts map[int]string) string {
	t.Helper()
	data := make([]byte, size)
	for at, text := range parts {
		copy(data[at:], text)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// bzImage writes a kernel for amd64.
func bzImage(t *testing.T, path string) string {
	t.Helper()
	data := make([]byte, 0x1000)
	copy(data[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(data[0x206:], 0x20f)
	data[0x1f1] = 1
	data[0x236] = 1
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestOpenFiles(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	for _, c := range []struct {
		file string
		size int
		text map[int]string
		want Source
	}{
		{"a.qcow2", 512, map[int]string{0: "QFI\xfb"}, Source{Disk: path("a.qcow2"), Format: "qcow2", bios: true, uefi: true}},
		{"a-efi.qcow2", 512, map[int]string{0: "QFI\xfb"}, Source{Disk: path("a-efi.qcow2"), Format: "qcow2", uefi: true}},
		{"a.vmdk", 512, map[int]string{0: "KDMV"}, Source{Disk: path("a.vmdk"), Format: "vmdk", bios: true, uefi: true}},
		{"fixed.vhd", 4096, map[int]string{4096 - 512: "conectix"}, Source{Disk: path("fixed.vhd"), Format: "vpc", bios: true, uefi: true}},
		{"a.iso", 40 << 10, map[int]string{0x8001: "CD001"}, Source{CD: path("a.iso"), bios: true, uefi: true}},
		{"a.raw", 4096, map[int]string{510: "\x55\xaa"}, Source{Disk: path("a.raw"), Format: "raw", bios: true, uefi: true}},
	} {
		c.want.Name = strings.TrimSuffix(c.file, filepath.Ext(c.file))
		if got, err := Open(write(t, path(c.file), c.size, c.text)); err != nil || got != c.want {
			t.Errorf("%s: got %+v, %v", c.file, got, err)
		}
	}
	for name, text := range map[string]map[int]string{
		"empty": nil, "text": {0: "hello"}, "damaged.efi": {0: "MZ"}, "disk.img.tar.gz": {0: "\x1f\x8b"},
	} {
		size := 600
		if text == nil {
			size = 0
		}
		if got, err := Open(write(t, path(name), size, text)); err == nil || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
	if _, err := Open(path("nonsuch")); !os.IsNotExist(err) {
		t.Error(err)
	}
}

func TestOpenFolder(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "has no kernel") {
		t.Errorf("an empty folder: %v", err)
	}
	prefix := filepath.Join(dir, "web")
	bzImage(t, prefix+"-kernel")
	write(t, prefix+"-initrd.img", 10, nil)
	write(t, prefix+"-squashfs.img", 10, nil)
	if err := os.WriteFile(prefix+"-cmdline", []byte("quiet\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	want := Source{Name: "web", Architecture: "amd64", Kernel: prefix + "-kernel", Initrd: prefix + "-initrd.img", Root: prefix + "-squashfs.img", Cmdline: "quiet"}
	for _, path := range []string{dir, prefix, prefix + "-kernel"} {
		if got, err := Open(path); err != nil || got != want {
			t.Errorf("%s: got %+v, %v", path, got, err)
		}
	}
	if got, err := OpenBuilt([]string{prefix + "-cmdline", prefix + "-initrd.img", prefix + "-kernel"}); err != nil || got != want {
		t.Errorf("files of a build: got %+v, %v", got, err)
	}
	micro := filepath.Join(t.TempDir(), "micro")
	bzImage(t, micro+"-vmlinux")
	write(t, micro+"-firecracker.json", 10, nil)
	want = Source{Name: "micro", Architecture: "amd64", Kernel: micro + "-vmlinux"}
	for _, path := range []string{filepath.Dir(micro), micro, micro + "-vmlinux"} {
		if got, err := Open(path); err != nil || got != want {
			t.Errorf("%s: got %+v, %v", path, got, err)
		}
	}
	write(t, filepath.Join(dir, "other.raw"), 512, nil)
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "name one of web, other.raw") {
		t.Errorf("two machines: %v", err)
	}
}

func TestConfigure(t *testing.T) {
	for _, c := range []struct {
		name   string
		source Source
		config vm.Config
		want   string // part of the error, or the firmware
	}{
		{"default", Source{Disk: "d", bios: true, uefi: true, Architecture: "amd64"}, vm.Config{}, "bios"},
		{"for arm64", Source{Disk: "d", bios: true, uefi: true}, vm.Config{Architecture: "arm64"}, "uefi"},
		{"only UEFI", Source{Disk: "d", uefi: true, Architecture: "amd64"}, vm.Config{}, "uefi"},
		{"chosen", Source{Disk: "d", bios: true, uefi: true, Architecture: "amd64"}, vm.Config{Firmware: vm.SecureBoot}, "secure-boot"},
		{"no BIOS", Source{Name: "x", Disk: "d", uefi: true, Architecture: "amd64"}, vm.Config{Firmware: vm.BIOS}, "x does not boot under BIOS: use --uefi"},
		{"no UEFI", Source{Name: "x", Disk: "d", bios: true, Architecture: "amd64"}, vm.Config{Firmware: vm.UEFI}, "x does not boot under UEFI: use --bios"},
		{"other architecture", Source{Name: "x", Disk: "d", uefi: true, Architecture: "arm64"}, vm.Config{Architecture: "amd64"}, "x is for arm64, not amd64"},
		{"disk in a microVM", Source{Name: "x", Disk: "d", bios: true, Architecture: "amd64"}, vm.Config{MicroVM: true}, "a microVM has no firmware that boots x"},
		{"kernel with firmware", Source{Kernel: "k"}, vm.Config{Firmware: vm.UEFI}, "QEMU loads k itself"},
	} {
		err := c.source.Configure(&c.config, t.TempDir())
		if got := string(c.config.Firmware); err == nil && got != c.want || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: firmware %q, %v; want %q", c.name, got, err, c.want)
		}
	}
	config := vm.Config{}
	if err := (Source{Kernel: "k", Architecture: "arm64", Cmdline: "console=ttyS0"}).Configure(&config, ""); err != nil || config.Cmdline != "console=ttyS0 console=ttyAMA0" {
		t.Errorf("the command line is %q, %v", config.Cmdline, err)
	}
}

// A UKI boots from a filesystem.
func TestSystemPartition(t *testing.T) {
	dir := t.TempDir()
	program := write(t, filepath.Join(dir, "a.efi"), 1<<20, map[int]string{0: "MZ"})
	config := vm.Config{}
	if err := (Source{Program: program, Architecture: "arm64", uefi: true}).Configure(&config, dir); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(config.Disk)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fsys, err := fat.Open(f)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := fsys.Stat("EFI/BOOT/BOOTAA64.EFI"); err != nil || info.Size() != 1<<20 || config.Firmware != vm.UEFI {
		t.Errorf("%+v, %v, firmware %s", info, err, config.Firmware)
	}
}
