package main

import (
	"archive/tar"
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/slipway-build/slipway/internal/testutil/need"

	"github.com/opencontainers/go-digest"

	"github.com/slipway-build/slipway/exporter/disk/disktest"
	"github.com/slipway-build/slipway/exporter/verity"
	"github.com/slipway-build/slipway/internal/contract"
	"github.com/slipway-build/slipway/internal/testutil/treetest"
)

// bin is the folder with the programs.
var bin string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "slipway-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		bin = dir
		build := exec.Command("go", "build", "-o", bin, ".", "../slipway-packer")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n%s", build, err, out)
			return 1
		}
		return m.Run()
	}())
}

// run runs the program that has a subcommand. It returns its output and its exit
// status.
func run(t *testing.T, dir string, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	program := "slipway-exporter"
	if len(args) > 0 && slices.Contains([]string{"pack", "kernel", "entries", "layout"}, args[0]) {
		program = "slipway-packer"
	}
	cmd := exec.Command(filepath.Join(bin, program), args...)
	cmd.Dir = dir
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// workDir returns a folder with input for the programs.
func workDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	boot := append(make([]byte, 510), 0x55, 0xaa)
	core := make([]byte, 1024)
	binary.LittleEndian.PutUint16(core[0x1fc:], 1)
	for name, content := range map[string]string{
		"init/bin/sh":                 "shell",
		"sshd/usr/sbin/sshd":          "daemon",
		"kernel/kernel":               "bzImage",
		"spec.json":                   `[{"path":"etc","type":"dir","mode":493},{"path":"etc/f","type":"file","mode":420,"source":"f"}]`,
		"context/f":                   "file",
		"cmdline":                     `console=ttyS0 a="b c"`,
		"empty":                       "",
		"loaders/boot.img":            string(boot),
		"loaders/core.img":            string(core),
		"loaders/eltorito.img":        "GRUB for CDs",
		"loaders/systemd-bootx64.efi": "MZ",
		"loaders/linuxx64.efi.stub":   "MZ",
	} {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"o1", "o2", "o3", "o4", "out"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// The programs write a machine from images to output files, as in a build.
func TestMachine(t *testing.T) {
	dir := workDir(t)
	for _, args := range []string{
		"entries --out o1 --spec spec.json --compression zstd --source context",
		"kernel --out o2 --in kernel --binary kernel --tar= --ucode= --compression zstd",
		"pack --out o3 --in init --prefix= --rules init --compression zstd",
		"pack --out o4 --in sshd --prefix /containers/services/sshd/rootfs/ --rules container --compression zstd:19",
	} {
		if out, errs, status := run(t, dir, strings.Fields(args)...); status != 0 || out+errs != "" {
			t.Fatalf("%s: status %d, prints %q", args, status, out+errs)
		}
	}
	var want []byte
	for _, segment := range []string{"o3", "o1", "o4"} {
		data, err := os.ReadFile(filepath.Join(dir, segment, "segment"))
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, data...)
	}

	write := func(format string) []string {
		return strings.Fields("write --name aws --kernel o2/kernel --ucode o2/ucode.cpio --cmdline cmdline --arch amd64 --out out --format " + format + " o3 o1 o4")
	}
	out, errs, status := run(t, dir, write("kernel+initrd")...)
	if status != 0 || errs != "" || strings.Count(out, "\n") != 3 || !strings.Contains(out, "           7 aws-kernel\n") {
		t.Errorf("kernel+initrd: status %d, prints\n%s%s", status, out, errs)
	}
	for name, want := range map[string]string{"aws-kernel": "bzImage", "aws-initrd.img": string(want), "aws-cmdline": `console=ttyS0 a="b c"`} {
		if got, err := os.ReadFile(filepath.Join(dir, "out", name)); err != nil || string(got) != want {
			t.Errorf("%s: %v, %d bytes", name, err, len(got))
		}
	}

	out, errs, status = run(t, dir, write("raw --loaders loaders --size 104857600 --epoch 1700000000 --map")...)
	if status != 0 || !regexp.MustCompile("^   104857600 aws.raw\n +[0-9]+ aws.raw.map\n$").MatchString(out) ||
		errs != "slipway-exporter: warning: under BIOS, GRUB passes the kernel command line on as: console=ttyS0 \"a=b c\"\n" {
		t.Errorf("raw: status %d, prints\n%s%s", status, out, errs)
	}
}

// The programs write a tar archive from layers, with an image as OCI layout.
func TestTarOfMachine(t *testing.T) {
	need.Program(t, "tar", "tar")
	dir := workDir(t)
	config, layer := `{"os":"linux","architecture":"amd64"}`, treetest.Tar(t, tar.Header{Name: "bin/sh", Typeflag: tar.TypeReg, Mode: 0o4755, Uid: 7})
	manifest := fmt.Sprintf(`{"config":{"digest":"%s"},"layers":[{"digest":"%s"}]}`, digest.FromString(config), digest.FromBytes(layer))
	for name, content := range map[string]string{
		"layer1": string(layer), "config": config, "manifest": manifest,
		"layer2": string(treetest.Tar(t, tar.Header{Name: "bin/.wh.none", Typeflag: tar.TypeReg}, tar.Header{Name: "bin/sh2", Typeflag: tar.TypeLink, Linkname: "bin/sh"})),
		"layer3": string(treetest.Tar(t, tar.Header{Name: "kernel", Typeflag: tar.TypeReg, Mode: 0o640})),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range []string{
		"entries --out o1 --spec spec.json --archive tar --compression none --source context",
		"kernel --out o2 --layer layer3 --tar= --archive tar",
		"pack --out o3 --layer layer1 --layer layer2 --rules init --archive tar",
		"layout --out o4 --index manifest --name docker.io/library/a:1 --blob layer1 --blob layer2 --blob config --platform linux/amd64 --prefix /volumes/a --archive tar",
	} {
		if out, errs, status := run(t, dir, strings.Fields(args)...); status != 0 || out+errs != "" {
			t.Fatalf("%s: status %d, prints %q", args, status, out+errs)
		}
	}
	write := "write --format tar --name m --kernel o2/kernel --ucode o2/ucode.cpio --cmdline cmdline --out out directories=o1 init[0]=o3 o4"
	for _, epoch := range []string{"", " --epoch 1700000000"} {
		args := strings.Fields(write)
		args = append(args[:1:1], append(strings.Fields(epoch), args[1:]...)...)
		if out, errs, status := run(t, dir, args...); status != 0 || errs != "" || !strings.HasSuffix(out, " m.tar\n") {
			t.Fatalf("%s: status %d, prints %q", args, status, out+errs)
		}
		list := exec.Command("tar", "--utc", "-tvf", filepath.Join(dir, "out/m.tar"))
		out, err := list.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		want := `drwxr-xr-x 0/0 0 DATE ./
drwxr-xr-x 0/0 0 DATE bin/
-rwsr-xr-x 7/0 6 DATE bin/sh
hrwsr-xr-x 7/0 0 DATE bin/sh2 link to bin/sh
drwxr-xr-x 0/0 0 DATE boot/
-rw-r--r-- 0/0 21 DATE boot/cmdline
-rw-r----- 0/0 6 DATE boot/kernel
drwxr-xr-x 0/0 0 DATE etc/
-rw-r--r-- 0/0 4 DATE etc/f
-rw-r--r-- 0/0 160 DATE etc/hosts
lrwxrwxrwx 0/0 0 DATE etc/mtab -> /proc/mounts
lrwxrwxrwx 0/0 0 DATE etc/resolv.conf -> /run/resolvconf/resolv.conf
drwxr-xr-x 0/0 0 DATE volumes/
drwxr-xr-x 0/0 0 DATE volumes/a/
drwxr-xr-x 0/0 0 DATE volumes/a/blobs/
drwxr-xr-x 0/0 0 DATE volumes/a/blobs/sha256/
` + blobs(config, string(layer), manifest) + `-rw-r--r-- 0/0 316 DATE volumes/a/index.json
-rw-r--r-- 0/0 30 DATE volumes/a/oci-layout
`
		date := "1980-01-01 00:00"
		if epoch != "" {
			date = "2023-11-14 22:13"
		}
		want = strings.ReplaceAll(want, "DATE", date)
		if got := regexp.MustCompile(" +").ReplaceAllString(string(out), " "); got != want {
			t.Errorf("%s: tar has\n%swant\n%s", args, got, want)
		}
	}
}

// blobs lists an OCI layout in the form of tar.
func blobs(contents ...string) string {
	var lines []string
	for _, content := range contents {
		lines = append(lines, fmt.Sprintf("%s -rw-r--r-- 0/0 %d DATE volumes/a/blobs/sha256/", digest.FromString(content).Encoded(), len(content)))
	}
	slices.Sort(lines)
	var b strings.Builder
	for _, line := range lines {
		name, rest, _ := strings.Cut(line, " ")
		b.WriteString(rest + name + "\n")
	}
	return b.String()
}

// As in LinuxKit, there is no file for an empty kernel or command line.
func TestEmptyFilesAreLeftOut(t *testing.T) {
	dir := workDir(t)
	if _, errs, status := run(t, dir, strings.Fields("entries --out o1 --spec spec.json --source context")...); status != 0 {
		t.Fatal(errs)
	}
	out, errs, status := run(t, dir, strings.Fields("write --format kernel+initrd --name m --cmdline empty --out out o1")...)
	if status != 0 || !strings.HasSuffix(out, " m-initrd.img\n") || strings.Count(out, "\n") != 1 {
		t.Errorf("status %d, prints %q %q", status, out, errs)
	}
	if names, err := os.ReadDir(filepath.Join(dir, "out")); err != nil || len(names) != 1 {
		t.Errorf("files %v, %v", names, err)
	}
}

// Errors are one line that starts with the name of the program. The programs leave
// no files behind.
func TestErrors(t *testing.T) {
	const write = "write --name m --out out --format "
	for args, want := range map[string]string{
		"":                                   "the first argument must be one of: write",
		"mkfs":                               "the first argument must be one of: write",
		"pack --in init":                     "pack: --out is missing",
		"pack --in init --out out more":      `pack: unexpected argument "more"`,
		"pack --in init --out out --level 3": "pack: flag provided but not defined: -level",
		"pack --in init --out out --compression xz":                 `pack: compression "xz": use zstd, gzip or none`,
		"pack --in init --out out --rules x":                        `unknown rules "x": use init, container, volume or none`,
		"pack --in none --out out":                                  "read tree: lstat none: no such file or directory",
		"pack --in init --out out --prefix a/../..":                 `prefix: path "a/../.." leads out of the root`,
		"kernel --in init --out out":                                `kernel image has no file "kernel"; it contains bin/sh; set kernel.binary to the kernel's path`,
		"kernel --in kernel --out o2":                               `kernel image has no file "kernel.tar"; it contains kernel; set kernel.tar to the path of the archive with the modules, or to none`,
		"pack --out out":                                            "pack: requires either --in or --layer",
		"pack --out out --in init --layer spec.json":                "pack: requires either --in or --layer",
		"kernel --out out":                                          "kernel: requires either --in or --layer",
		"pack --out out --layer none":                               "layer 1 of 1: open none: no such file or directory",
		"pack --out out --layer spec.json":                          "layer 1 of 1: not an uncompressed tar archive, or damaged: unexpected EOF",
		"pack --in init --out out --archive zip":                    "pack: --archive zip: use cpio or tar",
		"pack --in init --out out --archive tar --compression zstd": "pack: --compression zstd: tar segments are not compressed",
		"layout --out out --name a:1":                               "layout: --index is missing",
		"layout --out out --name a:1 --index spec.json":             "image a:1: sha256:",
		"write --format tar --name m --out out o1":                  "tar: open o1/segment: no such file or directory",
		write + "raw":              "no segments are given",
		write + "kernel+initrd o1": "kernel+initrd: open o1/names: no such file or directory",
		write + "isolinux":         `unknown format "isolinux"; the formats are kernel+initrd, `,
		write + "raw o1":           "raw needs a kernel: set kernel.image in the machine",
		write + "raw --kernel kernel/kernel --arch arm64 o1":                     "raw: boot loaders: open ",
		write + "raw --kernel kernel/kernel --loaders none o1":                   "raw: boot loaders: open none/",
		write + "raw --kernel kernel/kernel --loaders loaders --size 1048576 o3": "raw: SIZE 1M is too small by 35M: kernel, initrd and boot loaders need 36M",
		write + "raw --name ../m o1":                                             `name "../m" cannot be the start of a file name`,
		write + "raw --cmdline none":                                             "kernel command line: open none: no such file or directory",
	} {
		dir := workDir(t)
		if _, errs, status := run(t, dir, strings.Fields("entries --out o3 --spec spec.json --source context")...); status != 0 {
			t.Fatal(errs)
		}
		out, errs, status := run(t, dir, strings.Fields(args)...)
		_, message, _ := strings.Cut(errs, ": ")
		if status != 1 || out != "" || !strings.HasPrefix(message, want) || strings.Count(errs, "\n") != 1 {
			t.Errorf("%s: status %d, prints %q\n%swant %s", args, status, out, errs, want)
		}
		names, err := os.ReadDir(filepath.Join(dir, "out"))
		names = slices.DeleteFunc(names, func(e os.DirEntry) bool { return e.Name() == ".slipway-failure" }) // for the frontend
		if err != nil || len(names) != 0 {
			t.Errorf("%s: left behind %v, %v", args, names, err)
		}
	}
}

func TestHelp(t *testing.T) {
	out, errs, status := run(t, t.TempDir(), "write", "--help")
	if status != 0 || errs != "" || !strings.Contains(out, "-epoch seconds") {
		t.Errorf("status %d, prints\n%s%s", status, out, errs)
	}
}

// Each format writes a machine of 1 GiB with little memory.
func TestMemoryIsBounded(t *testing.T) {
	kernel := filepath.Join(t.TempDir(), "kernel")
	f, err := os.Create(kernel)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(1 << 30); err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"raw", "raw-efi", "qcow2", "dynamic-vhd", "vmdk", "tar-kernel-initrd", "iso", "kernel+squashfs", "kernel+erofs", "kernel+iso", "raw-verity"} {
		t.Run(format, func(t *testing.T) {
			if used := writeLarge(t, format, kernel); used > 100<<20 {
				t.Errorf("%d MiB were resident", used>>20)
			}
		})
	}
}

// BenchmarkWrite measures throughput and memory of each format, with cp(1) as the
// baseline. The machine is small enough to stay in the page cache.
func BenchmarkWrite(b *testing.B) {
	const size = 512 << 20
	kernel := filepath.Join(b.TempDir(), "kernel")
	f, err := os.Create(kernel)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	if _, err := io.CopyN(f, rand.New(rand.NewSource(1)), size); err != nil {
		b.Fatal(err)
	}
	b.Run("cp", func(b *testing.B) {
		b.SetBytes(size)
		out := filepath.Join(b.TempDir(), "copy")
		for b.Loop() {
			if err := exec.Command("cp", kernel, out).Run(); err != nil {
				b.Fatal(err)
			}
		}
	})
	for _, format := range []string{"kernel+initrd", "tar-kernel-initrd", "raw", "raw-efi", "gcp", "qcow2", "vhd", "dynamic-vhd", "vmdk", "uki", "iso", "tar", "kernel+squashfs", "kernel+erofs", "kernel+iso", "raw-verity"} {
		b.Run(format, func(b *testing.B) {
			b.SetBytes(size)
			var used int64
			for b.Loop() {
				used = max(used, writeLarge(b, format, kernel))
			}
			b.ReportMetric(float64(used)/1e6, "MB-resident")
		})
	}
}

// writeLarge writes a format of a machine with the given kernel. It returns the
// peak of the resident memory in bytes.
func writeLarge(t testing.TB, format, kernel string) int64 {
	t.Helper()
	dir := t.TempDir()
	defer os.RemoveAll(dir) // here and not at the end of all
	spec := filepath.Join(dir, "spec")
	if err := os.WriteFile(spec, []byte("[]"), 0o644); err != nil {
		t.Fatal(err)
	}
	archive := []string{"--compression", "none"}
	switch format {
	case "kernel+squashfs", "kernel+erofs", "kernel+iso", "raw-verity":
		// What is large is in the root filesystem.
		entry := fmt.Sprintf(`[{"path": "large", "type": "file", "mode": 420, "source": %q}, {"path": "sbin/init", "type": "file", "mode": 493, "contents": %q}]`,
			filepath.Base(kernel), base64.StdEncoding.EncodeToString([]byte(contract.StartupMarker+verity.Reaction)))
		if err := os.WriteFile(spec, []byte(entry), 0o644); err != nil {
			t.Fatal(err)
		}
		archive = []string{"--archive", "tar", "--source", filepath.Dir(kernel)}
		kernel = spec
	case "tar":
		archive = []string{"--archive", "tar"}
	}
	pack := exec.Command(filepath.Join(bin, "slipway-packer"), append([]string{"entries", "--out", dir, "--spec", spec}, archive...)...)
	write := exec.Command(filepath.Join(bin, "slipway-exporter"), "write", "--format", format, "--name", "m", "--kernel", kernel,
		"--loaders", disktest.Loaders(t), "--out", dir, dir)
	for _, cmd := range []*exec.Cmd{pack, write} {
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	return write.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10
}
