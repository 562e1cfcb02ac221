package machine_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipway-build/slipway/internal/contract"
	"github.com/slipway-build/slipway/internal/contract/runtimejson"
	"github.com/slipway-build/slipway/internal/schema"
	"github.com/slipway-build/slipway/machine"
)

// parse parses valid machine YAMLs.
func parse(t testing.TB, texts ...string) *machine.Machine {
	t.Helper()
	var sources []machine.Source
	for i, text := range texts {
		sources = append(sources, machine.Source{Name: fmt.Sprintf("%d.yml", i), Data: []byte(text)})
	}
	m, err := machine.Parse(sources...)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// plan plans with images that have only a command.
func plan(t testing.TB, m *machine.Machine) *machine.Plan {
	t.Helper()
	images := map[string]machine.Image{}
	for _, ref := range m.ImageRefs() {
		images[ref.Name] = machine.Image{Config: ocispec.ImageConfig{Cmd: []string{"run"}}}
	}
	p, err := m.Plan(images)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func check(t *testing.T, what string, want, got any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestImageRefs(t *testing.T) {
	m := parse(t, `
kernel: {image: team/kernel:v1}
init: [alpine, "@pkg:packages/init", alpine]
services:
  - {name: a, image: "example.test:5000/x/y:1@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"}
  - {name: b, image: "docker.io/library/alpine"}
volumes:
  - {name: files, image: "localhost/v"}
  - {name: layout, image: only/layout, format: oci}
`)
	at := func(line int) machine.Range { return machine.Range{Start: line, End: line} }
	check(t, "references", []machine.ImageRef{
		{Name: "docker.io/team/kernel:v1", Text: "team/kernel:v1", Range: at(2), Section: "kernel"},
		{Name: "docker.io/library/alpine", Text: "alpine", Range: at(3), Section: "init[0]"},
		{Name: "@pkg:packages/init", Text: "@pkg:packages/init", Range: at(3), Section: "init[1]"},
		{Name: "localhost/v", Text: "localhost/v", Range: at(8), Section: "volumes.files"},
		{
			Name:    "example.test:5000/x/y:1@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
			Text:    "example.test:5000/x/y:1@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
			Range:   at(5),
			Section: "services.a",
		},
	}, m.ImageRefs())
}

func TestPlanNeedsAllImages(t *testing.T) {
	_, err := parse(t, "services: [{name: a, image: alpine}]").Plan(nil)
	if err == nil || err.Error() != "cannot plan the machine: image docker.io/library/alpine of services.a is not resolved" {
		t.Error(err)
	}
	if _, err := new(machine.Machine).Plan(nil); err == nil || err.Error() != "cannot plan the machine: it does not come from Parse" {
		t.Error(err)
	}
}

// TestDirs checks the directories that come before everything else: the system
// directories of a machine with an init image, whose attributes later segments may
// change, and the parents of files, which get the owner of the first file.
func TestDirs(t *testing.T) {
	p := plan(t, parse(t, `
init: [alpine]
onboot: [{name: a, image: busybox}]
services: [{name: b, image: busybox, readonly: true}]
volumes: [{name: v}]
files:
  - {path: /srv/a/b, contents: x, uid: 5, gid: 6}
  - {path: srv/c/d, contents: x}
  - {path: srv/c, directory: true, mode: "0700"}
`))
	var got []string
	for _, e := range p.Dirs {
		got = append(got, fmt.Sprintf("%s %s %04o %d:%d", e.Type, e.Path, e.Mode, e.UID, e.GID))
	}
	check(t, "directories", []string{
		"dir containers 0755 0:0",
		"dir containers/onboot 0755 0:0",
		"dir containers/onboot/000-a 0755 0:0",
		"dir containers/onboot/000-a/lower 0755 0:0",
		"dir containers/services 0755 0:0",
		"dir containers/services/b 0755 0:0",
		"dir containers/volumes 0755 0:0",
		"dir containers/volumes/v 0755 0:0",
		"dir containers/volumes/v/lower 0755 0:0",
		"dir containers/volumes/v/merged 0755 0:0",
		"dir containers/volumes/v/tmp 0755 0:0",
		"dir dev 0755 0:0",
		"dir dev/pts 0755 0:0",
		"dir dev/shm 0755 0:0",
		"dir etc 0755 0:0",
		"dir proc 0755 0:0",
		"dir srv 0755 5:6",
		"dir srv/a 0755 5:6",
		"dir srv/c 0755 0:0",
		"dir sys 0755 0:0",
	}, got)
}

func TestFiles(t *testing.T) {
	m := parse(t, `
files:
  - {path: etc/key, secret: ssh_key, mode: "0400"}
  - {path: etc/twice, contents: first}
  - path: etc/conf
    source: ../conf/a
    optional: true
  - {path: ./etc//twice/, directory: true, gid: web}
services: [{name: web, image: alpine}]
`)
	check(t, "files", []machine.Entry{
		{Entry: contract.Entry{Path: "etc/key", Type: "file", Mode: 0o400}, Secret: "ssh_key", Range: machine.Range{Start: 3, End: 3}},
		{Entry: contract.Entry{Path: "etc/twice", Type: "dir", Mode: 0o700, GID: 100}, Range: machine.Range{Start: 8, End: 8}},
		{Entry: contract.Entry{Path: "etc/conf", Type: "file", Mode: 0o600, Source: "../conf/a"}, Range: machine.Range{Start: 6, End: 6}},
	}, plan(t, m).Files)
}

// Optional files whose sources do not exist have no effect: they create no
// parents, replace no other entries and contradict none.
func TestWithoutSources(t *testing.T) {
	m := parse(t, `
files:
  - {path: a/b/c, source: none, optional: true, uid: 1}
  - {path: a/x, contents: x, uid: 2}
  - {path: d, contents: kept}
  - {path: d, source: none, optional: true}
  - {path: e, source: none, optional: true}
  - {path: e/f, contents: f}
  - {path: g, directory: true}
  - {path: g, source: none, optional: true}
  - {path: h/i, source: there, optional: true, gid: 3}
`)
	if len(m.Warnings()) > 0 {
		t.Errorf("warnings without knowledge of the sources: %v", m.Warnings())
	}
	p := plan(t, m.WithoutSources(map[string]bool{"none": true}))
	var got []string
	for _, e := range slices.Concat(p.Dirs, p.Files) {
		got = append(got, fmt.Sprintf("%s %s %d:%d %s%s", e.Type, e.Path, e.UID, e.GID, e.Source, e.Contents))
	}
	check(t, "entries", []string{
		"dir a 2:0 ", "dir e 0:0 ", "dir h 0:3 ",
		"file a/x 2:0 x", "file d 0:0 kept", "file e/f 0:0 f", "dir g 0:0 ", "file h/i 0:3 there",
	}, got)
	if len(p.Warnings) > 0 {
		t.Errorf("warnings: %v", p.Warnings)
	}

	_, err := m.Plan(nil)
	if want := `file "e/f" is below e, which is a file`; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("with all sources: %v, want %q", err, want)
	}
}

// Of two entries for one path, the first decides about new parents, and the
// last about the file, as in LinuxKit.
func TestDoubledPath(t *testing.T) {
	p := plan(t, parse(t, `
files:
  - {path: srv/a/x, contents: one, uid: 5, gid: 6}
  - {path: srv/a/x, contents: two}
`))
	for _, e := range p.Dirs {
		if e.UID != 5 || e.GID != 6 {
			t.Errorf("%s belongs to %d:%d, want 5:6", e.Path, e.UID, e.GID)
		}
	}
	if f := p.Files[0]; len(p.Dirs) != 2 || len(p.Files) != 1 || string(f.Contents) != "two" || f.UID != 0 || f.GID != 0 {
		t.Errorf("directories %v, files %v", p.Dirs, p.Files)
	}
}

// TestEntryJSON checks the form that slipway-packer reads.
func TestEntryJSON(t *testing.T) {
	got, err := json.Marshal([]machine.Entry{
		{Entry: contract.Entry{Path: "a", Type: machine.TypeFile, Mode: 0o644, UID: 1, GID: 2, Contents: []byte("x")}, Range: machine.Range{Start: 3, End: 3}},
		{Entry: contract.Entry{Path: "b", Type: machine.TypeSymlink, Mode: 0o777, Link: "a"}},
		{Entry: contract.Entry{Path: "c", Type: machine.TypeFile, Source: "dir/c"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	check(t, "JSON", `[{"path":"a","type":"file","mode":420,"uid":1,"gid":2,"contents":"eA=="},`+
		`{"path":"b","type":"symlink","mode":511,"uid":0,"gid":0,"link":"a"},`+
		`{"path":"c","type":"file","mode":0,"uid":0,"gid":0,"source":"dir/c"}]`, string(got))
}

func TestKernel(t *testing.T) {
	for _, test := range []struct {
		name    string
		sources []string
		want    machine.KernelFiles
		cmdline string
	}{
		{
			"defaults",
			[]string{"kernel:\n  image: k\n"},
			machine.KernelFiles{Image: "docker.io/library/k", Binary: "kernel", Tar: "kernel.tar", Range: line(0, 2), BinaryRange: line(0, 2), TarRange: line(0, 2)},
			"",
		},
		{
			"an empty text keeps image, cmdline and binary, but clears tar and ucode",
			[]string{
				"kernel:\n  image: k\n  cmdline: a b\n  binary: bz\n  tar: t\n  ucode: u\n",
				"kernel:\n  image: ''\n  cmdline: ''\n  binary: ''\n  tar: ''\n  ucode: ''\n",
			},
			machine.KernelFiles{Image: "docker.io/library/k", Binary: "bz", Range: line(0, 2), BinaryRange: line(0, 4), TarRange: line(1, 5)},
			"a b",
		},
		{
			"later keys override",
			[]string{
				"kernel:\n  image: k\n  cmdline: a\n  tar: none\n",
				"kernel:\n  cmdline: b\n",
				"kernel:\n  image: l\n  binary: x\n",
			},
			machine.KernelFiles{Image: "docker.io/library/l", Binary: "x", Range: line(2, 2), BinaryRange: line(2, 3), TarRange: line(0, 4)},
			"b",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := plan(t, parse(t, test.sources...))
			check(t, "kernel", &test.want, p.Kernel)
			check(t, "command line", test.cmdline, p.Cmdline)
		})
	}
}

func line(source, n int) machine.Range { return machine.Range{Source: source, Start: n, End: n} }

// TestText checks how files may start and end in YAML.
func TestText(t *testing.T) {
	const text = "files:\r\n- {path: a, contents: \"x\"}\r\n- path: b\r\n  contents: !!binary AAH/\r\n- path: c\r\n  contents: |+\r\n    y\r\n\r\n"
	for name, text := range map[string]string{
		"as it is":         text,
		"byte order mark":  "\ufeff" + text,
		"second document":  text + "---\nnot: [read\n",
		"document markers": "---\n" + text + "...\n",
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, e := range plan(t, parse(t, text)).Files {
				got = append(got, string(e.Contents))
			}
			check(t, "contents", []string{"x", "\x00\x01\xff", "y\n\n"}, got)
		})
	}
}

func TestLayouts(t *testing.T) {
	p := plan(t, parse(t, `
volumes:
  - {name: all, image: alpine, format: oci}
  - {name: some, image: alpine, format: oci, platforms: [linux/arm64, linux/arm/v7]}
  - {name: none, format: oci}
  - {name: files, image: alpine, format: filesystem}
`))
	check(t, "layouts", []machine.Layout{
		{Name: "volumes.all", Image: "docker.io/library/alpine", Prefix: "containers/volumes/all/lower", Range: line(0, 3)},
		{Name: "volumes.some", Image: "docker.io/library/alpine", Prefix: "containers/volumes/some/lower", Platforms: []string{"linux/arm64", "linux/arm/v7"}, Range: line(0, 4)},
	}, p.Layouts)
	check(t, "trees", []machine.Tree{
		{Name: "volumes.files", Image: "docker.io/library/alpine", Prefix: "containers/volumes/files/lower", Rules: machine.RulesVolume, Range: line(0, 6)},
	}, p.Trees)
}

// TestAddedCapabilities checks capabilities.add together with a label that says
// all or none. LinuxKit fails on these.
func TestAddedCapabilities(t *testing.T) {
	for label, want := range map[string]int{"all": 41, "none": 1} {
		m := parse(t, "services: [{name: a, image: x, capabilities.add: [CAP_CHOWN]}]")
		p, err := m.Plan(map[string]machine.Image{"docker.io/library/x": {Config: ocispec.ImageConfig{
			Labels: map[string]string{machine.Label: `{"capabilities": ["` + label + `"]}`},
		}}})
		if err != nil {
			t.Fatal(err)
		}
		var spec struct {
			Process struct{ Capabilities struct{ Effective []string } }
		}
		if err := json.Unmarshal(contents(p.Configs, "containers/services/a/config.json"), &spec); err != nil {
			t.Fatal(err)
		}
		if got := len(spec.Process.Capabilities.Effective); got != want {
			t.Errorf("%s: %d capabilities, want %d", label, got, want)
		}
	}
}

// TestLabelText checks that a label may be YAML, or JSON with any escapes.
func TestLabelText(t *testing.T) {
	for label, want := range map[string]string{
		`{"hostname": "\ud83d\ude00 \/ \u00e9 \u003c"}`: "😀 / é <",
		"# as YAML\nhostname: '😀'\n":                    "😀",
	} {
		p, err := parse(t, "services: [{name: a, image: x}]").Plan(map[string]machine.Image{"docker.io/library/x": {
			Config: ocispec.ImageConfig{Labels: map[string]string{machine.Label: label}},
		}})
		if err != nil {
			t.Fatal(err)
		}
		var spec struct{ Hostname string }
		if err := json.Unmarshal(contents(p.Configs, "containers/services/a/config.json"), &spec); err != nil {
			t.Fatal(err)
		}
		check(t, "host name", want, spec.Hostname)
	}
}

// TestAliasLimit checks that a short text cannot expand without bound.
func TestAliasLimit(t *testing.T) {
	times := func(alias string) string { return "[" + strings.Repeat("*"+alias+", ", 1000) + "]" }
	for name, text := range map[string]string{
		"lists": "services:\n- name: a\n  image: x\n  mounts:\n  - &mount\n    options: " +
			"[" + strings.Repeat("a, ", 1000) + "]\n- &b\n  name: b\n  image: x\n  mounts: " + times("mount") + "\n" + strings.Repeat("- *b\n", 1000),
		"merge keys": "kernel: &k {image: x}\nservices:\n- &a\n  <<: " + times("k") + "\n- &b\n  <<: " + times("a") + "\n- <<: " + times("b") + "\n",
	} {
		_, err := machine.Parse(machine.Source{Name: "machine.yml", Data: []byte(text)})
		if err == nil || !strings.Contains(err.Error(), "the aliases expand to more than 100000 values") {
			t.Errorf("%s: %.200v", name, err)
		}
	}
}

func contents(entries []machine.Entry, path string) []byte {
	i := slices.IndexFunc(entries, func(e machine.Entry) bool { return e.Path == path })
	if i < 0 {
		return nil
	}
	return entries[i].Contents
}

// TestSchema checks that every key has a description, and that the examples of
// containers cause no warnings.
func TestSchema(t *testing.T) {
	var walk func(path string, s *schema.Type)
	walk = func(path string, s *schema.Type) {
		for _, f := range s.Fields {
			path := path + "." + f.Name
			if !strings.HasSuffix(f.Doc, ".") {
				t.Errorf("%s: the description %q is not a sentence", path, f.Doc)
			}
			if f.Type.Kind == schema.Map {
				walk(path, f.Type)
			} else if f.Type.Kind == schema.List && f.Type.Elem.Kind == schema.Map {
				walk(path, f.Type.Elem)
			}
		}
	}
	walk("", schema.Of[machine.Machine]())
	for _, f := range schema.Of[machine.Container]().Fields {
		if f.Example == "" || strings.HasPrefix(f.Name, "$") {
			continue
		}
		text := "services:\n  - name: web\n    image: alpine:3.21\n    " + f.Name + ": " + f.Example + "\n"
		if f.Required {
			text = strings.Replace(text, f.Name+": ", "# ", 1)
		}
		if m := parse(t, text); len(m.Warnings()) > 0 {
			t.Errorf("%s: %v", f.Name, m.Warnings())
		}
	}
}

// The documented default is the one that the init follows.
func TestNamespaceDefault(t *testing.T) {
	field := func(m *schema.Type, name string) *schema.Field {
		i := slices.IndexFunc(m.Fields, func(f *schema.Field) bool { return f.Name == name })
		if i < 0 {
			t.Fatalf("%s has no key %s", m.Name, name)
		}
		return m.Fields[i]
	}
	namespace := field(field(schema.Of[machine.Container](), "runtime").Type, "namespace")
	if namespace.Default != runtimejson.DefaultNamespace {
		t.Errorf("default %q, want %q", namespace.Default, runtimejson.DefaultNamespace)
	}
}

// TestRules checks that a test covers each rule of warnings.
func TestRules(t *testing.T) {
	files, err := filepath.Glob("testdata/diagnostics/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	var golden []byte
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		golden = append(golden, text...)
	}
	rules := machine.Rules()
	for i, r := range rules {
		if r.Name != machine.SourceOutside && !strings.Contains(string(golden), "("+r.Name+")\n") { // the frontend tests that one
			t.Errorf("no test shows %s", r.Name)
		}
		if i > 0 && r.Name <= rules[i-1].Name {
			t.Errorf("%s is out of order", r.Name)
		}
	}
}

// BenchmarkParsePlan parses and plans a machine of 200 containers, each with a
// label. The goal is 50 ms.
func BenchmarkParsePlan(b *testing.B) {
	var text strings.Builder
	text.WriteString("kernel:\n  image: example.test/kernel:v1\ninit:\n  - example.test/init:v1\nservices:\n")
	images := map[string]machine.Image{"example.test/kernel:v1": {}, "example.test/init:v1": {}}
	for i := range 200 {
		fmt.Fprintf(&text, `
  - name: service%[1]d
    image: example.test/service%[1]d:v1
    command: ["/usr/bin/service", "--number", "%[1]d"]
    env:
      - PATH=/usr/bin:/bin
      - NUMBER=%[1]d
    binds.add:
      - /etc/resolv.conf:/etc/resolv.conf:ro
      - /var/lib/service%[1]d:/data
    capabilities.add:
      - CAP_NET_BIND_SERVICE
    rlimits:
      - nofile,1024,4096
    runtime:
      mkdir: ["/var/lib/service%[1]d"]
`, i)
		images[fmt.Sprintf("example.test/service%d:v1", i)] = machine.Image{Config: ocispec.ImageConfig{
			Cmd: []string{"/usr/bin/service"},
			Env: []string{"PATH=/usr/bin"},
			Labels: map[string]string{
				machine.Label: `{"capabilities":["CAP_CHOWN","CAP_SETUID","CAP_SETGID"],"binds":["/run:/run","/tmp:/tmp"],"readonly":true,"net":"new"}`,
			},
		}}
	}
	source := machine.Source{Name: "machine.yml", Data: []byte(text.String())}
	b.SetBytes(int64(text.Len()))
	for b.Loop() {
		m, err := machine.Parse(source)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := m.Plan(images); err != nil {
			b.Fatal(err)
		}
	}
}

// The description of a machine has canonical references, except for volumes, as
// LinuxKit's has.
func TestMetadataReferences(t *testing.T) {
	const yaml = `
kernel: {image: team/kernel:v1}
init: [alpine]
services: [{name: a, image: web}]
volumes: [{name: data, image: data}, {name: empty}, {name: layout, image: team/data:v1, format: oci}]
files: [{path: etc/json, metadata: json}, {path: etc/yaml, metadata: yaml}]
`
	m := parse(t, yaml)
	for _, f := range plan(t, m).Files {
		text := string(f.Contents)
		for _, image := range []string{"docker.io/team/kernel:v1", "docker.io/library/alpine", "docker.io/library/web"} {
			if !strings.Contains(text, image) {
				t.Errorf("%s lacks %s:\n%s", f.Path, image, text)
			}
		}
		text = strings.NewReplacer(`"`, "").Replace(text)
		for _, image := range []string{"image: data", "image: team/data:v1"} {
			if !strings.Contains(text, image) {
				t.Errorf("%s lacks %s:\n%s", f.Path, image, text)
			}
		}
	}
	if !slices.ContainsFunc(m.ImageRefs(), func(r machine.ImageRef) bool { return r.Name == "docker.io/library/data" }) {
		t.Error("the machine itself has changed")
	}
}

// Annotations that the init follows are merged with those of the label. LinuxKit
// replaces the other ones.
func TestAnnotationsOfLabel(t *testing.T) {
	m := parse(t, `
services:
  - name: merged
    image: a
    annotations: {build.slipway.restart: always, org.example.team: web}
  - {name: cleared, image: a, annotations: {}}
  - {name: same, image: a}
`)
	p, err := m.Plan(map[string]machine.Image{"docker.io/library/a": {Config: ocispec.ImageConfig{
		Cmd:    []string{"run"},
		Labels: map[string]string{machine.Label: `{"annotations": {"build.slipway.seccomp": "default", "build.slipway.restart": "on-failure", "org.example.image": "a"}}`},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]map[string]string{}
	for _, e := range p.Configs {
		if name, ok := strings.CutSuffix(e.Path, "/config.json"); ok {
			var spec struct{ Annotations map[string]string }
			if err := json.Unmarshal(e.Contents, &spec); err != nil {
				t.Fatal(err)
			}
			got[filepath.Base(name)] = spec.Annotations
		}
	}
	check(t, "annotations", map[string]map[string]string{
		"merged":  {"build.slipway.restart": "always", "build.slipway.seccomp": "default", "org.example.team": "web"},
		"cleared": {"build.slipway.restart": "on-failure", "build.slipway.seccomp": "default"},
		"same":    {"build.slipway.restart": "on-failure", "build.slipway.seccomp": "default", "org.example.image": "a"},
	}, got)
}
