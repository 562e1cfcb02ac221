package test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/slipway-build/slipway/internal/testutil/artifacttest"
	"github.com/slipway-build/slipway/internal/testutil/stack"
	"github.com/slipway-build/slipway/internal/vm"
)

const installerYAML = `kernel:
  image: slipwaybuild/kernel:v1
  cmdline: console=ttyS0 panic=-1
init:
  - slipwaybuild/init:v1
  - slipwaybuild/runc:v1
onboot:
  - name: dhcpcd
    image: slipwaybuild/dhcpcd:v1
    command: ["/sbin/dhcpcd", "--nobackground", "-f", "/dhcpcd.conf", "-1"]
  - name: installer
    image: slipwaybuild/installer:v1
    command: ["/usr/bin/installer", "/install/disk.raw"]
    binds.add: ["/install:/install:ro"]
files:
  - {path: install, directory: true, mode: "0755"}
  - {path: install/disk.raw, source: out/machine.raw, mode: "0444"}
`

// TestInstaller installs a machine from a CD, which asks for the disk, and from a
// registry, on a machine with two empty disks of which one is too small.
func TestInstaller(t *testing.T) {
	stack.Require(t)
	if !*bootAll {
		return // guest/installer has tests
	}
	dir := machineYAML(t, formatMachine("console=ttyS0 panic=-1"))
	build := func(file, target string, args ...string) {
		t.Helper()
		args = append([]string{"-f", file, "--platform=linux/amd64", "--target=" + target, "-o", "out", "."}, args...)
		if _, stderr, err := stack.Buildx(dir, args...); err != nil {
			t.Fatalf("build: %v\n%s", err, stderr)
		}
	}
	build("machine.yml", "raw", formatImages(t)["amd64"]...)
	if err := os.WriteFile(filepath.Join(dir, "installer.yml"), []byte("# syntax=slipwaybuild/slipway:1\n"+installerYAML), 0o644); err != nil {
		t.Fatal(err)
	}
	build("installer.yml", "kernel+initrd,iso")
	out := func(name string) string { return filepath.Join(dir, "out", name) }
	image, err := os.ReadFile(out("machine.raw"))
	if err != nil {
		t.Fatal(err)
	}

	// The registry of the stack, as the machine reaches it.
	pushed := artifacttest.Push(t, "oci://"+stack.Registry+"/test/installer:v1", "raw", map[string]string{"amd64": out("machine.raw")})
	inMachine := strings.Replace(pushed.String(), "localhost", "10.0.2.2", 1)

	small, large := filepath.Join(dir, "small"), filepath.Join(dir, "large")
	empty := func() {
		t.Helper()
		for file, size := range map[string]int64{small: 8 << 20, large: int64(len(image)) + 16<<20} {
			if err := os.RemoveAll(file); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(file, size); err != nil {
				t.Fatal(err)
			}
		}
	}
	start := func(t *testing.T, config vm.Config) (*vm.Machine, context.Context) {
		t.Helper()
		config.Memory, config.NoNetwork, config.LogDir = 1024, true, stack.Artifacts(t)
		m, err := vm.Start(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(m.Kill)
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
		t.Cleanup(cancel)
		return m, ctx
	}
	installer := func(t *testing.T, arguments string) (*vm.Machine, context.Context) {
		t.Helper()
		config := vm.Config{
			Data:      []vm.Drive{{File: small}, {File: large}},
			Arguments: []string{"-no-reboot", "-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile="},
		}
		if arguments == "" {
			config.CD = out("installer.iso")
		} else {
			config.Kernel, config.Initrd, config.Cmdline = out("installer-kernel"), out("installer-initrd.img"), "console=ttyS0 panic=-1 "+arguments
		}
		return start(t, config)
	}
	unchanged := func(t *testing.T, file string) {
		t.Helper()
		data, err := os.ReadFile(file)
		if err != nil || len(bytes.Trim(data, "\x00")) > 0 {
			t.Errorf("%s is not empty anymore: %v", filepath.Base(file), err)
		}
	}
	installed := func(t *testing.T) {
		t.Helper()
		unchanged(t, small)
		data, err := os.ReadFile(large)
		if err != nil || !bytes.Equal(data[:len(image)], image) {
			t.Fatalf("the disk differs from the image: %v", err)
		}
		m, ctx := start(t, vm.Config{Disk: large})
		if err := m.Wait(ctx); err != nil {
			t.Fatalf("%v\n%s", err, m.ConsoleTail(40))
		}
		reportOf(t, m)
	}
	wait := func(t *testing.T, m *vm.Machine, ctx context.Context, text string) {
		t.Helper()
		if _, err := m.WaitConsole(ctx, regexp.MustCompile(text)); err != nil {
			t.Fatalf("%v\n%s", err, m.ConsoleTail(40))
		}
	}

	t.Run("ask", func(t *testing.T) {
		empty()
		m, ctx := installer(t, "")
		wait(t, m, ctx, `-  /dev/vda, 8\.4 MB: it is too small`)
		wait(t, m, ctx, `Number of the disk \(1 to 1\): `)
		if err := m.Type("1\n"); err != nil {
			t.Fatal(err)
		}
		if err := m.Wait(ctx); err != nil { // ends with the reboot
			t.Fatalf("%v\n%s", err, m.ConsoleTail(40))
		}
		wait(t, m, ctx, `/dev/vdb has disk\.raw, sha256:[0-9a-f]{64}, verified`)
		installed(t)
	})
	t.Run("not empty", func(t *testing.T) {
		m, ctx := installer(t, "install.disk=/dev/vdb")
		wait(t, m, ctx, `nothing was written; add install\.overwrite`)
	})
	t.Run("too small", func(t *testing.T) {
		empty()
		m, ctx := installer(t, "install.disk=/dev/vda install.overwrite")
		wait(t, m, ctx, `it is too small: it has 8388608 bytes, and the image \d+: nothing was written`)
		unchanged(t, small)
		unchanged(t, large)
	})
	t.Run("registry", func(t *testing.T) {
		empty()
		m, ctx := installer(t, "install.disk=/dev/vdb install.then=poweroff install.image="+inMachine)
		if err := m.Wait(ctx); err != nil {
			t.Fatalf("%v\n%s", err, m.ConsoleTail(40))
		}
		installed(t)
	})
}
