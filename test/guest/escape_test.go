package guest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/internal/testutil/stack"
	"github.com/slipway-build/slipway/internal/vm"
)

// escapes are what works in the containers of the packages: see testdata/probe.
// What is not here must not work. docs/reference/packages.md describes it.
var escapes = map[string]string{
	"attest":        "",
	"dhcpcd":        "",
	"dm-crypt":      "disk userns mount remount",
	"docker":        "core_pattern sysrq userns mount",
	"enclaves":      "sys userns mount remount",
	"extend":        "userns mount remount",
	"format":        "userns mount remount",
	"getty":         "core_pattern sysrq machine userns mount",
	"kubelet":       "core_pattern sysrq machine userns mount",
	"installer":     "userns mount remount",
	"logship":       "",
	"logwrite":      "",
	"losetup":       "userns mount remount",
	"metadata":      "userns mount remount",
	"modprobe":      "",
	"mount":         "core_pattern sysrq userns mount",
	"chrony":        "",
	"nftables":      "",
	"nginx":         "",
	"node_exporter": "",
	"poweroff":      "",
	"rngd":          "userns mount remount",
	"sshd":          "machine userns mount remount",
	"swap":          "userns mount remount",
	"sysctl":        "core_pattern sysrq userns mount",
	"sysfs":         "core_pattern sysrq sys",
	"wireguard":     "",
}

// TestEscape runs a program in the container of every package that tries to
// leave it, and in those of an image without a label. The packages docker and
// kubelet, which take minutes to compile, require -boot.
func TestEscape(t *testing.T) {
	t.Parallel()
	stack.Require(t)
	dockerfiles, err := filepath.Glob("../../packages/*/Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	layout, dir := t.TempDir(), t.TempDir()
	gobuild := exec.Command("go", "build", "-o", filepath.Join(layout, "probe"), "./testdata/probe")
	gobuild.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+*architecture)
	if out, err := gobuild.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := os.WriteFile(filepath.Join(layout, "Dockerfile"), []byte("FROM scratch\nCOPY probe /probe\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	image := t.TempDir()
	stack.MustBuildx(t, layout, "--platform", "linux/"+*architecture, "-o", "type=oci,tar=false,dest="+image, ".")
	want := map[string]string{"plain": "core_pattern sysrq sys userns", "sandboxed": ""}
	yaml := `# syntax=slipwaybuild/slipway:1
# check=skip=all
kernel: {image: slipwaybuild/kernel:v1}
init: [slipwaybuild/init:v1, slipwaybuild/runc:v1, slipwaybuild/memlogd:v1]
volumes: [{name: probe, image: test/probe:v1}]
files: [{path: etc/dm-crypt, directory: true}, {path: etc/ssl/certs, directory: true}, {path: etc/wireguard, directory: true}, {path: etc/nftables.conf, contents: ""}]
onboot:
`
	add := func(name, image, keys string) {
		// Every container has the file /etc/hosts.
		yaml += fmt.Sprintf("  - {name: %s, image: %q, command: [/etc/hosts, %[1]s], binds.add: [/containers/volumes/probe/merged/probe:/etc/hosts:ro]%[3]s}\n", name, image, keys)
	}
	add("plain", "slipwaybuild/init:v1", "")
	add("sandboxed", "slipwaybuild/init:v1", ", annotations: {build.slipway.sandbox: default}")
	for _, file := range dockerfiles {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(filepath.Dir(file))
		if (name == "docker" || name == "kubelet") && !*bootAll {
			continue
		}
		if strings.Contains(string(text), "LABEL org.mobyproject.config=") {
			works, ok := escapes[name]
			if !ok {
				t.Errorf("what works in the package %s is unknown", name)
			}
			want[name] = works
			add(name, "slipwaybuild/"+name+":v1", "")
		}
	}
	yaml += "  - {name: over, image: slipwaybuild/poweroff:v1}\n"
	file := filepath.Join(dir, "escape.yml")
	if err := os.WriteFile(file, []byte(yaml), 0o644); err != nil {
		t.Fatal(err)
	}
	m := bootWith(t, build(t, file, "--build-context", "test/probe:v1=oci-layout://"+image), vm.Config{NoNetwork: true, Cmdline: "linuxkit.runc_console=1"})
	m.wait(t)
	console := strings.Split(string(m.console(t)), "\n")
	for name, works := range want {
		line := fmt.Sprintf("PROBE %s: %s.", name, works)
		if !slices.Contains(console, line) {
			t.Errorf("the console does not say %q", line)
		}
	}
}
