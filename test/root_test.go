package test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/slipway-build/slipway/exporter/format"
	"github.com/slipway-build/slipway/exporter/verity"
	"github.com/slipway-build/slipway/internal/contract"
	"github.com/slipway-build/slipway/internal/image"
	"github.com/slipway-build/slipway/internal/testutil/stack"
	"github.com/slipway-build/slipway/internal/vm"
)

// rootMachine reports where its root filesystem is and that it is read-only,
// while a container with a writable root can write. Then it powers off.
const rootMachine = `kernel:
  image: slipwaybuild/kernel:v1
  cmdline: CONSOLE panic=-1
init:
  - slipwaybuild/init:v1
  - slipwaybuild/runc:v1
onboot:
  - name: writable
    image: slipwaybuild/init:v1
    command: [/bin/sh, -c, touch /x && ls /x]
  - name: report
    image: slipwaybuild/init:v1
    capabilities: [all]
    pid: host
    devices:
      - {path: all, type: a}
    binds: ["/dev:/dev"]
    command:
      - /bin/sh
      - -c
      - |
        (
          grep ' / ' /proc/1/mounts
          nsenter -t 1 -m touch /x 2>&1
          cat /proc/cmdline
        ) | sed 's/^/REPORT /' >/dev/console
        nsenter -t 1 -m poweroff
`

// A rootBoot is one way in which a format boots whose root filesystem is on a
// disk.
type rootBoot struct {
	architecture string
	format       string
	firmware     vm.Firmware // "": QEMU loads the kernel itself
	root         string      // start of its line in /proc/mounts
	cmdline      string
	always       bool // boots without -boot too; never for arm64, whose packages only make test-boot builds
}

var rootBoots = []rootBoot{
	{"amd64", "kernel+squashfs", "", "/dev/nvme0n1 / squashfs ro,", "CONSOLE panic=-1", false},
	{"amd64", "kernel+erofs", "", "/dev/nvme0n1 / erofs ro,", "CONSOLE panic=-1", true},
	{"amd64", "kernel+iso", "", "/dev/nvme0n1 / iso9660 ro,", "CONSOLE panic=-1", false},
	{"amd64", "iso-bios", vm.BIOS, "/dev/sr0 / iso9660 ro,", "BOOT_IMAGE=/boot/kernel root=/dev/sr0 CONSOLE panic=-1", true},
	{"amd64", "iso-efi", vm.UEFI, "/dev/sr0 / iso9660 ro,", `initrd=\initrd.img root=/dev/sr0 CONSOLE panic=-1`, true},
	{"amd64", "raw-verity", vm.UEFI, "/dev/dm-0 / erofs ro,", "roothash=HASH CONSOLE panic=-1", false},
	{"arm64", "kernel+squashfs", "", "/dev/nvme0n1 / squashfs ro,", "CONSOLE panic=-1", false},
	{"arm64", "kernel+erofs", "", "/dev/nvme0n1 / erofs ro,", "CONSOLE panic=-1", false},
	{"arm64", "kernel+iso", "", "/dev/nvme0n1 / iso9660 ro,", "CONSOLE panic=-1", false},
	{"arm64", "raw-verity", vm.UEFI, "/dev/dm-0 / erofs ro,", "roothash=HASH CONSOLE panic=-1", false},
	{"arm64", "iso-efi", vm.UEFI, "/dev/vda / iso9660 ro,", `initrd=\initrd.img root=/dev/vda CONSOLE panic=-1`, false},
}

// TestRootFilesystems boots from root filesystems on disks and CDs, for which
// the kernel must load modules.
func TestRootFilesystems(t *testing.T) {
	stack.Require(t)
	for _, b := range rootBoots {
		if !*bootAll && !b.always {
			continue
		}
		t.Run(b.architecture+" "+b.format, b.boot)
	}
}

func (b rootBoot) boot(t *testing.T) {
	dir := machineYAML(t, strings.Replace(rootMachine, "CONSOLE", vm.Consoles[b.architecture], 1))
	if _, stderr, err := stack.Buildx(dir, "-f", "machine.yml", "--platform=linux/"+b.architecture, "--target="+b.format, "-o", "out", "."); err != nil {
		t.Fatalf("build: %v\n%s", err, stderr)
	}
	f, _ := format.Lookup(b.format)
	files := outputFiles(t, f, filepath.Join(dir, "out"))
	config := vm.Config{Architecture: b.architecture, Firmware: b.firmware, Memory: 512, NoNetwork: true, LogDir: stack.Artifacts(t)}
	switch {
	case strings.HasPrefix(b.format, "kernel+"):
		cmdline, err := os.ReadFile(files[2])
		if err != nil {
			t.Fatal(err)
		}
		config.Kernel, config.Initrd, config.Cmdline, config.Disk = files[0], files[1], string(cmdline), files[3]
	case b.format == "raw-verity":
		config.Disk = files[0]
		b.cmdline = strings.Replace(b.cmdline, "HASH", openVerity(t, files[0]).Verity().RootHash, 1)
	case b.architecture == "arm64":
		config.Data = []vm.Drive{{File: files[0]}} // as LinuxKit attaches it: a disk on virtio
	default:
		config.CD = files[0]
	}
	console := runToEnd(t, config).ConsoleTail(60)
	for _, line := range []string{
		"REPORT " + b.root,
		"REPORT touch: /x: Read-only file system",
		"REPORT " + strings.Replace(b.cmdline, "CONSOLE", vm.Consoles[b.architecture], 1),
	} {
		if !strings.Contains(console, line) {
			t.Errorf("the console does not say %q", line)
		}
	}
	if !regexp.MustCompile(`onboot 000-writable: done in [\d.]+ s, exit 0`).MatchString(console) {
		t.Error("the container with a writable root failed")
	}
	if t.Failed() {
		t.Log(console)
	}
}

// openVerity opens a disk whose root filesystem belongs to its root hash.
func openVerity(t *testing.T, name string) *image.Image {
	t.Helper()
	i, err := image.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { i.Close() })
	if v := i.Verity(); v == nil || !v.Matches {
		t.Fatalf("%s: %+v", name, v)
	}
	return i
}

// TestVerityTampered boots disks with a changed byte in what dm-verity verifies. The
// boot must stop with a message that says so.
func TestVerityTampered(t *testing.T) {
	if !*bootAll {
		t.Skip("boots machines: run make test-boot")
	}
	stack.Require(t)
	dir := machineYAML(t, strings.Replace(rootMachine, "CONSOLE", vm.Consoles["amd64"], 1))
	if _, stderr, err := stack.Buildx(dir, "-f", "machine.yml", "--platform=linux/amd64", "--target=raw-verity", "-o", "out", "."); err != nil {
		t.Fatalf("build: %v\n%s", err, stderr)
	}
	disk := filepath.Join(dir, "out", "machine-verity.img")
	i := openVerity(t, disk)
	root, tree := i.Partitions[1], i.Partitions[2]
	content, err := os.ReadFile(disk)
	if err != nil {
		t.Fatal(err)
	}
	// Programs are stored as they are, so that this finds the init in the root.
	init := root.Start + int64(bytes.Index(content[root.Start:], []byte(contract.StartupMarker)))
	const panicked = "Kernel panic - not syncing: dm-verity device corrupted"
	for name, test := range map[string]struct {
		at   int64
		want []string
	}{
		"file system": {root.Start + 1024, []string{"data block 0 is corrupted", panicked}},
		"init":        {init, []string{fmt.Sprintf("data block %d is corrupted", (init-root.Start)/verity.BlockSize), panicked}},
		"root of the tree": {tree.Start + verity.BlockSize, []string{
			"init: /dev/nvme0n1p3: dm-verity hash mismatch: the root hash of the tree is ", ": the disk was changed or is damaged"}},
		"leaf of the tree": {tree.Start + 2*verity.BlockSize, []string{"metadata block 2 is corrupted", panicked}},
		"superblock":       {tree.Start, []string{"init: /dev/nvme0n1p3: unsupported dm-verity superblock: the signature is missing: the disk was changed or is damaged"}},
	} {
		t.Run(name, func(t *testing.T) {
			changed := bytes.Clone(content)
			changed[test.at] ^= 1
			file := filepath.Join(t.TempDir(), "changed.img")
			if err := os.WriteFile(file, changed, 0o644); err != nil {
				t.Fatal(err)
			}
			config := vm.Config{Architecture: "amd64", Firmware: vm.UEFI, Disk: file, Memory: 512, NoNetwork: true, LogDir: stack.Artifacts(t)}
			machine, err := vm.Start(t.Context(), config)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(machine.Kill)
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			if err := machine.Wait(ctx); err == nil || !strings.Contains(err.Error(), "its kernel panicked") {
				t.Errorf("the machine ended with: %v", err)
			}
			console := machine.ConsoleTail(200)
			for _, text := range test.want {
				if !strings.Contains(console, text) {
					t.Errorf("the console does not say %q:\n%s", text, console)
				}
			}
			if strings.Contains(console, "REPORT") {
				t.Errorf("the machine started:\n%s", console)
			}
		})
	}
}

// The format docker is a valid image with the machine's init as its entry
// point, and its programs run.
func TestDockerFormat(t *testing.T) {
	stack.Require(t)
	dir := machineYAML(t, rootMachine)
	if _, stderr, err := stack.Buildx(dir, "-f", "machine.yml", "--target=docker", "--provenance=false", "-o", "type=oci,tar=false,dest=image", "."); err != nil {
		t.Fatalf("build: %v\n%s", err, stderr)
	}
	index, err := layout.ImageIndexFromPath(filepath.Join(dir, "image"))
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(index); err != nil {
		t.Error(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil || len(manifest.Manifests) != 1 {
		t.Fatalf("manifests %+v, %v", manifest, err)
	}
	digest := manifest.Manifests[0].Digest
	image, err := index.Image(digest)
	if err != nil {
		t.Fatal(err)
	}
	if config, err := image.ConfigFile(); err != nil || !slices.Equal(config.Config.Entrypoint, []string{"/sbin/init"}) {
		t.Errorf("configuration %+v, %v", config, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM machine AS run\nRUN [ -x /sbin/init ] && [ -d /containers/onboot ] && ls -n /bin/busybox >/listed\nFROM scratch\nCOPY --from=run /listed /\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, stderr, err := stack.Buildx(dir, "--build-context", "machine=oci-layout://"+filepath.Join(dir, "image")+"@"+digest.String(), "-o", "ran", "."); err != nil {
		t.Errorf("run a program of the image: %v\n%s", err, stderr)
	}
	if listed, err := os.ReadFile(filepath.Join(dir, "ran", "listed")); err != nil || !strings.Contains(string(listed), " 0        0 ") {
		t.Errorf("busybox: %s, %v", listed, err)
	}
}
