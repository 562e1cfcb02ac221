package disk

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/slipway-build/slipway/internal/testutil/need"
	"github.com/slipway-build/slipway/internal/testutil/stack"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/exporter/segment"
	"github.com/slipway-build/slipway/exporter/sparse"
)

// report is the output of testdata/init.
type report struct {
	Cmdline string
	Root    string
	Files   []string
	Error   string

	SecureBoot bool
	Lockdown   string
	PCRs       map[string]string
	EventLog   []byte
}

// nasty is a command line with all characters that need quoting.
const nasty = `console=ttyS0 quiet panic=-1  foo="a b" "bar=c  d" baz=$HOME/${x}` + "`id`" +
	`%s%41;{}|&<>#!*?[a]~ ünï=çø q="v" empty="" -- --x=y  `

// nastyBIOS is nasty as GRUB passes it on.
const nastyBIOS = `console=ttyS0 quiet panic=-1  "foo=a b" "bar=c  d" baz=$HOME/${x}` + "`id`" +
	`%s%41;{}|&<>#!*?[a]~ ünï=çø q=v empty= -- --x=y  `

// The disk boots under BIOS and UEFI. The kernel has the command line, with what
// is added to it after the build, and unpacks segments of all compressions.
func TestBoot(t *testing.T) {
	needBoot(t)
	dir := t.TempDir()
	parts, want := bootInitrd(t, dir)
	l := realLoaders(t, dir)
	c := Contents{Kernel: imageOf(t, testKernel), Initrd: parts, Cmdline: nasty}.ReserveInitrd(4096)
	d, err := New(Hybrid, c, l, 0, time.Unix(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	if d.BIOSCmdline != nastyBIOS {
		t.Errorf("command line under BIOS:\n%s\nwant\n%s", d.BIOSCmdline, nastyBIOS)
	}
	raw := filepath.Join(dir, "test.raw")
	writeRaw(t, d, raw)
	const added = ` worker=m-17 note="two words"`
	const addedBIOS = ` worker=m-17 "note=two words"` // as GRUB passes it on
	fillRaw(t, raw, added)
	initrd := filepath.Join(dir, "initrd.img")
	writeRaw(t, Disk{Content: sparse.Concat(parts...)}, initrd)
	nvme := []string{"-drive", "if=none,id=d,format=raw,snapshot=on,file=" + raw, "-device", "nvme,drive=d,serial=1"}
	for _, test := range []struct {
		name    string
		args    []string
		cmdline string
	}{
		{"kernel", []string{"-kernel", testKernel, "-initrd", initrd, "-append", nasty}, nasty},
		{"BIOS", nvme, grubPrefix + nastyBIOS + addedBIOS},
		{"UEFI", append(uefiFirmware(t), nvme...), systemdBootPrefix + nasty + added},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := boot(t, test.args)
			if got.Error != "" {
				t.Error(got.Error)
			}
			if got.Cmdline != test.cmdline+"\n" {
				t.Errorf("command line\n%q, want\n%q", got.Cmdline, test.cmdline+"\n")
			}
			if got.Root != "40755 0:0" {
				t.Errorf("the root is %s, want 40755 0:0", got.Root)
			}
			if diff := cmp.Diff(want, got.Files); diff != "" {
				t.Errorf("files (-packed +unpacked):\n%s", diff)
			}
		})
	}
}

// fillRaw fills the reserved areas of a disk.
func fillRaw(t *testing.T, name, cmdline string) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	r, err := FindReserved(f, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(r.SetCmdline(f, cmdline), r.SetUserData(f, []byte("user data"))); err != nil {
		t.Fatal(err)
	}
}

// testKernel is the kernel that make test copies from the kernel package.
const testKernel = "../../.stack/kernel/kernel"

const (
	ovmfCode = "/usr/share/OVMF/OVMF_CODE_4M.fd"
	ovmfVars = "/usr/share/OVMF/OVMF_VARS_4M.fd"
)

// needBoot requires what the test needs to boot virtual machines.
func needBoot(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("boots virtual machines")
	}
	need.Root(t)
	need.Program(t, "qemu-system-x86_64", "qemu-system-x86")
	need.Program(t, "grub-mkimage", "grub-common")
	need.File(t, "/usr/lib/grub/i386-pc/boot.img", "grub-pc-bin")
	need.File(t, "/usr/lib/systemd/boot/efi/systemd-bootx64.efi", "systemd-boot-efi")
	need.File(t, ovmfCode, "ovmf")
	stack.File(t, "kernel", "kernel")
}

// realLoaders collects the boot loaders.
func realLoaders(t *testing.T, dir string) Loaders {
	t.Helper()
	loaders := filepath.Join(dir, "loaders")
	if out, err := exec.Command("./loaders.sh", loaders).CombinedOutput(); err != nil {
		t.Fatalf("loaders.sh: %v\n%s", err, out)
	}
	l, err := ReadLoaders(loaders, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// uefiFirmware returns QEMU's arguments for OVMF with new variables.
func uefiFirmware(t *testing.T) []string {
	t.Helper()
	data, err := os.ReadFile(ovmfVars)
	if err != nil {
		t.Fatal(err)
	}
	vars := filepath.Join(t.TempDir(), "vars.fd")
	if err := os.WriteFile(vars, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return []string{"-drive", "if=pflash,format=raw,readonly=on,file=" + ovmfCode, "-drive", "if=pflash,format=raw,file=" + vars}
}

// bootInitrd creates segments of all compressions. It returns the parts of the
// initramfs and the lines that the machine must report about /data.
func bootInitrd(t *testing.T, dir string) ([]sparse.Content, []string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	program := buildInit(t, dir)

	// All kinds of files, under data/NAME for each compression.
	compressions := map[string]string{"best": "zstd:19", "fast": "zstd:1", "gzip": "gzip", "zstd": "zstd", "none": "none"}
	expected := filepath.Join(dir, "data")
	var segments []segment.Dir
	pack := func(in, prefix string, rules segment.Rules, compression string) {
		c, err := segment.ParseCompression(compression)
		must(err)
		out, err := os.MkdirTemp(dir, "segment")
		must(err)
		packer := segment.Packer{Out: out, Archive: segment.CPIO, Compression: c}
		must(packer.Pack(segment.Rootfs{Dir: in}, prefix, rules))
		segments = append(segments, segment.ParseDir(out))
	}
	for name, compression := range compressions {
		image := filepath.Join(expected, name)
		must(os.MkdirAll(filepath.Join(image, "sub/dir"), 0o755))
		file := func(name string, mode os.FileMode, content []byte) {
			must(os.WriteFile(filepath.Join(image, name), content, 0o600))
			must(os.Chmod(filepath.Join(image, name), mode))
		}
		file("a file, ünï", 0o640, []byte("text"))
		file("empty", 0o444, nil)
		file("suid", 0o755|os.ModeSetuid|os.ModeSetgid, []byte("program"))
		file("large", 0o600, large(1<<20))
		must(os.Chown(filepath.Join(image, "sub"), 1000, 70000))
		must(os.Chmod(filepath.Join(image, "sub/dir"), 0o777|os.ModeSticky))
		must(os.Link(filepath.Join(image, "large"), filepath.Join(image, "sub/first")))
		must(os.Link(filepath.Join(image, "large"), filepath.Join(image, "z-last")))
		must(os.Symlink("../nowhere", filepath.Join(image, "link")))
		must(unix.Mknod(filepath.Join(image, "null"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))
		must(unix.Mknod(filepath.Join(image, "disk"), unix.S_IFBLK|0o600, int(unix.Mkdev(259, 300))))
		must(unix.Mkfifo(filepath.Join(image, "fifo"), 0o600))
		if name == "zstd" {
			// Longer than the window.
			file("longer", 0o600, large(18<<20))
		}
		pack(image, "data/"+name, segment.RulesNone, compression)
	}
	out, err := exec.Command(program, expected).Output()
	must(err)
	var want []string
	must(json.Unmarshal(out, &want))

	root := filepath.Join(dir, "root")
	must(os.Mkdir(root, 0o755))
	for _, name := range []string{"etc", "proc", "dev"} {
		must(os.Mkdir(filepath.Join(root, name), 0o755))
	}
	must(os.Rename(program, filepath.Join(root, "init")))
	pack(root, "", segment.RulesInit, "zstd")

	parts, err := segment.Initrd("", segments, nil)
	must(err)
	var images []sparse.Content
	for _, p := range parts {
		images = append(images, imageOf(t, p.File).Pad(segment.PartAlignment))
	}
	return images, want
}

// buildInit builds testdata/init.
func buildInit(t *testing.T, dir string) string {
	t.Helper()
	program := filepath.Join(dir, "init")
	build := exec.Command("go", "build", "-o", program, "./testdata/init")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return program
}

// large returns bytes that compress well.
func large(size int) []byte {
	r := rand.New(rand.NewSource(1))
	block := make([]byte, 32<<10)
	r.Read(block)
	data := bytes.Repeat(block, size/len(block))
	for range 100 {
		data[r.Intn(len(data))]++
	}
	return data
}

// boot starts a machine, waits until it powers off and returns its report.
func boot(t *testing.T, args []string) report {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", append([]string{
		"-accel", "tcg", "-m", "768", "-nographic", "-no-reboot", "-nic", "none"}, args...)...)
	start := time.Now()
	console, err := cmd.CombinedOutput()
	t.Logf("%.1f s", time.Since(start).Seconds())
	line := regexp.MustCompile(`(?m)^REPORT (.*?)\r?$`).FindSubmatch(console)
	if err != nil || line == nil {
		t.Fatalf("no report: %v; console:\n%s", err, console)
	}
	var r report
	if err := json.Unmarshal(line[1], &r); err != nil {
		t.Fatalf("%v in %s", err, line[1])
	}
	return r
}

func imageOf(t testing.TB, name string) sparse.Content {
	t.Helper()
	var files sparse.Files
	t.Cleanup(files.Close)
	image, err := files.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

func writeRaw(t testing.TB, d Disk, name string) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := d.WriteFile(f); err != nil {
		t.Fatal(err)
	}
}
