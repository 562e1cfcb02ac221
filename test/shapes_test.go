package test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/slipway-build/slipway/internal/image"
	"github.com/slipway-build/slipway/internal/testutil/stack"
	"github.com/slipway-build/slipway/internal/vm"
	"github.com/slipway-build/slipway/internal/vm/cloud"
)

// agent is the stand-in for the image that runs every service of examples/edge.
const agent = "slipwaybuild/rngd:v1"

// buildExample builds an example in a folder and returns the folder with the
// output.
func buildExample(t *testing.T, file string, args ...string) string {
	t.Helper()
	out := t.TempDir()
	args = append([]string{"-f", "examples/" + file, "--platform=linux/amd64", "-o", out}, append(args, ".")...)
	if _, stderr, err := stack.Buildx("..", args...); err != nil {
		t.Fatalf("build %s: %v\n%s", file, err, stderr)
	}
	return out
}

// contentsOf returns the root filesystem and the command line of an image.
func contentsOf(t *testing.T, name string) (files map[string]string, cmdline string) {
	t.Helper()
	i, err := image.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	files = map[string]string{}
	for _, e := range i.Root {
		text := ""
		if e.Size > 0 && e.Size < 64<<10 {
			b := make([]byte, e.Size)
			if _, err := e.ReaderAt().ReadAt(b, 0); err != nil {
				t.Fatalf("%s: %v", e.Path, err)
			}
			text = string(b)
		}
		files[e.Path] = text
	}
	return files, i.Cmdline
}

// nodeOverlays returns the names of the overlays of examples/node, in their order.
func nodeOverlays(t *testing.T) []string {
	t.Helper()
	overlays, err := filepath.Glob("../examples/node/[0-9]*.yml")
	if err != nil || len(overlays) != 10 {
		t.Fatalf("%d overlays, %v", len(overlays), err)
	}
	for i := range overlays {
		overlays[i] = filepath.Base(overlays[i])
	}
	return overlays
}

// TestShapes builds machines of the shape of large projects, from args, includes
// and overlays.
func TestShapes(t *testing.T) {
	stack.Require(t)
	t.Run("edge", func(t *testing.T) {
		out := buildExample(t, "edge/edge.yml", "--build-arg=SITE=berlin", "--build-arg=AGENT="+agent, "--build-arg=OVERLAYS=debug.yml")
		files, cmdline := contentsOf(t, out)
		services := 0
		for name := range files {
			if strings.HasPrefix(name, "containers/services/") && strings.HasSuffix(name, "/config.json") {
				services++
			}
		}
		if services != 31 || !strings.Contains(files["containers/services/watchdog/config.json"], `"oomScoreAdj": -900`) ||
			files["etc/hostname"] != "berlin" || !strings.Contains(files["etc/edge/update.conf"], "token = ${EDGE_TOKEN}\n") ||
			cmdline != "console=ttyS0 linuxkit.unified_cgroup_hierarchy=0" {
			t.Errorf("%d services, command line %q", services, cmdline)
		}
	})
	t.Run("node", func(t *testing.T) {
		out := buildExample(t, "node/node.yml", "--build-arg=ROLE=control", "--build-arg=OVERLAYS="+strings.Join(nodeOverlays(t), ","))
		files, cmdline := contentsOf(t, out)
		if _, ok := files["containers/services/metrics/config.json"]; ok || files["etc/cluster/role"] != "berlin/control" ||
			cmdline != "console=ttyS0 role=control cluster=berlin" {
			t.Errorf("command line %q, role %q, metrics %t", cmdline, files["etc/cluster/role"], ok)
		}
	})
}

// kernelOf returns what boots the machine with this name in the output of a
// build.
func kernelOf(t *testing.T, out, name string) vm.Config {
	t.Helper()
	cmdline, err := os.ReadFile(filepath.Join(out, name+"-cmdline"))
	if err != nil {
		t.Fatal(err)
	}
	return vm.Config{
		Kernel: filepath.Join(out, name+"-kernel"), Initrd: filepath.Join(out, name+"-initrd.img"), Cmdline: string(cmdline),
	}
}

// startShape boots a machine until its console matches a pattern.
func startShape(t *testing.T, config vm.Config, pattern string) *vm.Machine {
	t.Helper()
	config.LogDir = stack.Artifacts(t)
	machine, err := vm.Start(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(machine.Kill)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	up, err := machine.WaitConsole(ctx, regexp.MustCompile(pattern))
	if err != nil {
		t.Fatalf("%v\n%s", err, machine.ConsoleTail(60))
	}
	t.Logf("%s after %.1f s", pattern, up.Seconds())
	return machine
}

// loginTo waits until a machine accepts logins with a key.
func loginTo(t *testing.T, machine *vm.Machine, key vm.Key) *guest {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if _, err := machine.WaitSSH(ctx, key); err != nil {
		t.Fatalf("%v\n%s", err, machine.ConsoleTail(60))
	}
	return &guest{machine, key}
}

// TestShapesBoot boots the machines of large projects: one with 32 services under
// cgroups v1, one of ten overlays, an initramfs that gets its worker's data after
// the build, and an installer that carries a disk of 1 GiB.
func TestShapesBoot(t *testing.T) {
	if !*bootAll {
		t.Skip("with -boot only: takes minutes")
	}
	stack.Require(t)
	t.Run("edge", func(t *testing.T) {
		out := buildExample(t, "edge/edge.yml", "--build-arg=SITE=berlin", "--build-arg=AGENT="+agent)
		config := kernelOf(t, out, "edge")
		config.NoNetwork = true
		startShape(t, config, "services started: 32")
	})
	t.Run("node", testNode)
	t.Run("provision", testProvision)
	t.Run("installer", testInstallerShape)
}

// testNode checks by ssh what the overlays make of the node.
func testNode(t *testing.T) {
	key, err := vm.NewKey(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	out := buildExample(t, "node/node.yml", "--build-arg=ROLE=control", "--build-arg=OVERLAYS="+strings.Join(nodeOverlays(t), ","))
	config := kernelOf(t, out, "node")
	config.Metadata = &cloud.Instance{ID: "i-0123456789abcdef0", Hostname: "node", PublicKeys: []string{key.Public}}
	g := loginTo(t, startShape(t, config, "services started: 2"), key)
	got := g.output(t, "cat /proc/cmdline /proc/self/oom_score_adj; "+inMachine("cat /etc/cluster/role; ")+inMachine("ls /containers/services"))
	if want := "console=ttyS0 role=control cluster=berlin\n-500\nberlin/controlrngd\nsshd"; got != want {
		t.Errorf("the node says %q, want %q", got, want)
	}
}

// testProvision fills the initramfs as the comment of its YAML says, and logs in
// with a key that only the user data has.
func testProvision(t *testing.T) {
	key, err := vm.NewKey(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	out := buildExample(t, "provision/provision.yml", "--target=iso", "--build-arg=RESERVE=4K")
	write(t, out, map[string]string{"m-17.json": fmt.Sprintf(`{"ssh": {"entries": {"authorized_keys": {"content": %q, "perm": "0600"}}}, "role": {"content": "worker\n"}}`, key.Public)})
	if _, stderr, exit := slipway(t, out, "customize", "--cmdline", "worker=m-17 facility=lab", "--user-data", "m-17.json", "provision.iso"); exit != 0 {
		t.Fatal(stderr)
	}
	g := loginTo(t, startShape(t, vm.Config{CD: filepath.Join(out, "provision.iso")}, "services started: 1"), key)
	got := g.output(t, "cat /proc/cmdline; "+inMachine("cat /run/config/role"))
	if !strings.HasSuffix(got, "console=ttyS0 controller=192.0.2.10 worker=m-17 facility=lab\nworker") {
		t.Errorf("the worker says %q", got)
	}
}

// testInstallerShape builds and boots a CD with a disk of 1 GiB. An overlay
// reports the disk that the installer finds.
func testInstallerShape(t *testing.T) {
	yaml, err := os.ReadFile("../examples/installer/installer.yml")
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	write(t, folder, map[string]string{"installer.yml": string(yaml), "report.yml": diskReport, "images/edge.raw": "the disk"})
	if err := os.Truncate(filepath.Join(folder, "images", "edge.raw"), 1<<30); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if _, stderr, err := stack.Buildx(folder, "-f", "installer.yml", "--platform=linux/amd64", "--target=iso-efi", "--build-arg=OVERLAYS=report.yml", "-o", "out", "."); err != nil {
		t.Fatalf("%v\n%s", err, stderr)
	}
	t.Logf("built in %.1f s", time.Since(start).Seconds())
	startShape(t, vm.Config{CD: filepath.Join(folder, "out", "installer-efi.iso"), Firmware: vm.UEFI, NoNetwork: true},
		fmt.Sprintf("REPORT /images/edge.raw %d the disk", 1<<30))
}

// diskReport is an overlay of examples/installer.
const diskReport = `onboot:
  - name: report
    image: slipwaybuild/init:v1
    binds: ["/dev:/dev", "/images:/images:ro"]
    devices:
      - {path: all, type: a}
    command: ["/bin/sh", "-c", "echo REPORT $(stat -c '%n %s' /images/*) $(head -c 8 /images/edge.raw) >/dev/console"]
`
