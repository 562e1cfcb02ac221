package disk

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/slipway-build/slipway/internal/testutil/need"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/exporter/disk/disktest"
	"github.com/slipway-build/slipway/exporter/diskmap"
	"github.com/slipway-build/slipway/exporter/fat"
	"github.com/slipway-build/slipway/exporter/sparse"
)

func text(content string) sparse.Content { return sparse.Bytes([]byte(content)) }

// testLoaders returns boot loaders in the form of the real ones, which change with
// Debian.
func testLoaders() Loaders {
	l := Loaders{
		GRUBBoot:    append(bytes.Repeat([]byte{0xb0}, 510), 0x55, 0xaa),
		GRUBCore:    bytes.Repeat([]byte{0xc0}, 10_000),
		GRUBCD:      bytes.Repeat([]byte{0xcd}, 3000),
		SystemdBoot: []byte("MZ systemd-boot"),
		Stub:        disktest.Program(0x8664, 0x400),
		Program:     "BOOTX64.EFI",
	}
	binary.LittleEndian.PutUint16(l.GRUBCore[coreBlockLength:], 19)
	return l
}

func contents() Contents {
	return Contents{Kernel: text("the kernel"), Initrd: []sparse.Content{text(strings.Repeat("initrd ", 1000))}, Cmdline: `console=ttyS0 a="b c"`}
}

func testRaw(t testing.TB, c Contents, size int64) string {
	t.Helper()
	return testDisk(t, Hybrid, c, size)
}

func testDisk(t testing.TB, boot BootMethod, c Contents, size int64) string {
	t.Helper()
	d, err := New(boot, c, testLoaders(), size, time.Unix(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "test.raw")
	writeRaw(t, d, name)
	return name
}

// sgdisk, fsck.fat and mtools accept the disk and read its files.
func TestDiskIsSound(t *testing.T) {
	for _, size := range []int64{0, 100 * mebibyte, 100*mebibyte + 512, 300 * mebibyte} {
		for _, boot := range []BootMethod{Hybrid, BIOS, UEFI, UKI} {
			t.Run(fmt.Sprint(boot, size), func(t *testing.T) {
				checkDisk(t, boot, testDisk(t, boot, contents(), size))
			})
		}
	}
}

// checkDisk runs other programs on a disk of contents().
func checkDisk(t *testing.T, boot BootMethod, raw string) {
	t.Helper()
	need.Program(t, "sgdisk", "gdisk")
	need.Program(t, "fsck.fat", "dosfstools")
	need.Program(t, "mtype", "mtools")
	out, err := exec.Command("sgdisk", "-v", raw).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "No problems found") || strings.Contains(string(out), "Caution") {
		t.Errorf("sgdisk -v: %v\n%s", err, out)
	}
	start := mebibyte
	if boot == Hybrid || boot == BIOS {
		start = 2 * mebibyte
	}
	if out, err := exec.Command("fsck.fat", "-n", espOf(t, raw, int64(start))).CombinedOutput(); err != nil {
		t.Errorf("fsck.fat: %v\n%s", err, out)
	}
	files := map[string]string{}
	if boot != UKI {
		files["kernel"], files["initrd.img"] = "the kernel", strings.Repeat("initrd ", 1000)
	}
	if boot == Hybrid || boot == UEFI {
		files["EFI/BOOT/BOOTX64.EFI"], files["loader/loader.conf"] = "MZ systemd-boot", "timeout 0\ndefault slipway.conf\n"
		files["loader/entries/slipway.conf"] = "title Slipway\nlinux /kernel\ninitrd /initrd.img\noptions \"console=ttyS0 a=\"b c\"\"\n"
	}
	if boot == Hybrid || boot == BIOS {
		files["grub/grub.cfg"] = "linux /kernel 'console=ttyS0' 'a=b c'\ninitrd /initrd.img\nboot\n"
	}
	for name, want := range files {
		got, err := exec.Command("mtype", "-i", fmt.Sprintf("%s@@%d", raw, start), "::"+name).Output()
		if err != nil || string(got) != want {
			t.Errorf("%s: %v, holds\n%s\nwant\n%s", name, err, got, want)
		}
	}
}

// espOf copies the EFI system partition of a disk to a file.
func espOf(t *testing.T, raw string, start int64) string {
	t.Helper()
	in, err := os.Open(raw)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(filepath.Join(t.TempDir(), "esp.img"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := in.Seek(start, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	return out.Name()
}

// GRUB's first sector has the number of the second, and that one of the rest.
func TestLoadersArePatched(t *testing.T) {
	disk, err := os.ReadFile(testRaw(t, contents(), 0))
	if err != nil {
		t.Fatal(err)
	}
	l := testLoaders()
	binary.LittleEndian.PutUint64(l.GRUBBoot[0x5c:], 2048)
	binary.LittleEndian.PutUint64(l.GRUBCore[0x1f4:], 2049)
	if !bytes.Equal(disk[:440], l.GRUBBoot[:440]) {
		t.Error("the boot sector is not GRUB's with the sector of the core image")
	}
	if !bytes.Equal(disk[mebibyte:mebibyte+10_000], l.GRUBCore) {
		t.Error("the core image is not GRUB's with the sector of its second part")
	}
}

func TestSize(t *testing.T) {
	big := Contents{Kernel: text("k"), Initrd: []sparse.Content{{Size: 200*mebibyte - 10}}}
	for name, test := range map[string]struct {
		contents   Contents
		size, want int64
		err        string
	}{
		"smallest FAT32": {contents(), 0, 36 * mebibyte, ""},
		"smallest":       {big, 0, 205 * mebibyte, ""},
		"given":          {big, 1 << 30, 1 << 30, ""},
		"exact":          {big, 204 * mebibyte, 204 * mebibyte, ""},
		"too small":      {big, 203 * mebibyte, 0, "SIZE 203M is too small by 1M: kernel, initrd and boot loaders need 204M"},
		"far too small":  {contents(), 512, 0, "SIZE 512 bytes is too small by 37748224 bytes: kernel, initrd and boot loaders need 36M"},
		"no sectors":     {contents(), 1000, 0, "the size of a disk must be a multiple of 512 bytes, not 1000"},
		"negative":       {contents(), -512, 0, "the size of a disk must be a multiple of 512 bytes, not -512"},
		"huge":           {contents(), 1 << 42, 0, "SIZE 4194304M is too large: the file system, FAT32, supports at most 2097151M"},
		"4 GiB":          {Contents{Kernel: text("k"), Initrd: []sparse.Content{{Size: 1 << 32}}}, 0, 0, "initrd.img has 4294967296 bytes, but a file on FAT32 must be smaller than 4 GiB"},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := New(Hybrid, test.contents, testLoaders(), test.size, time.Unix(0, 0))
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("error %v\nwant %s", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if d.Size != test.want {
				t.Errorf("size %d, want %d", d.Size, test.want)
			}
		})
	}
}

// blocks returns the number of blocks of EBS in which two disks differ.
func blocks(t *testing.T, boot BootMethod, a, b Contents) int {
	t.Helper()
	const size = 64 * mebibyte
	one, err := os.ReadFile(testDisk(t, boot, a, size))
	if err != nil {
		t.Fatal(err)
	}
	two, err := os.ReadFile(testDisk(t, boot, b, size))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for at := 0; at < size; at += fat.SlotAlignment {
		if !bytes.Equal(one[at:at+fat.SlotAlignment], two[at:at+fat.SlotAlignment]) {
			n++
		}
	}
	return n
}

// A change affects few blocks: those of the component, the first and the last of the
// disk, up to three with the boot sector, tables and directories of the file system,
// and the one with the headers of a UKI.
func TestBlocksAreStable(t *testing.T) {
	random := rand.New(rand.NewSource(1))
	part := func(size int) []byte {
		b := make([]byte, size)
		random.Read(b)
		return b
	}
	kernel := part(mebibyte)
	segments := [][]byte{part(300), part(1_700_000), part(4_500_000), part(400_000), part(2_300_000), part(700)}
	machine := func(cmdline string) Contents {
		c := Contents{Kernel: sparse.Bytes(kernel), Cmdline: cmdline}
		for _, s := range segments {
			c.Initrd = append(c.Initrd, sparse.Bytes(s).Pad(4))
		}
		return c
	}
	before := machine("quiet")
	for boot, tables := range map[BootMethod]int{Hybrid: 5, UKI: 6} {
		if n := blocks(t, boot, before, machine("quiet")); n != 0 {
			t.Errorf("%s: nothing changed: %d blocks differ", boot, n)
		}
		if n := blocks(t, boot, before, machine("quiet panic=1")); n > tables {
			t.Errorf("%s: another command line: %d blocks differ", boot, n)
		}
		for i := range segments {
			old := segments[i]
			segments[i] = part(len(old) + len(old)/20)
			own := len(segments[i])/fat.SlotAlignment + 1
			if n := blocks(t, boot, before, machine("quiet")); n < own || n > own+tables {
				t.Errorf("%s: segment %d, which has %d blocks, grew: %d blocks differ", boot, i, own, n)
			}
			segments[i] = part(len(old) - len(old)/20)
			if n := blocks(t, boot, before, machine("quiet")); n > own+tables {
				t.Errorf("%s: segment %d, which had %d blocks, shrank: %d blocks differ", boot, i, own, n)
			}
			segments[i] = old
		}
	}
}

// Programs do not read what the map calls free: the disk stays intact with any bytes
// there.
func TestMap(t *testing.T) {
	d, err := New(Hybrid, contents(), testLoaders(), 0, time.Unix(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	m := d.Map()
	if err := m.Check(); err != nil {
		t.Fatal(err)
	}
	raw, err := os.OpenFile(testRaw(t, contents(), 0), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	sizes := map[diskmap.Type]int64{}
	for _, e := range m.Extents {
		sizes[e.Type] += e.Length
		b := make([]byte, e.Length)
		if _, err := raw.ReadAt(b, e.Offset); err != nil {
			t.Fatal(err)
		}
		if zero := len(bytes.Trim(b, "\x00")) == 0; !zero && e.Type != diskmap.Data {
			t.Errorf("%+v has data", e)
		}
		if e.Type == diskmap.Free {
			noise := bytes.Repeat([]byte("noise "), len(b)/6+1)
			if _, err := raw.WriteAt(noise[:len(b)], e.Offset); err != nil {
				t.Fatal(err)
			}
		}
	}
	if sizes[diskmap.Data] > 80_000 || sizes[diskmap.Zero] > 550_000 {
		t.Errorf("bytes by type: %v", sizes)
	}
	checkDisk(t, Hybrid, raw.Name())
}

// Under BIOS, the initramfs must fit between the kernel and the limit in the kernel's
// header. Under UEFI there is no limit.
func TestInitrdLimitOfBIOS(t *testing.T) {
	kernel := make([]byte, 0x1000)
	copy(kernel[0x202:], "HdrS\x0f\x02")
	binary.LittleEndian.PutUint32(kernel[0x22c:], 0x7fffffff)
	binary.LittleEndian.PutUint64(kernel[0x258:], 16*mebibyte)
	binary.LittleEndian.PutUint32(kernel[0x260:], 48*mebibyte)
	const most = 0x7fffffff - 64<<10 - 64*mebibyte
	for _, size := range []int64{most, most + 1} {
		c := Contents{Kernel: sparse.Bytes(kernel), Initrd: []sparse.Content{{Size: size}}}
		for _, boot := range []BootMethod{Hybrid, BIOS, UEFI} {
			want := ""
			if size > most && boot != UEFI {
				want = "the initrd has 2080309248 bytes, but under BIOS Linux accepts at most 2080309247: use a format for UEFI"
			}
			_, err := New(boot, c, testLoaders(), 0, time.Unix(0, 0))
			if want == "" && err != nil || want != "" && (err == nil || err.Error() != want) {
				t.Errorf("%s, %d bytes: error %v, want %s", boot, size, err, want)
			}
		}
	}
}

// A UKI names the release of its kernel in .uname, on x86 and arm64. A kernel
// without a release leaves the section out.
func TestUKIRelease(t *testing.T) {
	x86 := make([]byte, 0x1000)
	copy(x86[0x202:], "HdrS\x0f\x02")
	binary.LittleEndian.PutUint16(x86[0x20e:], 0x600)
	copy(x86[0x800:], "6.1.0-cloud-amd64 (debian) #1 SMP")
	arm := make([]byte, 0x1000)
	copy(arm, "MZ")
	copy(arm[56:], "ARM\x64")
	copy(arm[0x800:], "Linux version 6.6.13-arm64 (debian) #1 SMP")
	for want, kernel := range map[string][]byte{"6.1.0-cloud-amd64": x86, "6.6.13-arm64": arm, "": []byte("bzImage")} {
		c := contents()
		c.Kernel = sparse.Bytes(kernel)
		image, err := NewUKI(c, disktest.Program(0xaa64, 0x400), Packed)
		if err != nil {
			t.Fatal(err)
		}
		program, err := pe.NewFile(image)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if s := program.Section(".uname"); s != nil {
			data, err := s.Data()
			if err != nil {
				t.Fatal(err)
			}
			got = string(data[:s.VirtualSize])
		}
		if got != want {
			t.Errorf("release %q, want %q", got, want)
		}
	}
}

// All IDs on the disk depend on the content.
func TestIDsFollowContent(t *testing.T) {
	ids := func(c Contents) [][]byte {
		disk, err := os.ReadFile(testRaw(t, c, 0))
		if err != nil {
			t.Fatal(err)
		}
		const header, array, esp = 512, 1024, 2 * mebibyte
		return [][]byte{disk[header+56 : header+72], disk[array+16 : array+32], disk[array+128+16 : array+128+32], disk[esp+67 : esp+71]}
	}
	a := ids(contents())
	c := contents()
	c.Cmdline += " "
	for i, id := range ids(c) {
		if bytes.Equal(id, a[i]) {
			t.Errorf("ID %d is % x for other content too", i, id)
		}
	}
}

// The empty part of a large disk needs neither memory nor storage.
func TestLargeDiskIsCheap(t *testing.T) {
	initrd := filepath.Join(t.TempDir(), "initrd.img")
	f, err := os.Create(initrd)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(256 * mebibyte); err != nil {
		t.Fatal(err)
	}
	c := contents()
	c.Initrd = []sparse.Content{imageOf(t, initrd)}

	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	raw := testRaw(t, c, 64<<30)
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 8*mebibyte {
		t.Errorf("%d bytes were allocated in all", used)
	}
	var st unix.Stat_t
	if err := unix.Stat(raw, &st); err != nil {
		t.Fatal(err)
	}
	if st.Size != 64<<30 || st.Blocks*512 > 260*mebibyte {
		t.Errorf("%d bytes, of which %d are stored", st.Size, st.Blocks*512)
	}
}

func TestReadLoaders(t *testing.T) {
	good := testLoaders()
	for name, test := range map[string]struct {
		change func(map[string][]byte)
		want   string
	}{
		"good":        {func(map[string][]byte) {}, ""},
		"missing":     {func(m map[string][]byte) { delete(m, "core.img") }, "boot loaders: open"},
		"no boot.img": {func(m map[string][]byte) { m["boot.img"] = make([]byte, 512) }, "is not a boot sector of GRUB"},
		"other core":  {func(m map[string][]byte) { m["core.img"] = append(m["core.img"], make([]byte, 512)...) }, "is not a core image of GRUB"},
		"short core":  {func(m map[string][]byte) { m["core.img"] = nil }, "is not a core image of GRUB"},
	} {
		t.Run(name, func(t *testing.T) {
			files := map[string][]byte{"boot.img": good.GRUBBoot, "core.img": good.GRUBCore, "eltorito.img": good.GRUBCD, "systemd-bootx64.efi": good.SystemdBoot, "linuxx64.efi.stub": []byte("MZ stub")}
			test.change(files)
			dir := t.TempDir()
			for name, data := range files {
				if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			_, err := ReadLoaders(dir, "amd64")
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
}

// BenchmarkRaw writes a disk with an initramfs of 256 MiB. BenchmarkCopy is the lower
// bound: it reads and writes the same bytes once.
func BenchmarkRaw(b *testing.B) {
	initrd := benchmarkFile(b)
	c := contents()
	c.Initrd = []sparse.Content{imageOf(b, initrd)}
	out := filepath.Join(b.TempDir(), "test.raw")
	b.SetBytes(256 * mebibyte)
	for b.Loop() {
		d, err := New(Hybrid, c, testLoaders(), 0, time.Unix(0, 0))
		if err != nil {
			b.Fatal(err)
		}
		writeRaw(b, d, out)
	}
}

func BenchmarkCopy(b *testing.B) {
	initrd := benchmarkFile(b)
	out := filepath.Join(b.TempDir(), "copy")
	b.SetBytes(256 * mebibyte)
	for b.Loop() {
		if err := exec.Command("cp", initrd, out).Run(); err != nil {
			b.Fatal(err)
		}
	}
}

func benchmarkFile(b *testing.B) string {
	name := filepath.Join(b.TempDir(), "initrd.img")
	if err := os.WriteFile(name, large(256*mebibyte), 0o644); err != nil {
		b.Fatal(err)
	}
	return name
}
