package measure

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/slipway-build/slipway/exporter/disk"
	"github.com/slipway-build/slipway/exporter/disk/disktest"
	"github.com/slipway-build/slipway/exporter/sparse"
	"github.com/slipway-build/slipway/internal/testutil/need"
)

// systemd-measure predicts the same value of PCR 11, for two command lines and with
// and without an initramfs.
func TestSystemdMeasure(t *testing.T) {
	const measure, stub = "/usr/lib/systemd/systemd-measure", "/usr/lib/systemd/boot/efi/linuxx64.efi.stub"
	need.File(t, measure, "systemd")
	need.File(t, stub, "systemd-boot-efi")
	program, err := os.ReadFile(stub)
	if err != nil {
		t.Fatal(err)
	}
	kernel := disktest.Program(0x8664, 0x400)
	for _, c := range []disk.Contents{
		{Kernel: sparse.Bytes(kernel), Cmdline: "console=ttyS0"},
		{Kernel: sparse.Bytes(kernel), Cmdline: "quiet ünï", Initrd: []sparse.Content{sparse.Bytes([]byte(strings.Repeat("initramfs", 1000)))}},
	} {
		image, err := disk.NewUKI(c, program, disk.Packed)
		if err != nil {
			t.Fatal(err)
		}
		m, err := UKI(image, image.Size, nil)
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		args := []string{"calculate", "--bank=sha256", "--phase=:"}
		for option, content := range map[string]sparse.Content{
			"linux": c.Kernel, "cmdline": sparse.Bytes([]byte(c.Cmdline)), "initrd": sparse.Concat(c.Initrd...).Pad(4),
			"osrel": sparse.Bytes([]byte("ID=slipway\nNAME=Slipway\nPRETTY_NAME=Slipway\n")),
		} {
			if content.Size == 0 {
				continue // systemd-stub ignores empty sections
			}
			data := make([]byte, content.Size)
			if _, err := content.ReadAt(data, 0); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(dir, option)
			if err := os.WriteFile(file, data, 0o644); err != nil {
				t.Fatal(err)
			}
			args = append(args, "--"+option+"="+file)
		}
		out, err := exec.Command(measure, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("systemd-measure: %v\n%s", err, out)
		}
		match := regexp.MustCompile(`(?m)^11:sha256=([0-9a-f]{64})$`).FindSubmatch(out)
		if match == nil {
			t.Fatalf("systemd-measure:\n%s", out)
		}
		if got := m.PCRs["sha256"]["11"]; got != string(match[1]) {
			t.Errorf("PCR 11 is %s, systemd-measure predicts %s", got, match[1])
		}
	}
}

// Every part of a machine changes a register.
func TestChanges(t *testing.T) {
	loaders, err := disk.ReadLoaders(disktest.Loaders(t), "amd64")
	if err != nil {
		t.Fatal(err)
	}
	kernel, other := disktest.Program(0x8664, 0x400), disktest.Program(0x8664, 0x600)
	contents := disk.Contents{Kernel: sparse.Bytes(kernel), Cmdline: "console=ttyS0", Initrd: []sparse.Content{sparse.Bytes([]byte("initramfs"))}}
	predict := func(c disk.Contents) *Measurements {
		t.Helper()
		d, err := disk.New(disk.Hybrid, c, loaders, 0, time.Unix(0, 0))
		if err != nil {
			t.Fatal(err)
		}
		m, err := File(d, d.Size, nil)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	before := predict(contents)
	for name, test := range map[string]struct {
		change func(*disk.Contents)
		want   string // PCRs that change
	}{
		"nothing":      {func(*disk.Contents) {}, ""},
		"kernel":       {func(c *disk.Contents) { c.Kernel = sparse.Bytes(other) }, "4"},
		"command line": {func(c *disk.Contents) { c.Cmdline = "quiet" }, "9 12"},
		"initramfs":    {func(c *disk.Contents) { c.Initrd = []sparse.Content{sparse.Bytes([]byte("other"))} }, "9"},
	} {
		c := contents
		test.change(&c)
		after := predict(c)
		for bank := range before.PCRs {
			var changed []string
			for _, pcr := range []string{"4", "7", "9", "11", "12"} {
				if before.PCRs[bank][pcr] != after.PCRs[bank][pcr] {
					changed = append(changed, pcr)
				}
			}
			if got := strings.Join(changed, " "); got != test.want {
				t.Errorf("%s, %s: PCRs %q change, want %q", name, bank, got, test.want)
			}
		}
	}
}

func TestErrors(t *testing.T) {
	program := disktest.Program(0x8664, 0x400)
	image, err := disk.NewUKI(disk.Contents{Kernel: sparse.Bytes(program)}, program, disk.Packed)
	if err != nil {
		t.Fatal(err)
	}
	for want, c := range map[string]sparse.Content{
		"it is not a unified kernel image": sparse.Bytes(program),
		"its stub is not systemd-stub":     image,
	} {
		if _, err := File(c, c.Size, nil); !errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %s", err, want)
		}
	}
	if _, err := File(sparse.Bytes(make([]byte, 4096)), 4096, nil); err == nil {
		t.Error("an empty disk has measurements")
	}
}

// cpio unpacks the archive that systemd-stub makes of .osrel.
func TestExtraArchive(t *testing.T) {
	need.Program(t, "cpio", "cpio")
	dir := t.TempDir()
	cmd := exec.Command("cpio", "-i", "-d", "--quiet")
	cmd.Dir, cmd.Stdin = dir, bytes.NewReader(extraArchive("os-release", []byte("ID=slipway\n")))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cpio: %v\n%s", err, out)
	}
	content, err := os.ReadFile(filepath.Join(dir, ".extra", "os-release"))
	if err != nil || string(content) != "ID=slipway\n" {
		t.Errorf("content %q: %v", content, err)
	}
}

// Damaged disks and programs cause errors.
func FuzzFile(f *testing.F) {
	loaders, err := disk.ReadLoaders(disktest.Loaders(f), "amd64")
	if err != nil {
		f.Fatal(err)
	}
	program := disktest.Program(0x8664, 0x400)
	contents := disk.Contents{Kernel: sparse.Bytes(program), Initrd: []sparse.Content{sparse.Bytes([]byte("initramfs"))}}
	image, err := disk.NewUKI(contents, loaders.Stub, disk.Packed)
	if err != nil {
		f.Fatal(err)
	}
	data := make([]byte, image.Size)
	if _, err := image.ReadAt(data, 0); err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := File(bytes.NewReader(data), int64(len(data)), nil)
		if err == nil && len(m.PCRs) != len(banks) {
			t.Errorf("%d banks", len(m.PCRs))
		}
	})
}
