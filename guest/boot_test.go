// Package guest_test boots a machine and looks at what its init made of it.
package guest_test

import (
	"bytes"
	"cmp"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/slipway-build/slipway/test/vm"
)

// TestBoot builds the machine of testdata/machine.yml, which reports on itself to its console and powers itself off.
func TestBoot(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a machine")
	}
	dir := build(t, "testdata/machine.yml")
	logs := filepath.Join(cmp.Or(os.Getenv("SLIPWAY_ARTIFACTS"), "../out/test"), t.Name())
	machine, err := vm.Start(t.Context(), vm.Config{
		Kernel:  filepath.Join(dir, "machine-kernel"),
		Initrd:  filepath.Join(dir, "machine-initrd.img"),
		Cmdline: "console=ttyS0 panic=-1",
		LogDir:  logs,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(machine.Kill)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	if err := machine.Wait(ctx); err != nil {
		t.Fatalf("%v\n%s", err, machine.ConsoleTail(60))
	}
	console, err := os.ReadFile(filepath.Join(logs, "console.log"))
	if err != nil {
		t.Fatal(err)
	}
	console = bytes.ReplaceAll(console, []byte("\r"), nil)
	for _, line := range []string{
		`onboot 000-readonly: done in [\d.]+ s, exit 0`,
		`onboot 001-writable: done in [\d.]+ s, exit 0`,
		`onboot 002-fails: failed: exit 3\n +\| out of ideas`,
		`onboot 003-missing: failed: .*runc: exit 1\n +\| .*/nonesuch: no such file.*`,
		`onboot 004-network: done in [\d.]+ s, exit 0`,
		`onboot 005-volume: done in [\d.]+ s, exit 0`,
		`containerd: ready in [\d.]+ s`,
		`service web: started in [\d.]+ s`,
		`service broken: failed: .*/nonesuch: no such file.*`,
		`machine is up, services started: 3`,
		`service short: ended, exit 7, see /var/log/short\.log`,
		`REPORT root: rootfs / rootfs ro,[^\n]*`,
		`REPORT write: touch: /x: Read-only file system`,
		`REPORT hooks: first last`,
		`REPORT config: ok`,
		`REPORT onboot-log: /x cgroup 0::/001-writable, files 1048576`,
		`REPORT network-log: br7 lo veth0 wg0`,
		`REPORT netns: 1 kept`,
		`REPORT made: /run/setup /sys/fs/cgroup/pods/kubelet /var/lib/setup`,
		`REPORT controllers: (?:cpuset cpu io memory hugetlb pids rdma misc ?){2}`,
		`REPORT web-log: out err`,
		`REPORT web-cgroup: 2`,
		`REPORT hostname: linuxkit-[0-9a-f]{12}`,
		`REPORT modprobe: 1 modprobe: nonesuch: no such kernel module`,
		`REPORT zombies: 0`,
		`REPORT init-log: 1`,
		`REPORT volume: kept`,
		`poweroff`,
		`onshutdown 000-bye: done in [\d.]+ s, exit 0`,
		`poweroff now`,
	} {
		if !regexp.MustCompile(`(?m)^(\[ *\d+\.\d\d\] )?` + line + ` *$`).Match(console) {
			t.Errorf("the console does not say %q", line)
		}
	}
	if t.Failed() {
		t.Logf("the end of %s/console.log:\n%s", logs, machine.ConsoleTail(60))
	}
}

// build makes kernel and initramfs of a machine with docker buildx, which takes packages and frontend from the local stack.
func build(t *testing.T, file string) (dir string) {
	t.Helper()
	vm.RequireStack(t)
	dir = t.TempDir()
	buildx := exec.Command("docker", "buildx", "build", "--builder", cmp.Or(os.Getenv("BUILDX_BUILDER"), "slipway"), "-f", file, "--target", "kernel+initrd", "-o", dir, "testdata")
	if out, err := buildx.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", file, err, out)
	}
	return dir
}
