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
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slipway-build/slipway/exporter/format"
	"github.com/slipway-build/slipway/exporter/segment"
	"github.com/slipway-build/slipway/exporter/uki"
	"github.com/slipway-build/slipway/internal/testutil/stack"
	"github.com/slipway-build/slipway/internal/vm"
)

var bootAll = flag.Bool("boot", false, "boot all formats under all their firmwares, not a representative third, and the AMI for arm64; check also the package docker")

// formatCmdline contains characters that need quoting.
const formatCmdline = `quiet panic=-1 a="b c" %s %%d $HOME/${x} é=ü`

// formatBIOS is how GRUB passes it to the kernel.
const formatBIOS = `BOOT_IMAGE=/kernel CONSOLE quiet panic=-1 "a=b c" %s %%d $HOME/${x} é=ü`

// formatFacts has facts about a format that exporter/format does not have.
type formatFacts struct {
	drivers []string // of QEMU, for the file; "cd" for a CD drive
	uki     bool     // UEFI starts a unified kernel image
}

// formatsToBoot has the formats that TestFormats boots.
var formatsToBoot = map[string]formatFacts{
	"kernel+initrd":  {drivers: []string{""}}, // QEMU loads the kernel
	"raw":            {drivers: []string{"raw"}},
	"raw-bios":       {drivers: []string{"raw"}},
	"raw-efi":        {drivers: []string{"raw"}, uki: true},
	"qcow2":          {drivers: []string{"qcow2"}},
	"qcow2-bios":     {drivers: []string{"qcow2"}},
	"qcow2-efi":      {drivers: []string{"qcow2"}, uki: true},
	"vhd":            {drivers: []string{"vpc"}},
	"dynamic-vhd":    {drivers: []string{"vpc"}},
	"vmdk":           {drivers: []string{"vmdk"}},
	"gcp":            {drivers: []string{"raw"}},
	"uki":            {drivers: []string{"raw"}, uki: true},
	"iso":            {drivers: []string{"cd", "raw"}},
	"iso-efi-initrd": {drivers: []string{"cd"}},
}

// formatsBootedElsewhere has the other formats that boot from an initramfs, and
// why TestFormats does not boot them.
var formatsBootedElsewhere = map[string]string{
	"containerdisk":     "TestContainerDisk boots what a registry has",
	"microvm":           "TestMicroVM boots it, with a kernel that has the drivers built in",
	"eif":               "Nitro enclaves boot it; TestEIF of exporter/format compares its ramdisks with the initramfs",
	"aws":               "TestAWS boots raw, and aws is a raw in whole GiB",
	"tar-kernel-initrd": "TestTarKernelInitrd of exporter/format compares its files with those of kernel+initrd",
}

// alwaysBooted represents the other boots in runs without -boot: together these
// cover each boot loader, each way into a disk image or CD, and both
// architectures.
var alwaysBooted = []string{
	"amd64 kernel+initrd",
	"amd64 raw bios raw",
	"amd64 raw uefi raw",
	"amd64 raw-efi uefi raw",
	"amd64 qcow2-efi uefi qcow2",
	"amd64 dynamic-vhd uefi vpc",
	"amd64 vmdk bios vmdk",
	"amd64 iso bios cd",
	"amd64 iso uefi raw",
	"arm64 raw uefi raw",
	"arm64 uki uefi raw",
}

// A formatBoot is one way in which a format boots.
type formatBoot struct {
	architecture string
	format       format.Format
	firmware     vm.Firmware // "": QEMU loads the kernel itself
	driver       string
	uki          bool
}

func (b formatBoot) String() string {
	return strings.Join(strings.Fields(fmt.Sprint(b.architecture, " ", b.format.Name, " ", b.firmware, " ", b.driver)), " ")
}

// formatBoots returns all ways in which the formats with an initramfs boot.
func formatBoots() []formatBoot {
	var boots []formatBoot
	for _, architecture := range slices.Sorted(maps.Keys(vm.Consoles)) {
		for _, f := range format.All() {
			facts, ok := formatsToBoot[f.Name]
			if !ok || f.Check(architecture) != nil {
				continue
			}
			for _, firmware := range firmwares(f, architecture) {
				for _, driver := range facts.drivers {
					boots = append(boots, formatBoot{architecture, f, firmware, driver, facts.uki})
				}
			}
		}
	}
	return boots
}

// firmwares returns what a format boots under: "" if it has no boot loader.
func firmwares(f format.Format, architecture string) []vm.Firmware {
	var out []vm.Firmware
	on := f.FirmwareOn(architecture)
	if on.Has(format.BIOS) {
		out = append(out, vm.BIOS)
	}
	if on.Has(format.UEFI) {
		out = append(out, vm.UEFI)
	}
	if on == 0 {
		out = append(out, "")
	}
	return out
}

// TestAllFormatsBoot checks that a test boots each format under each firmware
// on each architecture.
func TestAllFormatsBoot(t *testing.T) {
	var names []string
	for _, b := range formatBoots() {
		names = append(names, b.String())
	}
	for _, name := range alwaysBooted {
		if !slices.Contains(names, name) {
			t.Errorf("%q is not a boot of TestFormats", name)
		}
	}
	for _, f := range format.All() {
		_, initrd := formatsToBoot[f.Name]
		_, elsewhere := formatsBootedElsewhere[f.Name]
		switch {
		case f.Segments == segment.CPIO:
			if initrd == elsewhere {
				t.Errorf("add %s to either formatsToBoot or formatsBootedElsewhere", f.Name)
			}
			continue
		case f.Name == "tar" || f.Name == "docker" || f.Name == "microvm+erofs": // TestConformance, TestDockerFormat, TestMicroVM
			continue
		}
		for architecture := range vm.Consoles {
			if f.Check(architecture) != nil {
				continue
			}
			for _, firmware := range firmwares(f, architecture) {
				if !slices.ContainsFunc(rootBoots, func(b rootBoot) bool {
					return b.architecture == architecture && b.format == f.Name && b.firmware == firmware
				}) {
					t.Errorf("add %s %s %s to rootBoots", architecture, f.Name, firmware)
				}
			}
		}
	}
}

// TestFormats boots each format, unchanged, under each firmware that it
// supports. The machine reports its command line and its files, and powers off.
func TestFormats(t *testing.T) {
	stack.Require(t)
	images := formatImages(t)
	for _, b := range formatBoots() {
		if !*bootAll && !slices.Contains(alwaysBooted, b.String()) {
			continue
		}
		t.Run(b.String(), func(t *testing.T) {
			b.boot(t, images[b.architecture])
		})
	}
}

// outputFiles returns the output files of a format for machine.yml. The
// directory must contain them and nothing else.
func outputFiles(t *testing.T, f format.Format, dir string) []string {
	t.Helper()
	var files []string
	for _, name := range f.Files("machine") {
		files = append(files, filepath.Join(dir, name))
	}
	got, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || !slices.Equal(got, slices.Sorted(slices.Values(files))) {
		t.Fatalf("%s wrote %q, want %q; %v", f.Name, got, files, err)
	}
	return files
}

// cmdline returns what the kernel should get as its command line.
func (b formatBoot) cmdline() string {
	line := "CONSOLE " + formatCmdline
	switch {
	case b.firmware == vm.BIOS && b.driver == "cd":
		line = strings.Replace(formatBIOS, "/kernel", "/boot/kernel", 1)
	case b.firmware == vm.BIOS:
		line = formatBIOS
	case b.firmware == vm.UEFI && !b.uki:
		line = `initrd=\initrd.img ` + line
	}
	return strings.Replace(line, "CONSOLE", vm.Consoles[b.architecture], 1)
}

// formatImages builds the images of the machine that the stack does not have.
// It returns the arguments that let a build use them, by architecture.
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

// checkRelease checks that a UKI names the release of its kernel, which is
// Debian's for both architectures.
func checkRelease(t *testing.T, name string) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	program, err := uki.Read(f, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	uname, _ := program.Section(".uname")
	release, err := io.ReadAll(uname.Reader())
	if err != nil || !regexp.MustCompile(`^6\.\d+\.\d+[-+].*`+program.Architecture).Match(release) {
		t.Errorf("the UKI for %s has the release %q in .uname, %v", program.Architecture, release, err)
	}
}

// formatMachine returns the YAML of a machine of the images of formatImages.
func formatMachine(cmdline string) string {
	return "kernel:\n  image: slipwaybuild/kernel:v1\n  tar: none\n  cmdline: '" + cmdline + "'\n" +
		"init:\n  - slipwaybuild/init:v1\nfiles:\n  - path: data/greeting\n    contents: hello\n"
}

func (b formatBoot) boot(t *testing.T, images []string) {
	dir := machineYAML(t, formatMachine(vm.Consoles[b.architecture]+" "+formatCmdline))
	args := append([]string{"-f", "machine.yml", "--platform=linux/" + b.architecture, "--target=" + b.format.Name, "-o", "out", "."}, images...)
	if _, stderr, err := stack.Buildx(dir, args...); err != nil {
		t.Fatalf("build: %v\n%s", err, stderr)
	}
	files := outputFiles(t, b.format, filepath.Join(dir, "out"))
	config := vm.Config{Architecture: b.architecture, Firmware: b.firmware, DiskFormat: b.driver, Memory: 512, NoNetwork: true, LogDir: stack.Artifacts(t)}
	switch {
	case b.format.Name == "kernel+initrd":
		cmdline, err := os.ReadFile(files[2])
		if err != nil {
			t.Fatal(err)
		}
		config.Kernel, config.Initrd, config.Cmdline = files[0], files[1], string(cmdline)
	case b.format.Name == "uki":
		checkRelease(t, files[0])
		config.Disk = systemPartition(t, files[0], b.architecture)
	case b.format.Name == "gcp":
		config.Disk = diskOf(t, files[0])
	case b.driver == "cd":
		config.CD, config.DiskFormat = files[0], ""
	default:
		config.Disk = files[0]
	}
	report := reportOf(t, runToEnd(t, config))
	if want := b.cmdline() + "\n"; report.Cmdline != want {
		t.Errorf("command line\n%q, want\n%q", report.Cmdline, want)
	}
}

// runToEnd boots a machine and waits until it powers itself off.
func runToEnd(t *testing.T, config vm.Config) *vm.Machine {
	t.Helper()
	machine, err := vm.Start(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(machine.Kill)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	start := time.Now()
	if err := machine.Wait(ctx); err != nil {
		t.Fatalf("%v\n%s", err, machine.ConsoleTail(40))
	}
	t.Logf("%.1f s", time.Since(start).Seconds())
	return machine
}

// A formatReport is what the init of the machines that formatImages makes writes
// on the console.
type formatReport struct {
	Cmdline, Error string
	Files          []string
}

// reportOf returns the report of a machine that has powered off.
func reportOf(t *testing.T, machine *vm.Machine) formatReport {
	t.Helper()
	return reportIn(t, machine.ConsoleTail(40))
}

// reportIn returns the report that a machine has written on its console.
func reportIn(t *testing.T, console string) (report formatReport) {
	t.Helper()
	line := regexp.MustCompile(`(?m)^REPORT (.*?)\r?$`).FindStringSubmatch(console)
	if line == nil {
		t.Fatalf("no report:\n%s", console)
	}
	if err := json.Unmarshal([]byte(line[1]), &report); err != nil || report.Error != "" {
		t.Fatalf("%v, %s in %s", err, report.Error, line[1])
	}
	if len(report.Files) != 1 || !strings.HasPrefix(report.Files[0], "greeting: ") {
		t.Errorf("files %q", report.Files)
	}
	return report
}

// systemPartition creates a file system that UEFI boots a program from.
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

// diskOf extracts disk.raw from a compressed tar archive.
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
