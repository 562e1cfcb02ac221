package test

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/slipway-build/slipway/internal/contract"
	"github.com/slipway-build/slipway/internal/testutil/stack"
	"github.com/slipway-build/slipway/internal/vm"
)

var vsockDevice = flag.String("vsock", "", "the `program` vhost-device-vsock, with which TestVsockLog runs")

// TestVsockLog checks that a microVM copies its log to the host over vsock.
func TestVsockLog(t *testing.T) {
	stack.Require(t)
	if *vsockDevice == "" {
		t.Skip("no -vsock: make test-boot installs the program")
	}
	dir := machineYAML(t, fmt.Sprintf(microMachine, "kernel-micro"))
	if _, stderr, err := stack.Buildx(dir, "-f", "machine.yml", "--target=microvm", "-o", "out", "."); err != nil {
		t.Fatalf("build: %v\n%s", err, stderr)
	}
	// A program in the guest connects to port 9001 of the host: a socket in the
	// host's file system with that suffix.
	sockets, err := os.MkdirTemp("", "vsock") // the path of a socket has at most 103 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(sockets) })
	control, host := filepath.Join(sockets, "control"), filepath.Join(sockets, "host")
	listener, err := net.Listen("unix", host+"_9001")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	device := exec.CommandContext(t.Context(), *vsockDevice, "--vm", "guest-cid=4,uds-path="+host+",socket="+control)
	if err := device.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { device.Process.Kill(); device.Wait() })
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if _, err := os.Stat(control); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	logged := make(chan string, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			logged <- err.Error()
			return
		}
		defer conn.Close()
		conn.SetReadDeadline(time.Now().Add(3 * time.Minute))
		text, _ := io.ReadAll(conn)
		logged <- string(text)
	}()
	built := filepath.Join(dir, "out", "machine")
	runToEnd(t, vm.Config{MicroVM: true, Kernel: built + "-vmlinux", Initrd: built + "-initrd.img", Memory: 512, NoNetwork: true, LogDir: stack.Artifacts(t),
		Cmdline:    "console=ttyS0 panic=-1 linuxkit.runc_console=1 slipway.vsock_log=9001",
		MemoryFile: filepath.Join(t.TempDir(), "memory"), // which the device shares
		Arguments:  []string{"-chardev", "socket,id=vsock,path=" + control, "-device", "vhost-user-vsock-device,chardev=vsock"}})
	if text := <-logged; !strings.Contains(text, "SERVICE RUNS") || !strings.Contains(text, contract.ExitStatus+"0") {
		t.Errorf("the host reads:\n%s", text)
	}
}

// microMachine is a machine whose service says that it runs, and ends it.
const microMachine = `kernel:
  image: slipwaybuild/%s:v1
  cmdline: console=ttyS0 panic=-1 linuxkit.runc_console=1
init:
  - slipwaybuild/init:v1
  - slipwaybuild/runc:v1
services:
  - name: hello
    image: slipwaybuild/init:v1
    command: [/bin/sh, -c, 'echo SERVICE RUNS; sleep 5']
    annotations: {build.slipway.batch: "true"}
`

// TestMicroVM boots a machine in a PC with Debian's kernel, in a PC with
// kernel-micro, and in a microVM from an initramfs and from a disk, and logs the
// times until its service runs. A microVM must need less time of the processor
// than the PC. When the service ends, the init must reset a microVM, and power the PC
// off.
func TestMicroVM(t *testing.T) {
	stack.Require(t)
	if !*bootAll {
		t.Skip("no -boot: make test-boot builds the package kernel-micro")
	}
	dir := machineYAML(t, "")
	build := func(kernel, target string) string {
		t.Helper()
		name := kernel + "-" + target
		if err := os.WriteFile(filepath.Join(dir, name+".yml"), fmt.Appendf(nil, "# syntax=slipwaybuild/slipway:1\n"+microMachine, kernel), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, stderr, err := stack.Buildx(dir, "-f", name+".yml", "--target="+target, "-o", "out", "."); err != nil {
			t.Fatalf("build: %v\n%s", err, stderr)
		}
		return filepath.Join(dir, "out", name)
	}
	debian, micro, initramfs, root := build("kernel", "kernel+initrd"), build("kernel-micro", "kernel+initrd"), build("kernel-micro", "microvm"), build("kernel-micro", "microvm+erofs")
	cpu := map[string]time.Duration{}
	for _, b := range []struct {
		name   string
		config vm.Config
	}{
		{"q35 with Debian's kernel", vm.Config{Kernel: debian + "-kernel", Initrd: debian + "-initrd.img"}},
		{"q35", vm.Config{Kernel: micro + "-kernel", Initrd: micro + "-initrd.img"}},
		{"microvm", vm.Config{MicroVM: true, Kernel: initramfs + "-vmlinux", Initrd: initramfs + "-initrd.img"}},
		{"microvm+erofs", vm.Config{MicroVM: true, Kernel: root + "-vmlinux", Disk: root + "-erofs.img"}},
	} {
		t.Run(b.name, func(t *testing.T) {
			c := b.config
			c.Memory, c.LogDir, c.Cmdline = 512, stack.Artifacts(t), "console=ttyS0 panic=-1 linuxkit.runc_console=1"
			if c.Disk != "" {
				c.Cmdline = "root=/dev/vda " + c.Cmdline
			}
			machine, err := vm.Start(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(machine.Kill)
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			at, err := machine.WaitConsole(ctx, regexp.MustCompile(`(?m)^SERVICE RUNS\s*$`))
			if err != nil {
				t.Fatalf("%v\n%s", err, machine.ConsoleTail(40))
			}
			if cpu[b.name], err = machine.CPUTime(); err != nil {
				t.Fatal(err)
			}
			if err := machine.Wait(ctx); err != nil {
				t.Error(err)
			}
			if console := machine.ConsoleTail(60); c.MicroVM != strings.Contains(console, "reboot: Restarting system") {
				t.Errorf("the machine ended in another way:\n%s", console)
			}
			t.Logf("%s: service after %.2f s, %.2f s of the processor", b.name, at.Seconds(), cpu[b.name].Seconds())
		})
	}
	if cpu["microvm"] >= cpu["q35 with Debian's kernel"] {
		t.Errorf("time of the processor %v: a microVM must need less than a PC", cpu)
	}
}

// TestMicroVMRun boots a machine with slipway run in a microVM and in a PC, logs how
// long the command takes, and checks that it ends with the exit status of the
// service.
func TestMicroVMRun(t *testing.T) {
	stack.Require(t)
	if !*bootAll {
		t.Skip("no -boot: make test-boot builds the package kernel-micro")
	}
	home(t)
	file := filepath.Join(t.TempDir(), "micro.yml")
	text := strings.Replace(fmt.Sprintf(microMachine, "kernel-micro"), "sleep 5", "exit 3", 1)
	if err := os.WriteFile(file, []byte("# syntax=slipwaybuild/slipway:1\n"+text), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{"microvm": {"--microvm"}, "q35": nil} {
		args = append([]string{"run", "--accel=tcg", "--progress=plain", "--timeout=5m", file}, args...)
		mustSlipway(t, 3, args...) // builds the machine
		start := time.Now()
		stdout, _ := mustSlipway(t, 3, args...)
		t.Logf("%s: %.1f s from the command to the end of the service", name, time.Since(start).Seconds())
		if !strings.Contains(stdout, "SERVICE RUNS") {
			t.Errorf("%s: the service does not run:\n%s", name, stdout)
		}
	}
}
