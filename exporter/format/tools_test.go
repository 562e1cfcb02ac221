package format

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/exporter"
	"github.com/slipway-build/slipway/exporter/segment"
	"github.com/slipway-build/slipway/internal/testutil/need"
)

// run returns the output of a program, which must succeed.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Errorf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// written writes a format of the test machine and returns the name of its file.
func written(t *testing.T, format string, change func(*Input)) string {
	t.Helper()
	m := input(t, segment.CPIO)
	if change != nil {
		change(&m)
	}
	files, err := Write(format, m, t.TempDir(), func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	return files[0]
}

// TestContainersHoldTheDisk checks with QEMU that every container is valid and
// contains the same disk as the raw format.
func TestContainersHoldTheDisk(t *testing.T) {
	need.Program(t, "qemu-img", "qemu-utils")
	for _, test := range []struct {
		format, driver, raw string
		check               bool // qemu-img can check it
	}{
		{"qcow2", "qcow2", "raw", true},
		{"qcow2-bios", "qcow2", "raw-bios", true},
		{"qcow2-efi", "qcow2", "raw-efi", true},
		{"vhd", "vpc", "raw", false},
		{"dynamic-vhd", "vpc", "raw", false},
		{"vmdk", "vmdk", "raw", true},
	} {
		for name, size := range map[string]int64{"smallest": 0, "100M": 100 << 20, "3G": 3 << 30} {
			t.Run(test.format+"/"+name, func(t *testing.T) {
				big := func(m *Input) {
					m.Size = size
					m.Kernel = filepath.Join(t.TempDir(), "kernel")
					kernel := bytes.Repeat([]byte("kernel: \x00\x01\x02\x03"), 300_001)
					if err := os.WriteFile(m.Kernel, kernel, 0o644); err != nil {
						t.Fatal(err)
					}
				}
				raw, file := written(t, test.raw, big), written(t, test.format, big)
				if test.check {
					if out := run(t, "qemu-img", "check", "-f", test.driver, file); !strings.Contains(out, "No errors were found") {
						t.Error(out)
					}
				}
				if out := run(t, "qemu-img", "compare", "-f", "raw", "-F", test.driver, raw, file); !strings.Contains(out, "Images are identical") {
					t.Error(out)
				}
				if a, b := virtualSize(t, "raw", raw), virtualSize(t, test.driver, file); a != b {
					t.Errorf("the disk has %d bytes, in the container %d", a, b)
				}
				info, err := os.Stat(file)
				if err != nil {
					t.Fatal(err)
				}
				if test.format != "vhd" && info.Size() > 30<<20 {
					t.Errorf("the file has %d bytes", info.Size())
				}
			})
		}
	}
}

func virtualSize(t *testing.T, driver, file string) (size int64) {
	t.Helper()
	var info struct {
		Size int64 `json:"virtual-size"`
	}
	if err := json.Unmarshal([]byte(run(t, "qemu-img", "info", "--output", "json", "-f", driver, file)), &info); err != nil {
		t.Fatal(err)
	}
	return info.Size
}

// TestGCP checks that the archive has the old format of GNU tar, and a disk whose
// size is a multiple of 1 GiB.
func TestGCP(t *testing.T) {
	raw := written(t, "raw", func(m *Input) { m.Size = 1 << 30 })
	f, err := os.Open(written(t, "gcp", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	decompressed, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	archive := tar.NewReader(decompressed)
	h, err := archive.Next()
	if err != nil {
		t.Fatal(err)
	}
	if h.Name != "disk.raw" || h.Size != 1<<30 || h.ModTime.Unix() != exporter.Epoch || h.Format != tar.FormatGNU {
		t.Errorf("entry %+v", h)
	}
	want, err := os.Open(raw)
	if err != nil {
		t.Fatal(err)
	}
	defer want.Close()
	a, b := make([]byte, 1<<20), make([]byte, 1<<20)
	for at := 0; at < 1<<30; at += 1 << 20 {
		if _, err := io.ReadFull(want, a); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(archive, b); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a, b) {
			t.Fatalf("the disk differs in the MiB at %d", at)
		}
	}
	if _, err := archive.Next(); err != io.EOF {
		t.Errorf("unexpected entry after the disk: %v", err)
	}
}

func TestTarKernelInitrd(t *testing.T) {
	f, err := os.Open(written(t, "tar-kernel-initrd", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	archive := tar.NewReader(f)
	var names []string
	for {
		h, err := archive.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
		content, err := io.ReadAll(archive)
		if want := map[string]string{"kernel": "bzImage", "cmdline": "quiet", "ucode.cpio": "ucode"}[h.Name]; err != nil || want != "" && want != string(content) {
			t.Errorf("%s: %v, %q", h.Name, err, content)
		}
		if h.Name == "initrd.img" && !bytes.HasPrefix(content, []byte("070701")) {
			t.Errorf("initrd.img starts with %q", content[:6])
		}
	}
	if got := strings.Join(names, " "); got != "kernel initrd.img cmdline ucode.cpio" {
		t.Errorf("files %s", got)
	}
}

func TestDiskErrors(t *testing.T) {
	for _, test := range []struct {
		format, arch string
		size         int64
		want         string
	}{
		{"raw-bios", "arm64", 0, "raw-bios needs a BIOS, which arm64 machines do not have: use a format for UEFI, for example raw or raw-efi"},
		{"qcow2-bios", "arm64", 0, "qcow2-bios needs a BIOS"},
		{"raw", "riscv64", 0, "raw needs a boot loader, and there is none for riscv64: use kernel+initrd"},
		{"vhd", "amd64", 100<<20 + 512, "vhd: m.vhd: SIZE: the size of a VHD must be a whole number of MiB, as Azure requires, not 104858112 bytes"},
		{"dynamic-vhd", "amd64", 2047 << 30, "SIZE: the size of a VHD must be at most 2040G"},
		{"raw", "amd64", 3 << 40, "SIZE 3145728M is too large: the file system, FAT32, supports at most 2097151M"},
		{"vmdk", "amd64", 100<<20 + 512, "SIZE: the size of a VMDK must be a multiple of 64K, up to 2048G, not 104858112 bytes"},
		{"gcp", "amd64", 100 << 20, "SIZE: Google Compute Engine requires a multiple of 1 GiB, not 104857600 bytes"},
		{"raw", "amd64", 20 << 20, "raw: SIZE 20M is too small by 16M: kernel, initrd and boot loaders need 36M"},
	} {
		m := input(t, segment.CPIO)
		m.Architecture, m.Size = test.arch, test.size
		out := t.TempDir()
		if _, err := Write(test.format, m, out, func(string) {}); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %v, want %q", test.format, err, test.want)
		}
		if left, err := os.ReadDir(out); err != nil || len(left) > 0 {
			t.Errorf("%s: left behind: %v, %v", test.format, left, err)
		}
	}
}
