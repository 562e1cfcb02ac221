package guest

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/moby/sys/capability"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/slipway-build/slipway/internal/testutil/stack"
)

// TestContainer runs a machine as a privileged container of this host, like
// docker run --privileged with the format docker.
func TestContainer(t *testing.T) {
	t.Parallel()
	stack.Require(t)
	dir := t.TempDir()
	stack.MustBuildx(t, ".", "-f", "testdata/container.yml", "--target", "docker", "-o", filepath.Join(dir, "rootfs"), "testdata")
	command := func(args ...string) *exec.Cmd {
		cmd := exec.Command("runc", append([]string{"--root", filepath.Join(dir, "state")}, args...)...)
		cmd.Dir = dir
		return cmd
	}
	runc := func(args ...string) string {
		t.Helper()
		out, err := command(args...).CombinedOutput()
		if err != nil {
			t.Errorf("runc %q: %v", args, err)
		}
		return string(out)
	}
	runc("spec")
	makePrivileged(t, filepath.Join(dir, "config.json"))

	// The name is unique, because runc names cgroups after it.
	name := strings.ToLower(t.Name()) + filepath.Base(filepath.Dir(dir))
	var console bytes.Buffer
	machine := command("run", name)
	machine.Stdout, machine.Stderr = &console, &console
	if err := machine.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			command("delete", "--force", name).Run()
			t.Log(console.String())
		}
	})
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		out, _ := command("exec", name, "service", "list").Output()
		if strings.Contains(string(out), "running") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("no service runs: %s", out)
		}
	}
	report := runc("exec", name, "sh", "-c", "touch /x; cat /var/log/onboot/000-hello.out.log; cat /proc/1/comm")
	for _, want := range []string{"/x: Read-only file system", "hello", "init"} {
		if !strings.Contains(report, want) {
			t.Errorf("the machine reports %q, without %q", report, want)
		}
	}
	runc("exec", name, "poweroff")
	machine.Wait() // fails: the init exits by a signal
	for _, line := range []string{
		`slipway init`,
		`onboot 000-hello: done in [\d.]+ s, exit 0`,
		`service web: started in [\d.]+ s`,
		`machine is up, services started: 1`,
		`service web: stopped: ended, exit 0`,
		`poweroff now`,
	} {
		if !regexp.MustCompile(`(?m)^\[ *\d+\.\d\d\] ` + line + `$`).MatchString(console.String()) {
			t.Errorf("the machine does not say %q", line)
		}
	}
	if strings.Contains(console.String(), "file exists") || strings.Contains(console.String(), "busy") {
		t.Error("the init mounts what the container already has")
	}
}

// makePrivileged changes a config.json so that the container has all privileges
// of this process.
func makePrivileged(t *testing.T, file string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var spec specs.Spec
	if err := json.Unmarshal(text, &spec); err != nil {
		t.Fatal(err)
	}
	own, err := capability.NewPid2(0)
	if err == nil {
		err = own.Load()
	}
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, c := range capability.ListKnown() {
		// Debian 12's runc does not support later capabilities.
		if own.Get(capability.EFFECTIVE, c) && c <= capability.CAP_AUDIT_READ {
			all = append(all, "CAP_"+strings.ToUpper(c.String()))
		}
	}
	spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: all, Effective: all, Permitted: all}
	spec.Process.Args = []string{"/sbin/init"}
	spec.Process.Terminal, spec.Process.NoNewPrivileges = false, false
	spec.Root.Readonly = false
	spec.Linux.MaskedPaths, spec.Linux.ReadonlyPaths = nil, nil
	spec.Linux.Resources = &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}}
	spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	if text, err = json.Marshal(spec); err == nil {
		err = os.WriteFile(file, text, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}
