package machine_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipway-build/slipway/machine"
)

// parseExample parses an example in a folder, with overlays.
func parseExample(t *testing.T, dir string, args map[string]string, names ...string) *machine.Machine {
	t.Helper()
	root, err := os.OpenRoot(filepath.Join("../examples", dir))
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	open := func(name string) (machine.Source, error) {
		data, err := root.ReadFile(name)
		return machine.Source{Name: name, Data: data}, err
	}
	var sources []machine.Source
	for _, name := range names {
		s, err := open(name)
		if err != nil {
			t.Fatal(err)
		}
		sources = append(sources, s)
	}
	m, err := machine.Options{Args: args, Include: open}.Parse(sources...)
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Warnings()) > 0 {
		t.Errorf("warnings: %v", m.Warnings())
	}
	return m
}

// TestEdge checks an operating system whose 32 services come from one template.
func TestEdge(t *testing.T) {
	args := map[string]string{"SITE": "berlin", "AGENT": "example.test/agent:1", "PROCESSES": "32"}
	m := parseExample(t, "edge", args, "edge.yml")
	if len(m.Services) != 32 || len(m.ImageRefs()) != 6 {
		t.Fatalf("%d services, %d images", len(m.Services), len(m.ImageRefs()))
	}
	for i, s := range m.Services {
		if want := fmt.Sprintf("PORT=%d", 7000+i); s.Env[2] != want || *s.Resources.Pids.Limit != 32 || s.Image.Name != args["AGENT"] {
			t.Errorf("service %s: %+v", s.Name, s)
		}
	}
	if last := m.Services[31]; last.Name != "watchdog" || *last.OOMScoreAdj != -900 || last.Image.Name == "" {
		t.Errorf("last service %+v", last)
	}
	const want = "[api]\nport = 7000\nsite = berlin\n# Expanded by the service, not by the build:\ntoken = ${EDGE_TOKEN}\n"
	if got := m.Files[0].Contents; got != want {
		t.Errorf("contents %q, want %q", got, want)
	}
	if f := m.Files[len(m.Files)-1]; f.Path.Clean != "srv/edge" || !f.Directory {
		t.Errorf("path that ends in a slash: %+v", f)
	}

	m = parseExample(t, "edge", args, "edge.yml", "debug.yml")
	var names []string
	for _, s := range m.Services {
		names = append(names, string(s.Name))
	}
	if len(names) != 31 || names[0] != "getty" || slices.Contains(names, "camera") || m.Onboot[0].Name != "debug" || !slices.Contains(m.Services[1].Env, "DEBUG=1") {
		t.Errorf("with debug.yml: services %q, onboot %s", names, m.Onboot[0].Name)
	}
}

// TestNode checks a node of a cluster that consists of eleven files.
func TestNode(t *testing.T) {
	overlays, _ := filepath.Glob("../examples/node/[0-9]*.yml")
	if len(overlays) != 10 {
		t.Fatalf("%d overlays", len(overlays))
	}
	names := []string{"node.yml"}
	for _, o := range overlays {
		names = append(names, filepath.Base(o))
	}
	m := parseExample(t, "node", map[string]string{"ROLE": "worker"}, names...)
	var onboot, services []string
	for _, c := range m.Onboot {
		onboot = append(onboot, string(c.Name))
	}
	for _, c := range m.Services {
		services = append(services, string(c.Name))
	}
	if !slices.Equal(onboot, []string{"sysctl", "dhcpcd", "metadata"}) || !slices.Equal(services, []string{"rngd", "sshd"}) {
		t.Errorf("onboot %q, services %q", onboot, services)
	}
	if m.Kernel.Cmdline != "console=ttyS0 role=worker cluster=berlin" || m.Files[0].Contents != "berlin/worker" || *m.Services[1].OOMScoreAdj != -500 || len(m.Volumes) != 1 {
		t.Errorf("command line %q, files %+v, services %+v, volumes %+v", m.Kernel.Cmdline, m.Files, m.Services, m.Volumes)
	}
	if text := string(m.Annotated()); !strings.Contains(text, "# 06-limits.yml:8\n") || !strings.Contains(text, "# 10-site.yml:5\n") {
		t.Errorf("places are missing in:\n%s", text)
	}
}

// TestInstaller checks a machine that carries disk images.
func TestInstaller(t *testing.T) {
	parseExample(t, "provision", nil, "provision.yml")
	m := parseExample(t, "installer", nil, "installer.yml")
	if s := m.Sources(); len(s) != 2 || s[0].Source != "images/edge.raw" || !s[1].Optional {
		t.Errorf("sources %+v", s)
	}
}

// TestPrefix checks that only the init images and the system directories move.
func TestPrefix(t *testing.T) {
	const text = `prefix: rootfs/
init: [example.test/app:1]
files:
  - {path: rootfs/dev/, directory: true, mode: "0755"}
  - {path: cmd, contents: /app}
`
	m := parse(t, text)
	plan, err := m.Plan(map[string]machine.Image{"example.test/app:1": {Config: ocispec.ImageConfig{}}})
	if err != nil {
		t.Fatal(err)
	}
	if tree := plan.Trees[0]; tree.Prefix != "rootfs" || tree.Rules != machine.RulesInit {
		t.Errorf("tree %+v", tree)
	}
	var dirs []string
	for _, e := range plan.Dirs {
		dirs = append(dirs, e.Path)
	}
	if want := []string{"rootfs", "rootfs/dev", "rootfs/dev/pts", "rootfs/dev/shm", "rootfs/etc", "rootfs/proc", "rootfs/sys"}; !slices.Equal(dirs, want) {
		t.Errorf("directories %q, want %q", dirs, want)
	}
	if plan.Files[0].Path != "rootfs/dev" || plan.Files[1].Path != "cmd" {
		t.Errorf("files %+v", plan.Files)
	}
	if _, err := machine.Parse(machine.Source{Name: "m", Data: []byte("prefix: ../x\n")}); err == nil {
		t.Error("a prefix outside of the machine is accepted")
	}
}

// TestManyFiles checks that a machine with several hundred files keeps them all.
func TestManyFiles(t *testing.T) {
	text, want := "args: [{name: A, default: x}]\nfiles:\n", map[string]bool{}
	for i := range 700 {
		text += fmt.Sprintf("  - {path: /opt/files/%d, contents: \"${A}%[1]d\"}\n", i)
		want[fmt.Sprintf("opt/files/%d x%[1]d", i)] = true
	}
	got := map[string]bool{}
	for _, f := range parse(t, text).Files {
		got[f.Path.Clean+" "+f.Contents] = true
	}
	if !maps.Equal(got, want) {
		t.Errorf("%d files, want %d", len(got), len(want))
	}
}
