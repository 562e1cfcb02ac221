package bundle

import (
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestSeccomp(t *testing.T) {
	dir := t.TempDir()
	open := func(name, config string) *Bundle {
		b := &Bundle{Dir: filepath.Join(dir, name), Name: name}
		if err := os.Mkdir(b.Dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(b.config(), []byte(config), 0o644); err != nil {
			t.Fatal(err)
		}
		return b
	}
	const plain = `{"root": {"path": "rootfs"}, "linux": {"x-later": 1}}`
	const asks = `{"root": {"path": "rootfs"}, "linux": {"x-later": 1}, "annotations": {"build.slipway.seccomp": "default"},
		"process": {"capabilities": {"bounding": ["CAP_SYS_TIME"]}}}`
	b := open("plain", plain)
	if got, err := b.Materialize(t.TempDir()); got != b.Dir || err != nil {
		t.Errorf("a bundle that needs no profile: %s, %v", got, err)
	}
	b = open("asks", asks)
	got, err := b.Materialize(filepath.Join(dir, "run"))
	if want := filepath.Join(dir, "run", "asks"); got != want || err != nil {
		t.Fatalf("%s, %v, want %s", got, err, want)
	}
	text, err := os.ReadFile(filepath.Join(got, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	var spec specs.Spec
	var raw struct{ Linux map[string]any }
	if err := json.Unmarshal(text, &spec); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &raw); err != nil || raw.Linux["x-later"] == nil {
		t.Errorf("an unknown member is lost: %v, %v", raw.Linux["x-later"], err)
	}
	if want := filepath.Join(b.Dir, "rootfs"); spec.Root.Path != want {
		t.Errorf("the root is %s, want %s", spec.Root.Path, want)
	}
	allowed := func(call string) bool {
		return slices.ContainsFunc(spec.Linux.Seccomp.Syscalls, func(s specs.LinuxSyscall) bool {
			return s.Action == specs.ActAllow && slices.Contains(s.Names, call)
		})
	}
	if spec.Linux.Seccomp.DefaultAction != specs.ActErrno {
		t.Errorf("other calls: %s", spec.Linux.Seccomp.DefaultAction)
	}
	if slices.Contains(spec.Linux.Seccomp.Architectures, specs.ArchX32) {
		t.Error("the filter has the calls of x32")
	}
	if runtime.GOARCH == "amd64" && !slices.Contains(spec.Linux.Seccomp.Architectures, specs.ArchX86) {
		t.Error("the filter forbids 32-bit programs")
	}
	for call, want := range map[string]bool{"read": true, "settimeofday": true, "bpf": false, "kexec_load": false, "init_module": false} {
		if allowed(call) != want {
			t.Errorf("%s is allowed: %v", call, !want)
		}
	}
}
