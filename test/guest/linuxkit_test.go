package guest

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/slipway-build/slipway/internal/vm"
	"github.com/slipway-build/slipway/internal/vm/cloud"
)

var linuxKitImages = flag.String("linuxkit-images", os.Getenv("LINUXKIT_IMAGES"), "`folder` with OCI layouts of LinuxKit's images")

// linuxKitContexts returns the arguments of docker buildx for the images of
// LinuxKit with the given names, which take the place of PREFIX NAME:v1 in a
// machine. The folder in LINUXKIT_IMAGES has each as the OCI layout NAME, for
// example init, with one image for amd64. Without the variable, it returns nil.
func linuxKitContexts(t testing.TB, prefix string, names ...string) []string {
	t.Helper()
	if *linuxKitImages == "" {
		return nil
	}
	dir, err := filepath.Abs(*linuxKitImages)
	if err != nil {
		t.Fatal(err)
	}
	var args []string
	for _, name := range names {
		layout := filepath.Join(dir, name)
		if _, err := os.Stat(filepath.Join(layout, "index.json")); err != nil {
			t.Fatalf("LINUXKIT_IMAGES: %v", err)
		}
		args = append(args, "--build-context", prefix+name+":v1=oci-layout://"+layout)
	}
	return args
}

// TestLinuxKitImages boots LinuxKit's own init, runc and containerd with
// Slipway's packages, and Slipway's with LinuxKit's own packages.
// TestLinuxKitPackages needs no images of LinuxKit.
func TestLinuxKitImages(t *testing.T) {
	if !*bootAll {
		t.Skip("boots two machines: make test-boot does, with LINUXKIT_IMAGES")
	}
	if *linuxKitImages == "" {
		t.Skip("set LINUXKIT_IMAGES to a folder with OCI layouts of LinuxKit's images: init, runc, containerd, sysctl, dhcpcd, getty, rngd")
	}
	// QEMU's default processor lacks the instruction RDRAND, which LinuxKit's rngd requires.
	processor := []string{"-cpu", "max"}

	t.Run("init", func(t *testing.T) {
		t.Parallel()
		dir := build(t, "linuxkit-init.yml", linuxKitContexts(t, "linuxkit/", "init", "runc", "containerd")...)
		key, err := vm.NewKey(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		m := bootWith(t, dir, vm.Config{Metadata: &cloud.Instance{ID: "i-0123456789abcdef0", Hostname: "both", PublicKeys: []string{key.Public}}})
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
		defer cancel()
		if _, err := m.WaitSSH(ctx, key); err != nil {
			t.Fatal(err)
		}
		m.says(t, `Welcome to LinuxKit`, `onboot 000-sysctl: from /containers/onboot/000-sysctl`)
		m.runs(t, key, "hostname", "both\n")
		m.runs(t, key, "cat /proc/sys/kernel/kptr_restrict", "2\n")
		m.runs(t, key, "cat /proc/[0-9]*/comm | grep -c '^rngd$'", "1\n")
	})

	t.Run("packages", func(t *testing.T) {
		t.Parallel()
		dir := build(t, "linuxkit-packages.yml", linuxKitContexts(t, "linuxkit/", "sysctl", "dhcpcd", "getty", "rngd")...)
		m := bootWith(t, dir, vm.Config{Arguments: processor})
		m.await(t, `machine is up`)
		m.await(t, `[/~] # `)
		m.typeLine(t, "ctr -n services.linuxkit tasks ls | awk '{print \"REPORT\", $1, $3}'; echo REPORT $(cat /proc/sys/kernel/kptr_restrict) $(ip -4 -o address show dev eth0 | wc -l)")
		m.await(t, `REPORT \d \d`)
		m.says(t,
			`onboot 000-sysctl: done in [\d.]+ s, exit 0`,
			`onboot 001-dhcpcd: done in [\d.]+ s, exit 0`,
			`machine is up, services started: 2`,
			`REPORT getty RUNNING`,
			`REPORT rngd RUNNING`,
			`REPORT 2 1`,
		)
	})
}
