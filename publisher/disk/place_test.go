package disk

import (
	"bytes"
	"testing"

	"github.com/slipway-build/slipway/exporter/disk/disktest"
)

func TestPlace(t *testing.T) {
	initrd := archive(t, member{"etc/hostname", "machine"}, member{"usr/bin/large", string(bytes.Repeat([]byte("large"), 100_000))}, member{"etc/last", "last"})
	files := map[string][]byte{
		"EFI/BOOT/BOOTX64.EFI":  unifiedKernel(t, disktest.Kernel(release), initrd),
		"EFI/BOOT/BOOTAA64.EFI": disktest.Program(0xaa64, 0x400),
		"grub/grub.cfg":         bytes.Repeat([]byte("# configuration\n"), 1000),
	}
	data := gptDisk(t, bytes.Repeat([]byte{0x90}, 100), files)
	d := open(t, save(t, data))
	const esp = `partition 2 "esp", `
	for want, at := range map[string]int64{
		"boot code":                                           7,
		"protective MBR":                                      450,
		"GUID partition table":                                1030,
		"backup of the GUID partition table":                  int64(len(data)) - 5,
		"outside of all partitions":                           1 << 19,
		`partition 1 "bios"`:                                  2048 * 512,
		esp + "file system":                                   4096 * 512,
		esp + `file "grub/grub.cfg"`:                          int64(bytes.Index(data, files["grub/grub.cfg"])) + 12_345,
		esp + `file "EFI/BOOT/BOOTX64.EFI"`:                   int64(bytes.Index(data, files["EFI/BOOT/BOOTX64.EFI"][:1024])) + 10,
		esp + `file "EFI/BOOT/BOOTX64.EFI", section ".linux"`: int64(bytes.Index(data, disktest.Kernel(release))) + 0x300,
		esp + `file "EFI/BOOT/BOOTX64.EFI", section ".initrd", near "usr/bin/large"`: int64(bytes.Index(data, []byte("largelarge"))) + 200_000,
	} {
		if got := d.Place(at).String(); got != want {
			t.Errorf("byte %d: got %s, want %s", at, got, want)
		}
	}

	// A disk that is not one has no places.
	if got := open(t, save(t, make([]byte, 4096))).Place(0); got != (Place{}) {
		t.Errorf("got %v", got)
	}
}
