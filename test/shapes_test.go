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
		overlays, err := filepath.Glob("../examples/node/[0-9]*.yml")
		if err != nil || len(overlays) != 10 {
			t.Fatalf("%d overlays, %v", len(overlays), err)
		}
		for i := range overlays {
			overlays[i] = filepath.Base(overlays[i])
		}
		out := buildExample(t, "node/node.yml", "--build-arg=ROLE=control", "--build-arg=OVERLAYS="+strings.Join(overlays, ","))
		files, cmdline := contentsOf(t, out)
		if _, ok := files["containers/services/metrics/config.json"]; ok || files["etc/cluster/role"] != "berlin/control" ||
			cmdline != "console=ttyS0 role=control cluster=berlin" {
			t.Errorf("command line %q, role %q, metrics %t", cmdline, files["etc/cluster/role"], ok)
		}
	})
}

// TestShapesBoot boots the machine with 32 services under cgroups v1, and builds
// an installer that carries a disk of 1 GiB.
func TestShapesBoot(t *testing.T) {
	if !*bootAll {
		t.Skip("with -boot only: takes minutes")
	}
	stack.Require(t)
	t.Run("edge", func(t *testing.T) {
		out := buildExample(t, "edge/edge.yml", "--build-arg=SITE=berlin", "--build-arg=AGENT="+agent)
		cmdline, err := os.ReadFile(filepath.Join(out, "edge-cmdline"))
		if err != nil {
			t.Fatal(err)
		}
		machine, err := vm.Start(t.Context(), vm.Config{
			Kernel: filepath.Join(out, "edge-kernel"), Initrd: filepath.Join(out, "edge-initrd.img"), Cmdline: string(cmdline),
			Memory: 1024, NoNetwork: true, LogDir: stack.Artifacts(t),
		})
		if err != nil {
			t.Fatal(err)
		}
		defer machine.Kill()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		up, err := machine.WaitConsole(ctx, regexp.MustCompile(`services started: 32`))
		if err != nil {
			t.Fatalf("%v\n%s", err, machine.ConsoleTail(60))
		}
		t.Logf("32 services after %.1f s", up.Seconds())
	})
	t.Run("installer", func(t *testing.T) {
		folder := t.TempDir()
		disk := filepath.Join(folder, "images", "edge.raw")
		write(t, folder, map[string]string{"images/edge.raw": "the disk"})
		if err := os.Truncate(disk, 1<<30); err != nil {
			t.Fatal(err)
		}
		out := t.TempDir()
		start := time.Now()
		if _, stderr, err := stack.Buildx("..", "-f", "examples/installer/installer.yml", "--platform=linux/amd64", "--target=iso-efi", "-o", out, folder); err != nil {
			t.Fatalf("%v\n%s", err, stderr)
		}
		i, err := image.Open(filepath.Join(out, "installer-efi.iso"))
		if err != nil {
			t.Fatal(err)
		}
		defer i.Close()
		found := ""
		for _, e := range i.Root {
			if strings.HasPrefix(e.Path, "images/") {
				found += fmt.Sprintf("%s %d ", e.Path, e.Size)
			}
		}
		if want := fmt.Sprintf("images/edge.raw %d ", 1<<30); found != want {
			t.Errorf("files %q, want %q", found, want)
		}
		t.Logf("built in %.1f s", time.Since(start).Seconds())
	})
}
