package vm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/slipway-build/slipway/internal/testutil/golden"
	"github.com/slipway-build/slipway/internal/testutil/need"
	"github.com/slipway-build/slipway/internal/vm/cloud"
)

// fakeFirmware makes findFirmware use descriptors of files in a directory.
func fakeFirmware(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	for _, f := range []struct {
		name, target, machine string
		features              []string
	}{
		{"40-x86-enrolled", "x86_64", "pc-q35-*", []string{"enrolled-keys", "requires-smm", "secure-boot"}},
		{"50-x86-secure", "x86_64", "pc-q35-*", []string{"requires-smm", "secure-boot"}},
		{"60-x86", "x86_64", "pc-q35-*", nil},
		{"60-arm", "aarch64", "virt-*", nil},
		{"70-x86-other", "x86_64", "pc-q35-*", nil},
	} {
		for _, part := range []string{"code", "vars"} {
			if err := os.WriteFile(filepath.Join(dir, f.name+"."+part), []byte(f.name), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		descriptor, err := json.Marshal(map[string]any{
			"interface-types": []string{"uefi"},
			"mapping": map[string]any{"device": "flash",
				"executable":     map[string]string{"filename": filepath.Join(dir, f.name+".code"), "format": "raw"},
				"nvram-template": map[string]string{"filename": filepath.Join(dir, f.name+".vars"), "format": "raw"}},
			"targets":  []any{map[string]any{"architecture": f.target, "machines": []string{f.machine}}},
			"features": f.features,
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, f.name+".json"), descriptor, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "10-damaged.json"), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	old := firmwareDirs
	firmwareDirs = func(string) []string { return []string{dir} }
	t.Cleanup(func() { firmwareDirs = old })
}

// TestArguments compares QEMU's arguments with golden files.
func TestArguments(t *testing.T) {
	fakeFirmware(t)
	dir := firmwareDirs("")[0]
	for name, config := range map[string]Config{
		"disk":   {Disk: "a,b.raw", Metadata: &cloud.Instance{}},
		"kernel": {Kernel: "kernel", Initrd: "initrd", Cmdline: "console=ttyS0 quiet", NoNetwork: true, Memory: 512, CPUs: 2, MemoryFile: "memory"},
		"everything": {Disk: "disk.qcow2", DiskFormat: "qcow2", Firmware: SecureBoot, Accelerator: KVM, Variables: "vars", TPM: "tpm",
			Data:     []Drive{{File: "data.raw", Serial: "data"}, {File: "other.raw"}},
			Forwards: []Forward{{Address: "127.0.0.1", Port: 8080, GuestPort: 80}, {Address: "0.0.0.0", Port: 53, GuestPort: 53, UDP: true}}},
		"arm64":     {Architecture: "arm64", Firmware: UEFI, CD: "cd.iso", TPM: "tpm"},
		"arm64-kvm": {Architecture: "arm64", Firmware: UEFI, Disk: "disk.raw", Accelerator: KVM},
		"microvm": {MicroVM: true, Kernel: "vmlinux", Initrd: "initrd", Cmdline: "console=ttyS0", Disk: "root.img", Metadata: &cloud.Instance{},
			Data: []Drive{{File: "data.raw", Serial: "data"}}},
		"microvm-arm64": {MicroVM: true, Architecture: "arm64", Kernel: "vmlinux", NoNetwork: true},
		"uefi":          {Firmware: UEFI, Disk: "disk.raw"},
	} {
		args, err := config.args(sockets{ssh: 2222, monitor: "/s/monitor", metadata: "/s/meta'data", tpm: "/s/tpm"})
		if err != nil {
			t.Fatal(err)
		}
		var lines strings.Builder
		for i, arg := range args {
			switch {
			case i > 0 && strings.HasPrefix(arg, "-"):
				lines.WriteByte('\n')
			case i > 0:
				lines.WriteByte(' ')
			}
			lines.WriteString(arg)
		}
		got := strings.ReplaceAll(strings.ReplaceAll(lines.String()+"\n", dir, "FIRMWARE"), os.Args[0], "PROGRAM")
		golden.Equal(t, filepath.Join("testdata", "arguments", name), got)
	}
}

func TestFirmware(t *testing.T) {
	fakeFirmware(t)
	for _, c := range []struct {
		architecture string
		kind         Firmware
		want         string // content of the firmware
	}{
		{"amd64", UEFI, "60-x86"},
		{"amd64", SecureBoot, "40-x86-enrolled"},
		{"amd64", OwnKeys, "50-x86-secure"},
		{"arm64", UEFI, "60-arm"},
		{"arm64", SecureBoot, ""},
	} {
		f, err := findFirmware(c.architecture, c.kind)
		if c.want == "" {
			var missing *MissingError
			if !errors.As(err, &missing) || !strings.Contains(err.Error(), "qemu-efi-aarch64") && !strings.Contains(err.Error(), "edk2") && !strings.Contains(err.Error(), "brew") {
				t.Errorf("%s, %s: error %v", c.architecture, c.kind, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(f.Mapping.Executable.Filename); err != nil || string(got) != c.want {
			t.Errorf("%s, %s: got %q, want %q: %v", c.architecture, c.kind, got, c.want, err)
		}
	}
}

// UEFI's variables are copied once, and then belong to the machine.
func TestVariables(t *testing.T) {
	fakeFirmware(t)
	c := Config{Firmware: UEFI, Variables: filepath.Join(t.TempDir(), "vars")}
	if err := c.createVariables(); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(c.Variables); err != nil || string(got) != "60-x86" {
		t.Fatalf("got %q: %v", got, err)
	}
	if err := os.WriteFile(c.Variables, []byte("changed"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.createVariables(); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(c.Variables); string(got) != "changed" {
		t.Errorf("the second start resets the variables to %q", got)
	}
}

func TestInstallHints(t *testing.T) {
	if runtime.GOOS != "linux" {
		need.Missing(t, "only Linux has an os-release")
	}
	p := Packages{"deb", "fed", "arc", "bre"}
	for release, want := range map[string]string{
		"NAME=x\nID=debian\n":                     "apt-get install deb",
		"ID=pop\nID_LIKE=\"ubuntu debian\"\n":     "apt-get install deb",
		"ID=\"rocky\"\nID_LIKE=\"rhel centos\"\n": "dnf install fed",
		"ID=arch\n":  "pacman -S arc",
		"ID=plan9\n": "install deb (Debian), fed (Fedora), arc (Arch) or bre (Homebrew)",
		"":           "install deb (Debian), fed (Fedora), arc (Arch) or bre (Homebrew)",
	} {
		if got := p.install(release); got != want {
			t.Errorf("%q: got %q, want %q", release, got, want)
		}
	}
}

func TestMissing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	for _, c := range []Config{{}, {Architecture: "arm64"}} {
		var missing *MissingError
		if err := c.Missing(); !errors.As(err, &missing) || !strings.Contains(err.Error(), "qemu-system") {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// TestProbe runs the tiny guest with emulation, and with programs that fail as
// accelerators do.
func TestProbe(t *testing.T) {
	need.Program(t, "qemu-system-x86_64", "qemu-system-x86")
	need.Program(t, "qemu-system-aarch64", "qemu-system-arm")
	path, dir := os.Getenv("PATH"), t.TempDir()
	for _, architecture := range []string{"amd64", "arm64"} {
		name := platforms[architecture].qemu
		program, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		// The guest says when it starts to count.
		script := fmt.Sprintf("#!/bin/sh\n%s \"$@\" >%s/output\nstatus=$?\ncat %[2]s/output\nexit $status\n", program, dir)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		t.Setenv("PATH", dir+":"+path)
		if err := probe(t.Context(), architecture, TCG); err != nil {
			t.Errorf("%s: %v", architecture, err)
		}
		if output, err := os.ReadFile(filepath.Join(dir, "output")); string(output) != "h" {
			t.Errorf("%s: the guest wrote %q, %v", architecture, output, err)
		}
		t.Setenv("PATH", path)
	}
	for script, want := range map[string]string{
		"echo could not access KVM >&2; exit 1": "could not access KVM",
		"exit 0":                                "QEMU failed",
		"exec sleep 100":                        "does not start within 3s",
		"echo h; exec sleep 100":                "it is slower than emulation",
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "qemu-system-x86_64"), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		t.Setenv("PATH", dir+":/bin:/usr/bin")
		begin := time.Now()
		if err := probe(t.Context(), "amd64", KVM); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", script, err)
		}
		if took := time.Since(begin); took > 3*startTimeout || strings.Contains(want, "slower") && took > startTimeout {
			t.Errorf("%q: took %v", script, took)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := probe(ctx, "amd64", TCG); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

func TestKVMDevice(t *testing.T) {
	if err := checkKVM(filepath.Join(t.TempDir(), "kvm")); err == nil || !strings.Contains(err.Error(), "enable virtualization") {
		t.Error(err)
	}
}

func TestExitStatus(t *testing.T) {
	for text, want := range map[string]int{
		"": 0,
		"[   12.34] exit status of the machine: 3\r\npoweroff now\r\n":                   3,
		"exit status of the machine: 7":                                                  7,
		"x exit status of the machine: 7\n":                                              0,
		"[ 1.00] exit status of the machine: 1\n[ 9.00] exit status of the machine: 0\n": 0,
	} {
		if got := exitStatus([]byte(text)); got != want {
			t.Errorf("%q: got %d, want %d", text, got, want)
		}
	}
}
