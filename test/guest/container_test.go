package guest

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/sys/capability"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/slipway-build/slipway/internal/testutil/stack"
	"github.com/slipway-build/slipway/internal/vm"
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
	makePrivileged(t, filepath.Join(dir, "config.json"), func(spec *specs.Spec) {})

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
	report := runc("exec", name, "sh", "-c", "touch /x; cat /var/log/onboot/onboot.000-hello.out.log; cat /proc/1/comm")
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
	if strings.Contains(console.String(), "not permitted") {
		t.Error("the machine does what the container may not")
	}
	if strings.Contains(console.String(), "file exists") || strings.Contains(console.String(), "busy") {
		t.Error("the init mounts what the container already has")
	}
}

// TestContainerHosts runs that container on hosts with cgroups of version 1, of
// version 2 and of both, and without CAP_SYS_RESOURCE. The hosts are machines
// themselves, which find the container on a disk.
func TestContainerHosts(t *testing.T) {
	t.Parallel()
	stack.Require(t)
	dir, disk := t.TempDir(), filepath.Join(t.TempDir(), "disk")
	stack.MustBuildx(t, ".", "-f", "testdata/container.yml", "--target", "docker", "-o", filepath.Join(dir, "rootfs"), "testdata")
	for name, change := range map[string]func(*specs.LinuxCapabilities){
		"full": func(*specs.LinuxCapabilities) {},
		"poor": func(c *specs.LinuxCapabilities) {
			for _, set := range []*[]string{&c.Bounding, &c.Effective, &c.Permitted} {
				*set = slices.DeleteFunc(slices.Clone(*set), func(name string) bool { return name == "CAP_SYS_RESOURCE" })
			}
		},
	} {
		bundle := filepath.Join(dir, name)
		if err := os.Mkdir(bundle, 0o755); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("runc", "spec", "--bundle", bundle).CombinedOutput(); err != nil {
			t.Fatalf("runc spec: %v\n%s", err, out)
		}
		makePrivileged(t, filepath.Join(bundle, "config.json"), func(spec *specs.Spec) {
			spec.Root.Path = "/run/disk/rootfs"
			spec.Linux.CgroupsPath = "/" + name
			spec.Process.Capabilities = allCapabilities(t, func(capability.Cap) bool { return true })
			change(spec.Process.Capabilities)
		})
	}
	if out, err := exec.Command("mke2fs", "-q", "-t", "ext4", "-d", dir, disk, "256M").CombinedOutput(); err != nil {
		t.Fatalf("mke2fs: %v\n%s", err, out)
	}
	host := build(t, "container-host.yml")
	for name, want := range map[string][]string{
		"v1": {
			// The init reads the command line of the host.
			`REPORT v1/full: hello -800 500000`,
		},
		"v2": {
			`REPORT v2/full: hello -800 500000 0::/init cpuset cpu io memory hugetlb pids rdma misc`,
			`REPORT v2/poor: hello 0 1024 0::/init cpuset cpu io memory hugetlb pids rdma misc`,
			`CONTAINER v2/poor: .*without CAP_SYS_RESOURCE, resource limits and OOM scores .*`,
			// The container uses version 1 alone, or runc could not enter it.
			`REPORT hybrid/full: hello -800 500000 0::/`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			args := ""
			if name == "v1" {
				args = "linuxkit.unified_cgroup_hierarchy=0"
			}
			m := bootWith(t, host, vm.Config{Data: []vm.Drive{{File: disk}}, NoNetwork: true, Cmdline: args})
			m.wait(t)
			m.says(t, want...)
			console, runs := m.console(t), strings.Count(strings.Join(want, ""), "REPORT")
			if up := regexp.MustCompile(`CONTAINER .* machine is up, services started: 1`).FindAll(console, -1); len(up) != runs {
				t.Errorf("%d of %d containers are up", len(up), runs)
			}
			for _, bad := range []string{"busy", "not permitted", "file exists"} {
				if line := regexp.MustCompile(`CONTAINER .*` + bad + `.*`).Find(console); line != nil {
					t.Errorf("%s", line)
				}
			}
		})
	}
}

// makePrivileged changes a config.json so that the container has all privileges
// of this process, and then as change says.
func makePrivileged(t *testing.T, file string, change func(*specs.Spec)) {
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
	spec.Process.Capabilities = allCapabilities(t, func(c capability.Cap) bool { return own.Get(capability.EFFECTIVE, c) })
	spec.Process.Args = []string{"/sbin/init"}
	spec.Process.Terminal, spec.Process.NoNewPrivileges = false, false
	spec.Root.Readonly = false
	spec.Linux.MaskedPaths, spec.Linux.ReadonlyPaths = nil, nil
	spec.Linux.Resources = &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}}
	spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	change(&spec)
	if text, err = json.Marshal(spec); err == nil {
		err = os.WriteFile(file, text, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// allCapabilities returns the capabilities that has says yes to.
func allCapabilities(t *testing.T, has func(capability.Cap) bool) *specs.LinuxCapabilities {
	t.Helper()
	var all []string
	for _, c := range capability.ListKnown() {
		// Debian 12's runc does not support later capabilities.
		if has(c) && c <= capability.CAP_AUDIT_READ {
			all = append(all, "CAP_"+strings.ToUpper(c.String()))
		}
	}
	return &specs.LinuxCapabilities{Bounding: all, Effective: all, Permitted: all}
}
