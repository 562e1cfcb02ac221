package test

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/exporter/format"
	"github.com/slipway-build/slipway/internal/testutil/stack"
	"github.com/slipway-build/slipway/internal/vm"
)

// customizedMachine reports its command line and its user data, and powers off.
const customizedMachine = `kernel:
  image: slipwaybuild/kernel:v1
  cmdline: console=ttyS0 panic=-1
init:
  - slipwaybuild/init:v1
  - slipwaybuild/runc:v1
onboot:
  - name: metadata
    image: slipwaybuild/metadata:v1
  - name: report
    image: slipwaybuild/init:v1
    capabilities: [all]
    pid: host
    devices:
      - {path: all, type: a}
    binds: ["/dev:/dev", "/run/config:/run/config"]
    command:
      - /bin/sh
      - -c
      - |
        cat /proc/cmdline /run/config/userdata | sed 's/^/REPORT /' >/dev/console
        nsenter -t 1 -m poweroff
`

// TestCustomize fills images of each kind after the build, boots them, and
// restores their digests.
func TestCustomize(t *testing.T) {
	if !*bootAll {
		t.Skip("with -boot only: takes minutes")
	}
	stack.Require(t)
	program := filepath.Join(t.TempDir(), "slipway")
	if out, err := exec.Command("go", "build", "-o", program, "../cmd/slipway").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	dir := machineYAML(t, customizedMachine)
	write(t, dir, map[string]string{"data": "user data of m-17\n"})
	for _, b := range []struct {
		format   string
		firmware vm.Firmware
	}{{"raw", vm.BIOS}, {"raw", vm.UEFI}, {"raw-efi", vm.UEFI}, {"uki", vm.UEFI}, {"iso", vm.BIOS}, {"iso", vm.UEFI}, {"iso-bios", vm.BIOS}, {"iso-efi", vm.UEFI}} {
		t.Run(fmt.Sprintf("%s %s", b.format, b.firmware), func(t *testing.T) {
			out := t.TempDir()
			if _, stderr, err := stack.Buildx(dir, "-f", "machine.yml", "--platform=linux/amd64", "--target="+b.format, "--build-arg=RESERVE=4K", "-o", out, "."); err != nil {
				t.Fatalf("build: %v\n%s", err, stderr)
			}
			f, _ := format.Lookup(b.format)
			image := outputFiles(t, f, out)[0]
			before := digestOf(t, image)
			customize := func(args ...string) {
				t.Helper()
				if text, err := exec.Command(program, append(append([]string{"customize"}, args...), image)...).CombinedOutput(); err != nil {
					t.Fatalf("customize: %v\n%s", err, text)
				}
			}
			customize("--cmdline", "worker=m-17 facility=lab", "--user-data", filepath.Join(dir, "data"))
			config := vm.Config{Firmware: b.firmware, Memory: 512, NoNetwork: true, LogDir: stack.Artifacts(t)}
			switch {
			case b.format == "uki":
				config.Disk = systemPartition(t, image, "amd64")
			case strings.HasPrefix(b.format, "iso"):
				config.CD = image
			default:
				config.Disk = image
			}
			console := runToEnd(t, config).ConsoleTail(60)
			for _, want := range []string{"console=ttyS0 panic=-1 worker=m-17 facility=lab", "REPORT user data of m-17"} {
				if !strings.Contains(console, want) {
					t.Errorf("the console does not say %q:\n%s", want, console)
				}
			}
			customize("--restore")
			if after := digestOf(t, image); after != before {
				t.Errorf("the restored image has the digest %s, want %s", after, before)
			}
		})
	}
}

func digestOf(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("sha256:%x", sha256.Sum256(data))
}
