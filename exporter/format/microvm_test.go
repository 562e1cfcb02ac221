package format

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-build/slipway/exporter/segment"
	"github.com/slipway-build/slipway/internal/kernel/cmdline"
	compress "github.com/slipway-build/slipway/internal/testutil/packed"
)

// firecrackerSchema has the definitions that the configuration uses of
// src/firecracker/swagger/firecracker.yaml, Firecracker 1.17, as keys with their
// types. The keys that "required" lists there end in "!"; of a drive these are also
// the keys that the description of virtio-block requires.
var firecrackerSchema = map[string]map[string]any{
	"FullVmConfiguration": {
		"balloon": "Balloon", "drives": "[]Drive", "boot-source": "BootSource", "cpu-config": "CpuConfig", "logger": "Logger",
		"machine-config": "MachineConfiguration", "metrics": "Metrics", "memory-hotplug": "MemoryHotplugConfig", "mmds-config": "MmdsConfig",
		"network-interfaces": "[]NetworkInterface", "pmem": "[]Pmem", "vsock": "Vsock", "entropy": "EntropyDevice",
	},
	"BootSource": {"boot_args": "", "initrd_path": "", "kernel_image_path!": ""},
	"Drive": {
		"drive_id!": "", "partuuid": "", "is_root_device!": true, "cache_type": "", "is_read_only!": true, "path_on_host!": "",
		"rate_limiter": "RateLimiter", "io_engine": "", "socket": "",
	},
	"MachineConfiguration": {
		"cpu_template": "", "smt": true, "mem_size_mib!": 0.0, "track_dirty_pages": true, "vcpu_count!": 0.0, "huge_pages": "",
	},
}

// checkSchema checks a JSON object against a definition of firecrackerSchema.
func checkSchema(t *testing.T, at, definition string, object map[string]any) {
	t.Helper()
	keys, ok := firecrackerSchema[definition]
	if !ok {
		t.Errorf("%s: add %s to firecrackerSchema", at, definition)
		return
	}
	for key, kind := range keys {
		name, required := strings.CutSuffix(key, "!")
		value, present := object[name]
		at := at + "." + name
		if !present {
			if required {
				t.Errorf("%s is required", at)
			}
			continue
		}
		switch list, isList := strings.CutPrefix(typeName(kind), "[]"); {
		case isList:
			for _, element := range value.([]any) {
				checkSchema(t, at, list, element.(map[string]any))
			}
		case list != "":
			checkSchema(t, at, list, value.(map[string]any))
		case reflect.TypeOf(value) != reflect.TypeOf(kind):
			t.Errorf("%s is %v, want a %T", at, value, kind)
		}
	}
	for name := range object {
		if keys[name] == nil && keys[name+"!"] == nil {
			t.Errorf("%s.%s: %s does not have this key", at, name, definition)
		}
	}
}

// typeName returns the name of a definition, or "" for a value of a simple type.
func typeName(kind any) string {
	name, _ := kind.(string)
	return name
}

// microVMFiles writes a format, and returns its files by suffix.
func microVMFiles(t *testing.T, name string, in Input) map[string]string {
	t.Helper()
	files, err := Write(name, in, t.TempDir(), func(w string) { t.Error(w) })
	if err != nil {
		t.Fatal(err)
	}
	bySuffix := map[string]string{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		bySuffix[strings.TrimPrefix(filepath.Base(file), in.Name)] = string(data)
	}
	return bySuffix
}

// TestMicroVM checks the configurations of hypervisors: that of Firecracker by its
// schema, and that both name the files that the format wrote.
func TestMicroVM(t *testing.T) {
	for name, test := range map[string]struct {
		files  []string
		drives int
		disk   string
	}{
		"microvm":       {files: []string{"-cloud-hypervisor.sh", "-cmdline", "-firecracker.json", "-initrd.img", "-vmlinux"}},
		"microvm+erofs": {files: []string{"-cloud-hypervisor.sh", "-cmdline", "-erofs.img", "-firecracker.json", "-vmlinux"}, drives: 1, disk: "path=it's-erofs.img,readonly=on"},
	} {
		t.Run(name, func(t *testing.T) {
			f, _ := Lookup(name)
			in := input(t, f.Segments)
			in.Name, in.Cmdline = "it's", `panic=9 a="b c" -- x=y`
			if err := os.WriteFile(in.Kernel, compress.Gzip(t, armKernel()), 0o644); err != nil {
				t.Fatal(err)
			}
			in.Architecture = "arm64"
			files := microVMFiles(t, name, in)
			if got := slices.Sorted(maps.Keys(files)); !slices.Equal(got, test.files) {
				t.Errorf("files %q, want %q", got, test.files)
			}
			if files["-vmlinux"] != string(armKernel()) {
				t.Errorf("the kernel is not uncompressed: %.20q", files["-vmlinux"])
			}

			var config map[string]any
			if err := json.Unmarshal([]byte(files["-firecracker.json"]), &config); err != nil {
				t.Fatal(err)
			}
			checkSchema(t, "config", "FullVmConfiguration", config)
			boot := config["boot-source"].(map[string]any)
			const args = `console=ttyS0 reboot=k pci=off slipway.poweroff=reboot panic=9 a="b c" -- x=y`
			if boot["boot_args"] != args || boot["kernel_image_path"] != "it's-vmlinux" {
				t.Errorf("Firecracker boots %q, want %s", boot, args)
			}
			if drives := config["drives"].([]any); len(drives) != test.drives {
				t.Errorf("drives %v, want %d", drives, test.drives)
			}

			got := cloudHypervisorArgs(t, files["-cloud-hypervisor.sh"], "--net", "tap=tap0")
			want := []string{"--cpus", "boot=1", "--memory", "size=256M", "--kernel", "it's-vmlinux"}
			line := `console=ttyAMA0 panic=9 a="b c" -- x=y`
			if test.disk == "" {
				want = append(want, "--initramfs", "it's-initrd.img")
			} else {
				want = append(want, "--disk", test.disk)
				line = "root=/dev/vda " + line
			}
			want = append(want, "--cmdline", line, "--serial", "tty", "--console", "off", "--net", "tap=tap0")
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("arguments of Cloud Hypervisor (-want +got):\n%s", diff)
			}
		})
	}
}

// armKernel returns the start of a kernel for arm64.
func armKernel() []byte {
	k := make([]byte, 64)
	copy(k, "MZ")
	copy(k[56:], "ARM\x64")
	return k
}

// cloudHypervisorArgs runs the script, and returns the arguments with which it
// starts Cloud Hypervisor.
func cloudHypervisorArgs(t *testing.T, script string, args ...string) []string {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "run.sh")
	for name, contents := range map[string]string{path: script, filepath.Join(dir, "cloud-hypervisor"): "#!/bin/sh\nprintf '%s\\n' \"$@\"\n"} {
		if err := os.WriteFile(name, []byte(contents), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("sh", append([]string{path}, args...)...)
	cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
}

func TestMicroVMWithoutKernel(t *testing.T) {
	in := input(t, segment.CPIO)
	in.Kernel = ""
	const want = "microvm: a microVM needs a kernel: set kernel.image in the machine"
	if _, err := Write("microvm", in, t.TempDir(), nil); err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

// TestAddArgs checks that the machine's own arguments have precedence.
func TestAddArgs(t *testing.T) {
	for line, want := range map[string]string{
		"":                 "reboot=k quiet",
		"reboot=t":         "quiet reboot=t",
		`x="a b" quiet`:    `reboot=k x="a b" quiet`,
		"-- quiet reboot=": "-- quiet reboot=",
	} {
		if got := addArgs(line, "reboot=k quiet"); got != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
		if got := cmdline.Parse(addArgs(line, "reboot=k quiet")); len(got) < 2 {
			t.Errorf("%q: %q", line, got)
		}
	}
}

func TestGuestMemory(t *testing.T) {
	for _, test := range []struct{ kernel, initrd, want int64 }{
		{0, 0, 256}, {40 << 20, 20 << 20, 256}, {40 << 20, 60 << 20, 640},
	} {
		if got := guestMemory(test.kernel, test.initrd); got != test.want {
			t.Errorf("memory for a kernel of %d and an initramfs of %d bytes: %d MiB, want %d", test.kernel, test.initrd, got, test.want)
		}
	}
}
