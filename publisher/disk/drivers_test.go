package disk

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/internal/testutil/stack"

	"github.com/klauspost/compress/zstd"

	"github.com/slipway-build/slipway/exporter/cpio"
	"github.com/slipway-build/slipway/exporter/disk/disktest"
	"github.com/slipway-build/slipway/exporter/gpt"
	"github.com/slipway-build/slipway/exporter/sparse"
	"github.com/slipway-build/slipway/exporter/uki"
	"github.com/slipway-build/slipway/internal/kernel"
)

const (
	release = "6.1.0-7-cloud-amd64"
	builtin = "lib/modules/" + release + "/modules.builtin"
	ena     = "lib/modules/" + release + "/kernel/drivers/net/ethernet/amazon/ena/ena.ko"
	nvme    = "lib/modules/" + release + "/kernel/drivers/nvme/host/nvme.ko"
)

type member struct{ path, content string }

func archive(t testing.TB, members ...member) []byte {
	t.Helper()
	var out bytes.Buffer
	w := cpio.NewWriter(&out)
	for i, m := range append([]member{{"lib/", ""}}, members...) {
		h := cpio.Header{Name: m.path, Mode: cpio.TypeFile | 0o644, Size: int64(len(m.content)), Inode: uint32(i + 1), Links: 1}
		if strings.HasSuffix(m.path, "/") {
			h.Name, h.Mode = strings.TrimSuffix(m.path, "/"), cpio.TypeDir|0o755
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, m.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func gzipped(data []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = w.Write(data)
	_ = w.Close()
	return out.Bytes()
}

func zstded(data []byte) []byte {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		panic(err)
	}
	return w.EncodeAll(data, nil)
}

// unifiedKernel returns a unified kernel image.
func unifiedKernel(t *testing.T, kernel, initrd []byte) []byte {
	t.Helper()
	image, err := uki.New(disktest.Program(0x8664, 0x400), []uki.Section{
		{Name: ".linux", Content: sparse.Bytes(kernel)}, {Name: ".initrd", Content: sparse.Bytes(initrd)},
	})
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(image.Reader())
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// noENA are the files of a machine whose kernel has NVMe built in, and no ENA.
var noENA = []member{{"init", "#!/bin/sh\n"}, {builtin, "kernel/fs/ext4/ext4.ko\nkernel/drivers/nvme/host/nvme.ko\n"}}

func TestMissingDrivers(t *testing.T) {
	padding := make([]byte, 1000)
	none := archive(t, member{builtin, "kernel/fs/ext4/ext4.ko\n"})
	broken := zstded(none)
	for what, test := range map[string]struct {
		kernel, initrd []byte
		want           []string // in the warnings
	}{
		"all built in":     {disktest.Kernel(release), archive(t, member{builtin, "kernel/drivers/nvme/host/nvme.ko\nx/ena.ko\n"}), nil},
		"modules":          {disktest.Kernel(release), archive(t, member{builtin, "x.ko\n"}, member{ena, "x"}, member{nvme + ".xz", "x"}), nil},
		"no ENA":           {disktest.Kernel(release), archive(t, noENA...), []string{"ENA"}},
		"neither":          {disktest.Kernel(release), none, []string{"ENA", "NVMe"}},
		"gzip":             {disktest.Kernel(release), gzipped(none), []string{"ENA", "NVMe"}},
		"zstd":             {disktest.Kernel(release), zstded(none), []string{"ENA", "NVMe"}},
		"segments":         {disktest.Kernel(release), slices.Concat(none, padding, zstded(archive(t, member{nvme, "x"})), padding, gzipped(archive(t)), zstded(archive(t, member{"etc/x", "x"})), padding), []string{"ENA"}},
		"module far":       {disktest.Kernel(release), slices.Concat(zstded(none), zstded(none), padding, zstded(archive(t, member{ena, "x"}, member{nvme, "x"}))), nil},
		"usr":              {disktest.Kernel(release), archive(t, member{"usr/" + builtin, "x.ko\n"}), []string{"ENA", "NVMe"}},
		"no list":          {disktest.Kernel(release), archive(t, member{"init", "x"}), nil},
		"another kernel's": {disktest.Kernel("6.2.0"), none, nil},
		"unknown kernel":   {[]byte("x"), none, nil},
		"truncated":        {disktest.Kernel(release), broken[:len(broken)-8], nil},
		"text behind":      {disktest.Kernel(release), append(bytes.Clone(none), "text"...), nil},
		"xz":               {disktest.Kernel(release), append(bytes.Clone(none), "\xfd7zXZ\x00"...), nil},
		"empty":            {disktest.Kernel(release), nil, nil},
	} {
		for form, files := range map[string]map[string][]byte{
			"entry": {
				"EFI/BOOT/BOOTX64.EFI": disktest.Program(0x8664, 0x400), "kernel": test.kernel, "initrd.img": test.initrd,
				"loader/entries/slipway.conf": []byte("title Slipway\nlinux /kernel\ninitrd /initrd.img\n"),
			},
			"unified": {"EFI/BOOT/BOOTX64.EFI": unifiedKernel(t, test.kernel, test.initrd)},
		} {
			t.Run(what+" "+form, func(t *testing.T) {
				expectDrivers(t, gptDisk(t, nil, files), test.want)
			})
		}
	}
}

func expectDrivers(t *testing.T, data []byte, want []string) {
	t.Helper()
	boot, err := open(t, save(t, data)).Boot()
	if err != nil {
		t.Fatal(err)
	}
	if boot.Mode(AMD64) != "uefi" {
		t.Errorf("does not boot: %+v", boot)
	}
	warnings := slices.DeleteFunc(boot.Warnings, func(w string) bool { return !strings.Contains(w, "driver") })
	if len(warnings) != len(want) {
		t.Fatalf("got %q, want %q", warnings, want)
	}
	for i := range want {
		if !strings.Contains(warnings[i], "has no driver for "+want[i]) || !strings.Contains(warnings[i], release) {
			t.Errorf("got %q, want one about %s of %s", warnings[i], want[i], release)
		}
	}
}

// There is no warning if the drivers can be in another place.
func TestDriversElsewhere(t *testing.T) {
	files := map[string][]byte{
		"EFI/BOOT/BOOTX64.EFI": disktest.Program(0x8664, 0x400), "kernel": disktest.Kernel(release), "initrd.img": archive(t, noENA...),
		"loader/entries/one.conf": []byte("linux /kernel\ninitrd /initrd.img\n"),
	}
	data := gptDisk(t, nil, files)
	writeTable(t, data, gpt.Table{Sectors: uint64(len(data) / 512), ID: gpt.Derive("disk", nil), Partitions: []gpt.Partition{
		{Type: gpt.Derive("a root filesystem", nil), ID: gpt.Derive("root", nil), First: 2048, Last: 4095, Name: "root"},
		{Type: gpt.TypeESP, ID: gpt.Derive("esp", nil), First: 4096, Last: 64<<20/512 - 2049, Name: "esp"},
	}})
	expectDrivers(t, data, nil)

	files["loader/entries/two.conf"] = []byte("linux /kernel\ninitrd /other.img\n")
	expectDrivers(t, gptDisk(t, nil, files), nil)
	delete(files, "loader/entries/two.conf")
	files["loader/entries/one.conf"] = []byte("linux /kernel\ninitrd /a-name-that-is-long.img\n")
	expectDrivers(t, gptDisk(t, nil, files), nil)
}

// The kernel package of the stack has both drivers. Without its module for ENA, it
// has one.
func TestRealKernel(t *testing.T) {
	image, err := os.ReadFile(stack.File(t, "kernel", "kernel"))
	if err != nil {
		t.Fatal(err)
	}
	version, err := kernel.Release(bytes.NewReader(image), int64(len(image)))
	if err != nil || version == "" {
		t.Fatalf("its release is not found: %v", err)
	}
	for _, without := range []string{"", "/ena.ko."} {
		file, err := os.Open(stack.File(t, "kernel", "kernel.tar"))
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		var members []member
		for r := tar.NewReader(file); ; {
			h, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if h.Typeflag == tar.TypeReg && (without == "" || !strings.Contains(h.Name, without)) {
				content, err := io.ReadAll(r)
				if err != nil {
					t.Fatal(err)
				}
				members = append(members, member{strings.TrimPrefix(h.Name, "./"), string(content)})
			}
		}
		has, err := modules([]io.Reader{bytes.NewReader(archive(t, members...))}, version)
		if err != nil || !has["nvme"] || has["ena"] != (without == "") {
			t.Errorf("%s without %q: found %v, %v", version, without, has, err)
		}
	}
}
