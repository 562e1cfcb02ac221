package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The test binary is the command itself when this is set.
const asCommand = "SLIPWAY_EXPORTER_TEST_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// command runs the command in dir. It returns what it prints and its exit status.
func command(t *testing.T, dir string, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), asCommand+"=1")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// workDir has what a build gives the command.
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
		"loaders/systemd-bootx64.efi": "MZ",
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

// One machine from its images to its files, as the build runs it.
func TestMachine(t *testing.T) {
	dir := workDir(t)
	for _, args := range []string{
		"entries --out o1 --spec spec.json --compression zstd --source context",
		"kernel --out o2 --in kernel --binary kernel --tar= --ucode= --compression zstd",
		"pack --out o3 --in init --prefix= --rules init --compression zstd",
		"pack --out o4 --in sshd --prefix /containers/services/sshd/rootfs/ --rules container --compression zstd:19",
		"join --out out --ucode o2/ucode.cpio o3 o1 o4",
	} {
		if out, errs, status := command(t, dir, strings.Fields(args)...); status != 0 || out+errs != "" {
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
	got, err := os.ReadFile(filepath.Join(dir, "out/initrd.img"))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("initrd.img is not the segments in order: %v", err)
	}

	write := "write --name aws --kernel o2/kernel --initrd out/initrd.img --cmdline cmdline --arch amd64 --out out --format "
	out, errs, status := command(t, dir, strings.Fields(write+"kernel+initrd")...)
	if status != 0 || errs != "" || strings.Count(out, "\n") != 3 || !strings.Contains(out, "           7 aws-kernel\n") {
		t.Errorf("kernel+initrd: status %d, prints\n%s%s", status, out, errs)
	}
	for name, want := range map[string]string{"aws-kernel": "bzImage", "aws-initrd.img": string(want), "aws-cmdline": `console=ttyS0 a="b c"`} {
		if got, err := os.ReadFile(filepath.Join(dir, "out", name)); err != nil || string(got) != want {
			t.Errorf("%s: %v, %d bytes", name, err, len(got))
		}
	}

	out, errs, status = command(t, dir, strings.Fields(write+"raw --loaders loaders --size 104857600 --epoch 1700000000")...)
	if status != 0 || out != "   104857600 aws.raw\n" ||
		errs != "slipway-exporter: warning: under BIOS, GRUB passes the kernel command line on as: console=ttyS0 \"a=b c\"\n" {
		t.Errorf("raw: status %d, prints\n%s%s", status, out, errs)
	}
}

// As LinuxKit, there is no file for an empty kernel or command line.
func TestEmptyFilesAreLeftOut(t *testing.T) {
	dir := workDir(t)
	out, errs, status := command(t, dir, strings.Fields("write --format kernel+initrd --name m --initrd context/f --cmdline empty --out out")...)
	if status != 0 || out != "           4 m-initrd.img\n" {
		t.Errorf("status %d, prints %q %q", status, out, errs)
	}
	if names, err := os.ReadDir(filepath.Join(dir, "out")); err != nil || len(names) != 1 {
		t.Errorf("files %v, %v", names, err)
	}
}

// Errors are one line with the name of the command; no file is left behind.
func TestErrors(t *testing.T) {
	const write = "write --name m --initrd context/f --out out --format "
	for args, want := range map[string]string{
		"":                                   "the first argument must be pack, kernel, entries, layout, join or write",
		"mkfs":                               "the first argument must be pack, kernel, entries, layout, join or write",
		"pack --in init":                     "pack: --out is missing",
		"pack --in init --out out more":      `pack: unexpected argument "more"`,
		"pack --in init --out out --level 3": "pack: flag provided but not defined: -level",
		"pack --in init --out out --compression xz":         `pack: compression "xz": use zstd, gzip or none`,
		"pack --in init --out out --rules x":                `unknown rules "x": use init, container, volume or none`,
		"pack --in none --out out":                          "read tree: lstat none: no such file or directory",
		"pack --in init --out out --prefix a/../..":         `prefix: path "a/../.." is not clean: write ".."`,
		"kernel --in init --out out":                        `kernel image has no file "kernel"; it holds bin/sh; set kernel.binary to the kernel's path`,
		"kernel --in kernel --out o2":                       `kernel image has no file "kernel.tar"; it holds kernel; set kernel.tar to the path of the archive with the modules, or to none`,
		"join --out out":                                    "join: no segment directories given",
		"join --out out o1":                                 "initrd.img: open o1/names: no such file or directory",
		write + "iso":                                       `unknown format "iso"; the formats are kernel+initrd, raw, tar`,
		write + "raw":                                       "raw: a disk needs a kernel: set kernel.image in the machine",
		write + "raw --kernel kernel/kernel --arch arm64":   "raw: there is no disk for arm64 yet: use kernel+initrd",
		write + "raw --kernel kernel/kernel --loaders none": "raw: boot loaders: open none/",
		write + "raw --kernel kernel/kernel --loaders loaders --size 1048576": "raw: SIZE 1M is too small by 35M: kernel, initrd and boot loaders need 36M",
		write + "raw --name ../m":    `name "../m" cannot be the start of a file name`,
		write + "raw --cmdline none": "kernel command line: open none: no such file or directory",
	} {
		dir := workDir(t)
		out, errs, status := command(t, dir, strings.Fields(args)...)
		if status != 1 || out != "" || !strings.HasPrefix(errs, "slipway-exporter: "+want) || strings.Count(errs, "\n") != 1 {
			t.Errorf("%s: status %d, prints %q\n%swant %s", args, status, out, errs, want)
		}
		if names, err := os.ReadDir(filepath.Join(dir, "out")); err != nil || len(names) != 0 {
			t.Errorf("%s: left behind %v, %v", args, names, err)
		}
	}
}

func TestHelp(t *testing.T) {
	out, errs, status := command(t, t.TempDir(), "write", "--help")
	if status != 0 || errs != "" || !strings.Contains(out, "-epoch seconds") {
		t.Errorf("status %d, prints\n%s%s", status, out, errs)
	}
}
