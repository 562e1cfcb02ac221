package guest

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/slipway-build/slipway/internal/testutil/stack"
	"github.com/slipway-build/slipway/internal/vm"
	"github.com/slipway-build/slipway/internal/vm/cloud"
)

// BenchmarkBoot boots the machine of examples/aws.yml and that of
// testdata/bench.yml, the latter also from a disk. For comparison, it boots the
// latter like LinuxKit: with LinuxKit's compression, and with three SSH host
// keys, which LinuxKit's sshd generates at each boot. It reports the seconds
// from the start of the kernel to a login by SSH, the processor time for them,
// the peak of memory, and the available memory after the login.
func BenchmarkBoot(b *testing.B) {
	stack.Require(b)
	yaml, err := os.ReadFile("testdata/bench.yml")
	if err != nil {
		b.Fatal(err)
	}
	const sshd = "    image: slipwaybuild/sshd:v1\n"
	context := b.TempDir()
	if err := os.WriteFile(filepath.Join(context, "baseline.yml"), bytes.Replace(yaml, []byte(sshd), []byte(sshd+
		`    command: [sh, -c, "mkdir -p /tmp/etc/ssh /run/sshd && ssh-keygen -A -f /tmp && exec /usr/sbin/sshd -D -e -h /tmp/etc/ssh/ssh_host_ed25519_key"]`+"\n"), 1), 0o644); err != nil {
		b.Fatal(err)
	}
	baseline := filepath.Join(context, "image")
	stack.MustBuildx(b, ".", "--output", "type=oci,tar=false,dest="+baseline, "testdata/baseline")
	for _, m := range []struct {
		name, file, format string
		args               []string
	}{
		{"example", "../../examples/aws.yml", "kernel+initrd", nil},
		{"slipway", "testdata/bench.yml", "kernel+initrd", nil},
		{"disk", "testdata/bench.yml", "kernel+erofs", nil},
		{"baseline", filepath.Join(context, "baseline.yml"), "kernel+initrd", []string{"--build-context", "slipwaybuild/init:v1=oci-layout://" + baseline, "--build-arg", "COMPRESSION=gzip"}},
	} {
		dir := b.TempDir()
		stack.MustBuildx(b, ".", append(m.args, "-f", m.file, "--target", m.format, "--build-arg", "NAME=machine", "-o", dir, context)...)
		b.Run(m.name, func(b *testing.B) {
			for b.Loop() {
				benchmarkBoot(b, dir)
			}
		})
	}
}

func benchmarkBoot(b *testing.B, dir string) {
	ctx, cancel := context.WithTimeout(b.Context(), 5*time.Minute)
	defer cancel()
	key, err := vm.NewKey(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	memory, err := os.MkdirTemp("/dev/shm", "slipway")
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(memory)
	root := filepath.Join(dir, "machine-erofs.img")
	if _, err := os.Stat(root); err != nil {
		root = "" // the root filesystem is the initramfs
	}
	machine, err := vm.Start(ctx, vm.Config{
		Disk:       root,
		Kernel:     filepath.Join(dir, "machine-kernel"),
		Initrd:     filepath.Join(dir, "machine-initrd.img"),
		Cmdline:    "console=ttyS0",
		Metadata:   &cloud.Instance{ID: "i-0123456789abcdef0", Hostname: "bench", PublicKeys: []string{key.Public}},
		MemoryFile: filepath.Join(memory, "memory"),
		LogDir:     stack.Artifacts(b),
	})
	if err != nil {
		b.Fatal(err)
	}
	defer machine.Kill()
	kernel, err := machine.WaitConsole(ctx, regexp.MustCompile("Linux version"))
	if err != nil {
		b.Fatal(err)
	}
	before, err := machine.CPUTime()
	if err != nil {
		b.Fatal(err)
	}
	login, err := machine.WaitSSH(ctx, key)
	if err != nil {
		b.Fatalf("%v\n%s", err, machine.ConsoleTail(40))
	}
	after, err := machine.CPUTime()
	if err != nil {
		b.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(memory, "memory"))
	if err != nil {
		b.Fatal(err)
	}
	free, err := machine.SSH(ctx, key, "cat /proc/meminfo")
	if err != nil {
		b.Fatal(err)
	}
	available := regexp.MustCompile(`MemAvailable: *(\d+) kB`).FindStringSubmatch(free.Stdout)
	if available == nil {
		b.Fatalf("no MemAvailable: %s", strings.TrimSpace(free.Stdout+free.Stderr))
	}
	kib, err := strconv.Atoi(available[1])
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric((login - kernel).Seconds(), "s-to-ssh")
	b.ReportMetric((after - before).Seconds(), "cpu-s-to-ssh")
	b.ReportMetric(float64(info.Sys().(*syscall.Stat_t).Blocks)*512/(1<<20), "MiB-used-at-most")
	b.ReportMetric(float64(kib)/1024, "MiB-available")
	b.ReportMetric(0, "ns/op")
}
