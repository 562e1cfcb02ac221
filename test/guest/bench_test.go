package guest

import (
	"bytes"
	"context"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/slipway-build/slipway/internal/testutil/meminfo"
	"github.com/slipway-build/slipway/internal/testutil/need"
	"github.com/slipway-build/slipway/internal/testutil/stack"
	"github.com/slipway-build/slipway/internal/vm"
	"github.com/slipway-build/slipway/internal/vm/cloud"
)

// BenchmarkBoot boots the machine of examples/aws.yml and that of
// testdata/bench.yml, both also from a disk, the former with dm-verity. For
// comparison, it boots the latter with LinuxKit's init, runc and containerd,
// if LINUXKIT_IMAGES names their images (see linuxKitContexts). Otherwise, it
// boots the latter like LinuxKit: with LinuxKit's compression, and with three
// SSH host keys, which LinuxKit's sshd generates at each boot. It reports the
// seconds from the start of the kernel to a login by SSH, the processor time
// and the guest's instructions for them, the peak of memory, and the available
// memory after the login. It logs the instructions until the init starts, and
// until lines about the onboot containers are on the console.
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
	type bench struct {
		name, file, format string
		args               []string
	}
	name, args := peer(b)
	linuxkit := bench{name, "testdata/bench.yml", "kernel+initrd", args}
	if name == "baseline" {
		linuxkit.file, linuxkit.args = filepath.Join(context, "baseline.yml"), append(args, "--build-arg", "COMPRESSION=gzip")
	}
	for _, m := range []bench{
		{"example", "../../examples/aws.yml", "kernel+initrd", nil},
		{"verity", "../../examples/aws.yml", "raw-verity", nil},
		{"slipway", "testdata/bench.yml", "kernel+initrd", nil},
		{"disk", "testdata/bench.yml", "kernel+erofs", nil},
		linuxkit,
	} {
		dir := b.TempDir()
		stack.MustBuildx(b, ".", append(m.args, "-f", m.file, "--target", m.format, "--build-arg", "NAME=machine", "-o", dir, context)...)
		b.Run(m.name, func(b *testing.B) {
			for b.Loop() {
				benchmarkBoot(b, dir, nil)
			}
			// Counting makes the machine slower, so it is a boot of its own.
			count := newInstructions(b)
			b.ReportMetric(benchmarkBoot(b, dir, count)/1e9, "Ginstructions-to-ssh")
		})
	}
}

// peer returns the name of what a benchmark compares Slipway with, and the arguments
// of docker buildx for its images: LinuxKit if LINUXKIT_IMAGES names its images (see
// linuxKitContexts), or an init that boots like LinuxKit's.
func peer(b *testing.B) (name string, args []string) {
	b.Helper()
	if args := linuxKitContexts(b, "slipwaybuild/", "init", "runc", "containerd"); args != nil {
		return "linuxkit", args
	}
	layout := filepath.Join(b.TempDir(), "image")
	stack.MustBuildx(b, ".", "--output", "type=oci,tar=false,dest="+layout, "testdata/baseline")
	return "baseline", []string{"--build-context", "slipwaybuild/init:v1=oci-layout://" + layout}
}

// bootFiles makes QEMU boot the kernel and the initrd of a machine with the
// command line of its YAML.
func bootFiles(b testing.TB, dir string, config *vm.Config) {
	b.Helper()
	cmdline, err := os.ReadFile(filepath.Join(dir, "machine-cmdline"))
	if err != nil {
		b.Fatal(err)
	}
	config.Kernel, config.Initrd, config.Cmdline = filepath.Join(dir, "machine-kernel"), filepath.Join(dir, "machine-initrd.img"), string(cmdline)
}

// TestInstructions checks how many instructions a machine needs from the start of
// the kernel to a login. Other than seconds, the number does not depend on what
// else the host does. The limit is a fifth above the number when the test was
// written: a higher number needs a reason.
func TestInstructions(t *testing.T) {
	if !*bootAll {
		t.Skip("counts with -boot only")
	}
	stack.Require(t)
	dir := t.TempDir()
	stack.MustBuildx(t, ".", "-f", "../../examples/aws.yml", "--build-arg", "NAME=machine", "-o", dir, ".")
	const limit = 7.3e9
	if n := benchmarkBoot(t, dir, newInstructions(t)); n > limit {
		t.Errorf("the machine executes %.2f billion instructions until a login, more than %.2f", n/1e9, limit/1e9)
	} else {
		t.Logf("%.2f billion instructions", n/1e9)
	}
}

// instructions counts those of a guest.
type instructions struct{ plugin, count string }

func newInstructions(t testing.TB) *instructions {
	t.Helper()
	need.Program(t, "gcc", "gcc")
	dir := t.TempDir()
	i := &instructions{filepath.Join(dir, "instructions.so"), filepath.Join(dir, "count")}
	version, err := exec.Command("qemu-system-x86_64", "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	define := "-DVERSION=2"
	if regexp.MustCompile(`version [1-8]\.`).Match(version) {
		define = "-DVERSION=1"
	}
	out, err := exec.Command("gcc", define, "-O2", "-Wall", "-Wextra", "-fPIC", "-shared", "-o", i.plugin, "testdata/instructions/instructions.c").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return i
}

// arguments returns the arguments of QEMU.
func (i *instructions) arguments() []string {
	if i == nil {
		return nil
	}
	return []string{"-plugin", i.plugin + ",count=" + i.count}
}

// executed returns the number of instructions since power-on.
func (i *instructions) executed(t testing.TB) float64 {
	t.Helper()
	if i == nil {
		return 0
	}
	data, err := os.ReadFile(i.count)
	if err != nil || len(data) != 8 {
		t.Fatalf("%d bytes of the count: %v", len(data), err)
	}
	return float64(binary.NativeEndian.Uint64(data))
}

// benchmarkBoot boots a machine once. It returns the number of instructions, if
// they are counted.
func benchmarkBoot(b testing.TB, dir string, count *instructions) float64 {
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
	config := vm.Config{
		Arguments:  count.arguments(),
		Metadata:   &cloud.Instance{ID: "i-0123456789abcdef0", Hostname: "bench", PublicKeys: []string{key.Public}},
		MemoryFile: filepath.Join(memory, "memory"),
		LogDir:     stack.Artifacts(b),
	}
	exists := func(name string) bool {
		_, err := os.Stat(filepath.Join(dir, name))
		return err == nil
	}
	if config.Disk = filepath.Join(dir, "machine-verity.img"); exists("machine-verity.img") {
		config.Firmware = vm.UEFI
	} else {
		bootFiles(b, dir, &config)
		if config.Disk = filepath.Join(dir, "machine-erofs.img"); !exists("machine-erofs.img") {
			config.Disk = "" // the root filesystem is the initramfs
		}
	}
	machine, err := vm.Start(ctx, config)
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
	executed := count.executed(b)
	var milestones sync.WaitGroup
	reached, end := context.WithCancel(ctx)
	defer end()
	if count != nil {
		for _, text := range []string{"Run /init", "onboot 000-sysctl", "onboot 001-dhcpcd", "onboot 002-metadata", "machine is up"} {
			milestones.Go(func() {
				if _, err := machine.WaitConsole(reached, regexp.MustCompile(text)); err == nil {
					b.Logf("%.2f billion instructions until %q", (count.executed(b)-executed)/1e9, text)
				}
			})
		}
	}
	login, err := machine.WaitSSH(ctx, key)
	if err != nil {
		b.Fatalf("%v\n%s", err, machine.ConsoleTail(40))
	}
	if count != nil {
		total := count.executed(b) - executed
		end()
		milestones.Wait()
		return total
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
	kib := meminfo.Available(b, free.Stdout+free.Stderr)
	if b, ok := b.(*testing.B); ok {
		b.ReportMetric((login - kernel).Seconds(), "s-to-ssh")
		b.ReportMetric((after - before).Seconds(), "cpu-s-to-ssh")
		b.ReportMetric(float64(info.Sys().(*syscall.Stat_t).Blocks)*512/(1<<20), "MiB-used-at-most")
		b.ReportMetric(float64(kib)/1024, "MiB-available")
		b.ReportMetric(0, "ns/op")
	}
	return 0
}
