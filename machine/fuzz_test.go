package machine

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// FuzzParse parses any text, once alone and once as an overlay of itself. It must
// not panic, each error must have a position and a message, a valid machine must
// be planned, and its description must parse to the same description.
func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/diagnostics/*.txt", "../examples/*.yml", "../test/conformance/testdata/cases/*/*.yml"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			_, text, found := bytes.Cut(text, []byte("-- machine.yml --\n"))
			if !found {
				text, _ = os.ReadFile(file)
			}
			f.Add(text)
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		source := Source{"machine.yml", text}
		m, err := Parse(source)
		wellFormed(t, err, text)
		if err == nil {
			wellPlanned(t, m)
			described := m.metadata("yaml")
			again, err := Parse(Source{"description", described})
			if err != nil {
				t.Fatalf("%v\n%s", err, described)
			}
			if !bytes.Equal(described, again.metadata("yaml")) || !json.Valid(m.metadata("json")) {
				t.Fatalf("the description changes:\n%s", described)
			}
		}
		_, err = Parse(source, source)
		wellFormed(t, err, text)
	})
}

// FuzzSubstitute replaces args in any YAML. The value of an arg, and text that
// only looks like one, must not change what the YAML means otherwise.
func FuzzSubstitute(f *testing.F) {
	f.Add("cwd: ${A}\n  command: [\"${A}\", \"$${A}\"]", "x", "5")
	f.Add("oomScoreAdj: ${N}\n  readonly: true", "]\n- name: y", "-3")
	f.Add("annotations: {a: \"${A}${N}${\"}", "${A}", "0")
	f.Add("env: [*a, \"${B:-c}\"]", "", "1")
	f.Add("resources: {memory: {limit: \"${N}\"}}\n  binds: [\"/${A}:/b\"]", "a:b", "1")
	const head = "args:\n- {name: A}\n- {name: N, type: int, default: 7}\n- {name: B, default: \"${A}-\"}\n"
	f.Fuzz(func(t *testing.T, body, a, n string) {
		text := []byte(head + "services:\n- name: x\n  image: example.test/x:1\n  " + body + "\n")
		o := Options{Args: map[string]string{"A": a, "N": n}}
		m, err := o.Parse(Source{"machine.yml", text})
		wellFormed(t, err, text)
		if err != nil {
			return
		}
		wellPlanned(t, m)
		plain, _ := Options{Args: map[string]string{"A": "a", "N": n}}.Parse(Source{"machine.yml", text})
		if plain != nil && (len(plain.Services) != len(m.Services) || len(plain.Files) != len(m.Files) || len(plain.Onboot) != len(m.Onboot)) {
			t.Errorf("the value %q changes the structure of:\n%s", a, text)
		}
		again, err := Parse(Source{"description", m.metadata("yaml")})
		if err != nil || !bytes.Equal(again.metadata("yaml"), m.metadata("yaml")) {
			t.Errorf("%v: the description changes:\n%s", err, m.metadata("yaml"))
		}
		resolved, err := Parse(Source{"resolved", m.Annotated()})
		if err != nil || !bytes.Equal(resolved.metadata("yaml"), m.metadata("yaml")) {
			t.Errorf("%v: the resolved YAML is another machine:\n%s", err, m.Annotated())
		}
	})
}

// FuzzLabel uses any text as the label of an image.
func FuzzLabel(f *testing.F) {
	f.Add(`{"capabilities":["CAP_SYS_ADMIN"],"binds":["/dev:/dev","data:/x"],"pid":"host","readonly":true,"oomScoreAdj":-5}`)
	f.Add(`{"runtime":{"mkdir":["/a"],"mounts":[{"type":"tmpfs","destination":"/b"}],"bindNS":{"net":"/run/n"}},"uid":"web"}`)
	f.Add(`{"devices":[{"path":"all","type":"b"},{"path":"/dev/x","type":"c","major":1,"minor":3,"mode":"0600"}],"tmpfs":["/tmp:size=1m"]}`)
	f.Add(`{"resources":{"memory":{"limit":5},"hugepageLimits":[{"pageSize":2097152,"limit":5}]},"rlimits":["nofile,1,2"]}`)
	f.Add("pid: host\ncapabilities: [all]\ncapabilities.add: &a [CAP_CHOWN]\nambient: *a\n")
	f.Add(`["x"]`)
	f.Add(`{"name":"x"}`)
	const text = "services:\n- name: web\n  image: example.test/web:1\n  capabilities.add: [CAP_CHOWN]\n  runtime: {mkdir: [/x]}\n- name: two\n  image: example.test/web:1\nvolumes: [{name: data}]\n"
	m, err := Parse(Source{"machine.yml", []byte(text)})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, label string) {
		images := map[string]Image{"example.test/web:1": {Config: ocispec.ImageConfig{Labels: map[string]string{Label: label}}}}
		plan, err := m.Plan(images)
		wellFormed(t, err, []byte(text))
		if err == nil {
			wellFormedPlan(t, plan)
		}
	})
}

// wellFormed checks that an error is diagnostics with valid ranges.
func wellFormed(t *testing.T, err error, text []byte) {
	var found Diagnostics
	if err == nil {
		return
	}
	if !errors.As(err, &found) || len(found) == 0 {
		t.Fatalf("not diagnostics: %v", err)
	}
	lines := bytes.Count(bytes.TrimRight(text, "\n"), []byte("\n")) + 1
	for _, d := range found {
		if d.Range.Start < 1 || d.Range.End < d.Range.Start || d.Range.End > lines || d.Message == "" || strings.Contains(d.Message, "\n") {
			t.Errorf("%+v of %d lines", d, lines)
		}
	}
}

func wellPlanned(t *testing.T, m *Machine) {
	images := map[string]Image{}
	for _, ref := range m.ImageRefs() {
		images[ref.Name] = Image{}
	}
	missing := map[string]bool{}
	for _, s := range m.Sources() {
		missing[s.Source] = true
	}
	plan, err := m.WithoutSources(missing).Plan(images)
	if err != nil {
		t.Fatal(err)
	}
	wellFormedPlan(t, plan)
	plan, err = m.Plan(images)
	if err == nil {
		wellFormedPlan(t, plan)
	} else if len(missing) == 0 { // else optional files may contradict others
		t.Fatal(err)
	}
}

// wellFormedPlan checks that generated entries can be unpacked.
func wellFormedPlan(t *testing.T, plan *Plan) {
	kinds := map[string]string{}
	for _, e := range slices.Concat(plan.Dirs, plan.Configs, plan.Files) {
		if e.Path == "" || e.Path != filepath.Clean(e.Path) || strings.HasPrefix(e.Path, "/") || strings.HasPrefix(e.Path, "..") || strings.ContainsRune(e.Path, 0) {
			t.Errorf("path %q", e.Path)
		}
		if up := filepath.Dir(e.Path); up != "." && kinds[up] != TypeDirectory {
			t.Errorf("%s is below %s, which is a %q", e.Path, up, kinds[up])
		}
		if strings.HasSuffix(e.Path, ".json") && e.Range == (Range{}) && !json.Valid(e.Contents) {
			t.Errorf("%s: %s", e.Path, e.Contents)
		}
		kinds[e.Path] = e.Type
	}
}
