package disk

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slipway-build/slipway/exporter/disk/disktest"
	"github.com/slipway-build/slipway/exporter/fat"
	"github.com/slipway-build/slipway/exporter/gpt"
	"github.com/slipway-build/slipway/exporter/sparse"
)

func save(t testing.TB, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.raw")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func open(t testing.TB, path string) *Disk {
	t.Helper()
	d, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestBlocks(t *testing.T) {
	data := make([]byte, 5*BlockSize+1000)
	data[10], data[3*BlockSize] = 1, 2
	data[len(data)-1] = 3
	d := open(t, save(t, data))
	padded := append(bytes.Clone(data), make([]byte, BlockSize)...)
	var want []Block
	for _, i := range []int32{0, 3, 5} {
		want = append(want, Block{i, sha256.Sum256(padded[int(i)*BlockSize:][:BlockSize])})
	}
	if !slices.Equal(d.Blocks, want) || d.Count() != 6 {
		t.Errorf("got %v of %d, want %v of 6", d.Blocks, d.Count(), want)
	}
	block := new([BlockSize]byte)
	if err := d.ReadBlock(5, block); err != nil || !bytes.Equal(block[:], padded[5*BlockSize:6*BlockSize]) {
		t.Errorf("the last block is not padded with zeros: %v", err)
	}
}

// TestHoles compares files with and without holes, and a pipe.
func TestHoles(t *testing.T) {
	data := make([]byte, 9*BlockSize)
	copy(data[4*BlockSize-3:], "over the border")
	dense := open(t, save(t, data))
	path := filepath.Join(t.TempDir(), "sparse.raw")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteAt([]byte("over the border"), 4*BlockSize-3); err != nil {
		t.Fatal(err)
	}
	if err := file.Truncate(int64(len(data))); err != nil {
		t.Fatal(err)
	}
	file.Close()
	sparse := open(t, path)
	dir := t.TempDir()
	piped, err := Spool(t.Context(), io.MultiReader(bytes.NewReader(data[:1000]), bytes.NewReader(data[1000:])), dir)
	if err != nil {
		t.Fatal(err)
	}
	for what, d := range map[string]*Disk{"sparse": sparse, "piped": piped} {
		if !slices.Equal(d.Blocks, dense.Blocks) || d.Digest() != dense.Digest() {
			t.Errorf("%s: got %v, want %v", what, d.Blocks, dense.Blocks)
		}
	}
	if err := piped.Close(); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	longer := open(t, save(t, append(data, 0)))
	if longer.Digest() == dense.Digest() {
		t.Error("the digest does not depend on the size")
	}
}

// gptDisk returns a disk of 64 MiB with the partitions of a hybrid one.
func gptDisk(t testing.TB, code []byte, files map[string][]byte) []byte {
	t.Helper()
	const sectors, espFirst, espLast = 64 << 20 / 512, 4096, 64<<20/512 - 2049
	data := make([]byte, sectors*512)
	var list []fat.File
	for name, content := range files {
		list = append(list, fat.File{Path: name, Parts: []fat.Part{{Content: sparse.Bytes(content)}}})
	}
	volume, err := fat.New((espLast-espFirst+1)*512, list, fat.Options{Label: "ESP", Offset: espFirst})
	if err != nil {
		t.Fatal(err)
	}
	esp, err := volume.Image(0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := esp.ReadAt(data[espFirst*512:(espLast+1)*512], 0); err != nil {
		t.Fatal(err)
	}
	writeTable(t, data, gpt.Table{Sectors: sectors, BootCode: code, ID: gpt.Derive("disk", nil), Partitions: []gpt.Partition{
		{Type: gpt.TypeBIOSBoot, ID: gpt.Derive("bios", nil), First: 2048, Last: 4095, Name: "bios"},
		{Type: gpt.TypeESP, ID: gpt.Derive("esp", nil), First: espFirst, Last: espLast, Name: "esp"},
	}})
	return data
}

// writeTable writes a partition table over a disk.
func writeTable(t testing.TB, data []byte, table gpt.Table) {
	t.Helper()
	image, err := table.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range image.Runs {
		if _, err := r.Data.ReadAt(data[r.Offset:r.End()], 0); err != nil {
			t.Fatal(err)
		}
	}
}

func TestBoot(t *testing.T) {
	code := []byte{0xeb, 0x63, 0x90}
	x64 := map[string][]byte{"EFI/BOOT/BOOTX64.EFI": disktest.Program(0x8664, 0x400)}
	aa64 := map[string][]byte{"EFI/BOOT/BOOTAA64.EFI": disktest.Program(0xaa64, 0x400)}
	for what, test := range map[string]struct {
		code     []byte
		files    map[string][]byte
		x86, arm string
	}{
		"hybrid":        {code, x64, "uefi-preferred", ""},
		"UEFI":          {nil, x64, "uefi", ""},
		"arm64":         {nil, aa64, "", "uefi"},
		"BIOS":          {code, map[string][]byte{"kernel": []byte("x")}, "legacy-bios", ""},
		"nothing":       {nil, map[string][]byte{"EFI/BOOT/README": []byte("x")}, "", ""},
		"wrong program": {nil, map[string][]byte{"EFI/BOOT/BOOTX64.EFI": disktest.Program(0xaa64, 0x400)}, "", ""},
	} {
		t.Run(what, func(t *testing.T) {
			boot, err := open(t, save(t, gptDisk(t, test.code, test.files))).Boot()
			if err != nil {
				t.Fatal(err)
			}
			if x86, arm := boot.Mode(AMD64), boot.Mode(ARM64); x86 != test.x86 || arm != test.arm {
				t.Errorf("got %q and %q, want %q and %q; %+v", x86, arm, test.x86, test.arm, boot)
			}
		})
	}
}

// armImage returns the start of a kernel for arm64.
func armImage() []byte {
	kernel := make([]byte, 64)
	copy(kernel[56:], "ARM\x64")
	return kernel
}

// A boot loader cannot start a kernel for another architecture.
func TestKernelForOtherArchitecture(t *testing.T) {
	code := []byte{0xeb, 0x63, 0x90}
	entry := []byte("linux /kernel\ninitrd /initrd.img\n")
	grubCfg := []byte("set timeout=0\nlinux /kernel console=ttyS0\ninitrd /initrd.img\nboot\n")
	const aa64, x64 = "EFI/BOOT/BOOTAA64.EFI", "EFI/BOOT/BOOTX64.EFI"
	for what, test := range map[string]struct {
		code     []byte
		files    map[string][]byte
		x86, arm string // boot modes
		want     string // error, or a warning if there is a boot mode
	}{
		"x86 kernel": {nil, map[string][]byte{aa64: disktest.Program(0xaa64, 0x400), "kernel": disktest.Kernel(release), "initrd.img": nil, "loader/entries/a.conf": entry},
			"", "", "cannot boot: EFI/BOOT/BOOTAA64.EFI is for arm64, but its kernel for x86_64; build it again"},
		"arm64 kernel": {nil, map[string][]byte{x64: disktest.Program(0x8664, 0x400), "kernel": armImage(), "initrd.img": nil, "loader/entries/a.conf": entry},
			"", "", "cannot boot: EFI/BOOT/BOOTX64.EFI is for x86_64, but its kernel for arm64; build it again"},
		"unified": {nil, map[string][]byte{x64: unifiedKernel(t, armImage(), nil)},
			"", "", "cannot boot: EFI/BOOT/BOOTX64.EFI is for x86_64, but its kernel for arm64; build it again"},
		"BIOS": {code, map[string][]byte{"kernel": armImage(), "grub/grub.cfg": grubCfg},
			"", "", "cannot boot: GRUB is for x86_64, but its kernel for arm64; build it again"},
		"one of two": {code, map[string][]byte{aa64: disktest.Program(0xaa64, 0x400), "kernel": disktest.Kernel(release), "initrd.img": nil, "loader/entries/a.conf": entry, "grub/grub.cfg": grubCfg},
			"legacy-bios", "", "EFI/BOOT/BOOTAA64.EFI is for arm64, but its kernel for x86_64"},
		"right": {code, map[string][]byte{x64: disktest.Program(0x8664, 0x400), "kernel": disktest.Kernel(release), "initrd.img": nil, "loader/entries/a.conf": entry, "grub/grub.cfg": grubCfg},
			"uefi-preferred", "", ""},
		"right for arm64": {nil, map[string][]byte{aa64: disktest.Program(0xaa64, 0x400), "kernel": armImage(), "initrd.img": nil, "loader/entries/a.conf": entry},
			"", "uefi", ""},
	} {
		t.Run(what, func(t *testing.T) {
			boot, err := open(t, save(t, gptDisk(t, test.code, test.files))).Boot()
			if test.x86 == "" && test.arm == "" {
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("got %v, want %q", err, test.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if x86, arm := boot.Mode(AMD64), boot.Mode(ARM64); x86 != test.x86 || arm != test.arm {
				t.Errorf("got %q and %q, want %q and %q", x86, arm, test.x86, test.arm)
			}
			warnings := slices.DeleteFunc(boot.Warnings, func(w string) bool { return !strings.Contains(w, "kernel") })
			if got := strings.Join(warnings, "\n"); got != test.want {
				t.Errorf("warnings %q, want %q", got, test.want)
			}
		})
	}
}

func TestNoDisk(t *testing.T) {
	good := gptDisk(t, nil, map[string][]byte{"EFI/BOOT/BOOTX64.EFI": disktest.Program(0x8664, 0x400)})
	change := func(at int, to string) []byte {
		data := bytes.Clone(good)
		copy(data[at:], to)
		return data
	}
	for what, test := range map[string]struct {
		data []byte
		want string
	}{
		"short":             {[]byte("x"), "is not a disk image"},
		"text":              {bytes.Repeat([]byte("text"), 1000), "no partition table"},
		"gzip":              {change(0, "\x1f\x8b"), "compressed by gzip"},
		"qcow2":             {change(0, "QFI\xfb"), "qcow2"},
		"truncated":         {good[:60<<20], "is truncated"},
		"no GPT":            {change(512, "\x00"), "table is missing"},
		"damaged header":    {change(512+56, "xx"), "wrong checksum"},
		"damaged partition": {change(1024+40, "xx"), "wrong checksum"},
	} {
		t.Run(what, func(t *testing.T) {
			if _, err := open(t, save(t, test.data)).Boot(); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
	if _, err := Open(t.Context(), save(t, nil)); err == nil || !strings.Contains(err.Error(), "is empty") {
		t.Errorf("an empty file: got %v", err)
	}
}

func FuzzLoaders(f *testing.F) {
	esp := gptDisk(f, nil, map[string][]byte{"EFI/BOOT/BOOTX64.EFI": disktest.Program(0x8664, 0x400)})[4096*512:]
	f.Add(esp[:512])
	f.Fuzz(func(t *testing.T, head []byte) {
		data := bytes.Clone(esp[:4<<20])
		copy(data, head)
		fs, err := fat.Open(bytes.NewReader(data))
		if err != nil {
			return
		}
		// Neither panics or runs forever.
		_, _ = loaders(fs)
		_ = missingDrivers(fs)
	})
}

func BenchmarkOpen(b *testing.B) {
	data := make([]byte, 64<<20)
	for i := range data {
		data[i] = byte(i * 7)
	}
	path := save(b, data)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		d, err := Open(b.Context(), path)
		if err != nil {
			b.Fatal(err)
		}
		d.Close()
	}
}

// TestSpoolStalls cancels the copy of a pipe that delivers nothing. It must end,
// and leave no file.
func TestSpoolStalls(t *testing.T) {
	dir := t.TempDir()
	r, w := io.Pipe()
	defer w.Close()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		_, err := Spool(ctx, r, dir)
		ended <- err
	}()
	if _, err := w.Write([]byte("start")); err != nil {
		t.Fatal(err)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) > 0 {
		t.Errorf("files that a kill would leave: %v, %v", files, err)
	}
	cancel()
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the copy does not end")
	}
}
