package test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/slipway-build/slipway/internal/testutil/stack"
	"github.com/slipway-build/slipway/internal/vm"
)

var bootAll = flag.Bool("boot", false, "boot all formats under all their firmwares, not a representative third, and the AMI for arm64")

// formatCmdline has what quoting can break.
const formatCmdline = `quiet panic=-1 a="b c" %s %%d $HOME/${x} é=ü`

// formatBIOS is how GRUB passes it on, with its own word.
const formatBIOS = `BOOT_IMAGE=/kernel CONSOLE quiet panic=-1 "a=b c" %s %%d $HOME/${x} é=ü`

// A formatBoot is a format that boots in a way.
type formatBoot struct {
	architecture string
	format       string      // of which one is made in a build
	firmware     vm.Firmware // "": QEMU loads the kernel itself
	driver       string      // of QEMU, for the file; "cd" for a CD drive
	cmdline      string      // as the kernel gets it
	always       bool        // boots without -boot too
}

// always marks the boots that represent the others: together they cover each
// boot loader, each way into a disk image or CD, and both architectures.
const always = true

// formatBoots lists the ways in which formats boot. aws is raw.
var formatBoots = []formatBoot{
	{"amd64", "kernel+initrd", "", "", "CONSOLE " + formatCmdline, always},
	{"amd64", "raw", vm.BIOS, "raw", formatBIOS, always},
	{"amd64", "raw", vm.UEFI, "raw", `initrd=\initrd.img CONSOLE ` + formatCmdline, always},
	{"amd64", "raw-bios", vm.BIOS, "raw", formatBIOS, false},
	{"amd64", "raw-efi", vm.UEFI, "raw", "CONSOLE " + formatCmdline, always},
	{"amd64", "qcow2", vm.BIOS, "qcow2", formatBIOS, false},
	{"amd64", "qcow2", vm.UEFI, "qcow2", `initrd=\initrd.img CONSOLE ` + formatCmdline, false},
	{"amd64", "qcow2-bios", vm.BIOS, "qcow2", formatBIOS, false},
	{"amd64", "qcow2-efi", vm.UEFI, "qcow2", "CONSOLE " + formatCmdline, always},
	{"amd64", "vhd", vm.BIOS, "vpc", formatBIOS, false},
	{"amd64", "vhd", vm.UEFI, "vpc", `initrd=\initrd.img CONSOLE ` + formatCmdline, false},
	{"amd64", "dynamic-vhd", vm.BIOS, "vpc", formatBIOS, false},
	{"amd64", "dynamic-vhd", vm.UEFI, "vpc", `initrd=\initrd.img CONSOLE ` + formatCmdline, always},
	{"amd64", "vmdk", vm.BIOS, "vmdk", formatBIOS, always},
	{"amd64", "vmdk", vm.UEFI, "vmdk", `initrd=\initrd.img CONSOLE ` + formatCmdline, false},
	{"amd64", "gcp", vm.BIOS, "raw", formatBIOS, false},
	{"amd64", "gcp", vm.UEFI, "raw", `initrd=\initrd.img CONSOLE ` + formatCmdline, false},
	{"amd64", "uki", vm.UEFI, "raw", "CONSOLE " + formatCmdline, false},
	{"amd64", "iso", vm.BIOS, "cd", strings.Replace(formatBIOS, "/kernel", "/boot/kernel", 1), always},
	{"amd64", "iso", vm.UEFI, "cd", `initrd=\initrd.img CONSOLE ` + formatCmdline, false},
	{"amd64", "iso", vm.BIOS, "raw", formatBIOS, false},
	{"amd64", "iso", vm.UEFI, "raw", `initrd=\initrd.img CONSOLE ` + formatCmdline, always},
	{"amd64", "iso-efi-initrd", vm.UEFI, "cd", `initrd=\initrd.img CONSOLE ` + formatCmdline, false},
	{"arm64", "iso", vm.UEFI, "cd", `initrd=\initrd.img CONSOLE ` + formatCmdline, false},
	{"arm64", "iso", vm.UEFI, "raw", `initrd=\initrd.img CONSOLE ` + formatCmdline, false},
	{"arm64", "kernel+initrd", "", "", "CONSOLE " + formatCmdline, false},
	{"arm64", "raw", vm.UEFI, "raw", `initrd=\initrd.img CONSOLE ` + formatCmdline, always},
	{"arm64", "raw-efi", vm.UEFI, "raw", "CONSOLE " + formatCmdline, false},
	{"arm64", "qcow2", vm.UEFI, "qcow2", `initrd=\initrd.img CONSOLE ` + formatCmdline, false},
	{"arm64", "qcow2-efi", vm.UEFI, "qcow2", "CONSOLE " + formatCmdline, false},
	{"arm64", "iso-efi-initrd", vm.UEFI, "cd", `initrd=\initrd.img CONSOLE ` + formatCmdline, false},
	{"arm64", "uki", vm.UEFI, "raw", "CONSOLE " + formatCmdline, always},
}

// TestFormats boots each format as it is, under each firmware that it is for.
// The machine tells its command line and its files, and powers off.
func TestFormats(t *testing.T) {
	stack.Require(t)
	images := formatImages(t)
	for _, b := range formatBoots {
		if !*bootAll && !b.always {
			continue
		}
		t.Run(strings.Join(strings.Fields(fmt.Sprint(b.architecture, " ", b.format, " ", b.firmware, " ", b.driver)), " "), func(t *testing.T) {
			b.boot(t, images[b.architecture])
		})
	}
}

// formatImages makes the images of the machine that there are not yet, and
// returns the arguments that put them in their places, by architecture.
func formatImages(t *testing.T) map[string][]string {
	t.Helper()
	dir := t.TempDir()
	for architecture := range vm.Consoles {
		build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(dir, "init-"+architecture), "../exporter/disk/testdata/init")
		build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+architecture)
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("go build: %v\n%s", err, out)
		}
	}
	dockerfile, err := filepath.Abs("testdata/formats/Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	contexts := map[string][]string{}
	for stage, architectures := range map[string][]string{"kernel": {"arm64"}, "init": {"amd64", "arm64"}} {
		ref := stack.Registry + "/test/formats-" + stage
		args := []string{"-f", dockerfile, "--target", stage, "--provenance=false", "-o", "type=registry", "-t", ref, "."}
		for _, a := range architectures {
			args = append(args, "--platform=linux/"+a)
			contexts[a] = append(contexts[a], "--build-context=slipwaybuild/"+stage+":v1=docker-image://"+ref)
		}
		if _, stderr, err := stack.Buildx(dir, args...); err != nil {
			t.Fatalf("build %s: %v\n%s", stage, err, stderr)
		}
	}
	return contexts
}

func (b formatBoot) boot(t *testing.T, images []string) {
	dir := machineYAML(t, "kernel:\n  image: slipwaybuild/kernel:v1\n  tar: none\n"+
		"  cmdline: '"+vm.Consoles[b.architecture]+" "+formatCmdline+"'\n"+
		"init:\n  - slipwaybuild/init:v1\nfiles:\n  - path: data/greeting\n    contents: hello\n")
	args := append([]string{"-f", "machine.yml", "--platform=linux/" + b.architecture, "--target=" + b.format, "-o", "out", "."}, images...)
	if _, stderr, err := stack.Buildx(dir, args...); err != nil {
		t.Fatalf("build: %v\n%s", err, stderr)
	}
	out := func(suffix string) string { return filepath.Join(dir, "out", "machine"+suffix) }
	config := vm.Config{Architecture: b.architecture, Firmware: b.firmware, DiskFormat: b.driver, Memory: 512, NoNetwork: true, LogDir: stack.Artifacts(t)}
	switch b.format {
	case "kernel+initrd":
		cmdline, err := os.ReadFile(out("-cmdline"))
		if err != nil {
			t.Fatal(err)
		}
		config.Kernel, config.Initrd, config.Cmdline = out("-kernel"), out("-initrd.img"), string(cmdline)
	case "uki":
		config.Disk = systemPartition(t, out(".efi"), b.architecture)
	case "gcp":
		config.Disk = diskOf(t, out(".img.tar.gz"))
	default:
		files, err := filepath.Glob(out("*"))
		if err != nil || len(files) != 1 {
			t.Fatalf("files %q: %v", files, err)
		}
		config.Disk = files[0]
		if b.driver == "cd" {
			config.CD, config.Disk, config.DiskFormat = files[0], "", ""
		}
	}
	machine, err := vm.Start(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer machine.Kill()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	start := time.Now()
	if err := machine.Wait(ctx); err != nil {
		t.Fatalf("%v\n%s", err, machine.ConsoleTail(40))
	}
	t.Logf("%.1f s", time.Since(start).Seconds())
	line := regexp.MustCompile(`(?m)^REPORT (.*?)\r?$`).FindStringSubmatch(machine.ConsoleTail(40))
	if line == nil {
		t.Fatalf("no report:\n%s", machine.ConsoleTail(40))
	}
	var report struct {
		Cmdline, Error string
		Files          []string
	}
	if err := json.Unmarshal([]byte(line[1]), &report); err != nil || report.Error != "" {
		t.Fatalf("%v, %s in %s", err, report.Error, line[1])
	}
	if want := strings.Replace(b.cmdline, "CONSOLE", vm.Consoles[b.architecture], 1) + "\n"; report.Cmdline != want {
		t.Errorf("command line\n%q, want\n%q", report.Cmdline, want)
	}
	if len(report.Files) != 1 || !strings.HasPrefix(report.Files[0], "greeting: ") {
		t.Errorf("files %q", report.Files)
	}
}

// systemPartition makes a disk with an EFI system partition that holds a
// program to boot.
func systemPartition(t *testing.T, program, architecture string) string {
	t.Helper()
	image := filepath.Join(t.TempDir(), "esp.img")
	name := map[string]string{"amd64": "BOOTX64.EFI", "arm64": "BOOTAA64.EFI"}[architecture]
	for _, command := range [][]string{
		{"truncate", "-s", "200M", image}, {"mkfs.fat", "-F", "32", image},
		{"mmd", "-i", image, "::EFI", "::EFI/BOOT"}, {"mcopy", "-i", image, program, "::EFI/BOOT/" + name},
	} {
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", command, err, out)
		}
	}
	return image
}

// diskOf takes disk.raw out of a compressed tar archive.
func diskOf(t *testing.T, archive string) string {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	decompressed, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	contents := tar.NewReader(decompressed)
	if h, err := contents.Next(); err != nil || h.Name != "disk.raw" {
		t.Fatalf("%+v, %v", h, err)
	}
	disk, err := os.Create(filepath.Join(t.TempDir(), "disk.raw"))
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	buf, zeros := make([]byte, 1<<20), make([]byte, 1<<20)
	for at := int64(0); ; at += 1 << 20 {
		if _, err := io.ReadFull(contents, buf); err == io.EOF {
			if err := disk.Truncate(at); err != nil {
				t.Fatal(err)
			}
			return disk.Name()
		} else if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(buf, zeros) {
			if _, err := disk.WriteAt(buf, at); err != nil {
				t.Fatal(err)
			}
		}
	}
}
