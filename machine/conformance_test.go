package machine_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipway-build/slipway/machine"
)

// corpus holds machine files with measured results. Its README explains the
// files.
const corpus = "../test/conformance/testdata"

// expectation is the expected.json of a case.
type expectation struct {
	Inputs      []string
	Arch        string
	OK          bool
	Tree        []node
	Configs     map[string]any
	Runtimes    map[string]any
	Documents   map[string]any
	MustMention []any `json:"must_mention"`
	File        string
	Line        int
}

// node is something in the expected root filesystem.
type node struct {
	Path, Type, Mode, SHA256, Link, Content string
	UID, GID                                uint32
	Optional                                bool
	MustContain                             []string `json:"must_contain"`
}

// conformanceCase is a case of the corpus.
type conformanceCase struct {
	expectation
	dir    string
	images layout
}

func TestConformance(t *testing.T) {
	dirs, err := filepath.Glob(corpus + "/cases/*")
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no conformance corpus at %s: %v", corpus, err)
	}
	images := readLayout(t, corpus+"/images")
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			c := conformanceCase{dir: dir, images: images}
			readJSON(t, dir+"/expected.json", &c.expectation)
			m, plan, err := c.plan(t)
			if !c.OK {
				c.checkError(t, plan, err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			c.checkJSON(t, plan)
			c.checkEntries(t, plan)
			c.checkRest(t, plan)
			checkRanges(t, m.Warnings())
			checkRanges(t, plan.Warnings)
		})
	}
}

func (c *conformanceCase) plan(t *testing.T) (*machine.Machine, *machine.Plan, error) {
	var sources []machine.Source
	for _, name := range c.Inputs {
		data, err := os.ReadFile(filepath.Join(c.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		sources = append(sources, machine.Source{Name: name, Data: data})
	}
	m, err := machine.Parse(sources...)
	if err != nil {
		return nil, nil, err
	}
	missing := map[string]bool{}
	for _, s := range m.Sources() {
		_, err := os.Stat(filepath.Join(c.dir, s.Source))
		missing[s.Source] = errors.Is(err, os.ErrNotExist)
	}
	m = m.WithoutSources(missing)
	images := map[string]machine.Image{}
	for _, ref := range m.ImageRefs() {
		image, ok := c.images.image(t, ref.Name, c.Arch)
		if !ok { // as the frontend reports it
			return m, nil, machine.Diagnostics{{Message: "no image " + ref.Text, Range: ref.Range, File: c.Inputs[ref.Range.Source]}}
		}
		images[ref.Name] = image
	}
	plan, err := m.Plan(images)
	return m, plan, err
}

// checkJSON compares config.json, runtime.json and other JSON by its meaning.
func (c *conformanceCase) checkJSON(t *testing.T, plan *machine.Plan) {
	contents := map[string][]byte{}
	for _, e := range slices.Concat(plan.Configs, plan.Files) {
		contents[e.Path] = e.Contents
	}
	for _, want := range []struct {
		files     map[string]any
		normalize func(any) any
	}{{c.Configs, normalizeConfig}, {c.Runtimes, prune}, {c.Documents, prune}} {
		for path, doc := range want.files {
			if c.inLayout(plan, path) {
				continue
			}
			var got any
			if err := json.Unmarshal(contents[path], &got); err != nil {
				t.Errorf("%s: %v", path, err)
			} else if diff := cmp.Diff(want.normalize(doc), want.normalize(got)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", path, diff)
			}
		}
	}
}

// checkEntries compares the generated entries.
func (c *conformanceCase) checkEntries(t *testing.T, plan *machine.Plan) {
	want := map[string]node{}
	for _, n := range c.Tree {
		want[n.Path] = n
	}
	got := map[string]machine.Entry{} // the last entry of a path wins
	for _, e := range slices.Concat(plan.Dirs, plan.Configs, plan.Files) {
		c.fill(t, &e)
		if up := filepath.Dir(e.Path); up != "." && got[up].Type != machine.TypeDirectory {
			t.Errorf("%s comes before its parent", e.Path)
		}
		got[e.Path] = e
	}
	for _, e := range plan.Dirs {
		if got[e.Path].Type == machine.TypeDirectory && imagesDecide(plan, e.Path) && !slices.ContainsFunc(plan.Files, func(f machine.Entry) bool { return f.Path == e.Path }) {
			n := want[e.Path]
			if n.Type == machine.TypeDirectory {
				delete(got, e.Path) // attributes are those of an image
			}
		}
	}
	for path, e := range got {
		n, ok := want[path]
		if !ok {
			t.Errorf("%s is not expected", path)
			continue
		}
		if diff := cmp.Diff(n.summary(), summary(e, n)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
		for _, text := range n.MustContain {
			if !strings.Contains(string(e.Contents), text) {
				t.Errorf("%s does not contain %q", path, text)
			}
		}
	}
	for path, n := range want {
		if _, ok := got[path]; !ok && !n.Optional && !imagesDecide(plan, path) && !c.inLayout(plan, path) {
			t.Errorf("%s is missing", path)
		}
	}
}

// fill sets the contents of an entry from its source.
func (c *conformanceCase) fill(t *testing.T, e *machine.Entry) {
	if e.Source == "" {
		return
	}
	data, err := os.ReadFile(filepath.Join(c.dir, e.Source))
	if err != nil {
		t.Error(err)
	}
	e.Contents = data
}

// imagesDecide reports whether the content of a path, or at least its attributes,
// comes from an image.
func imagesDecide(plan *machine.Plan, path string) bool {
	for _, tree := range plan.Trees {
		if tree.Prefix == "" && !within(path, "containers") || tree.Prefix != "" && within(path, tree.Prefix) {
			return true
		}
	}
	return plan.Kernel != nil && (within(path, "boot") || within(path, "lib"))
}

func (c *conformanceCase) inLayout(plan *machine.Plan, path string) bool {
	return slices.ContainsFunc(plan.Layouts, func(l machine.Layout) bool { return within(path, l.Prefix) })
}

func within(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

// summary returns what is compared of a node.
func (n node) summary() string {
	mode, sum := n.Mode, n.SHA256
	if n.Type == machine.TypeSymlink {
		mode = ""
	}
	if n.Content != "" {
		sum = ""
	}
	return fmt.Sprintf("%s %s %d:%d %s %s", n.Type, mode, n.UID, n.GID, n.Link, sum)
}

func summary(e machine.Entry, want node) string {
	n := node{Type: e.Type, Mode: fmt.Sprintf("%04o", e.Mode), UID: e.UID, GID: e.GID, Link: e.Link, Content: want.Content}
	if e.Type == machine.TypeFile {
		sum := sha256.Sum256(e.Contents)
		n.SHA256 = hex.EncodeToString(sum[:])
	}
	return n.summary()
}

// checkRest checks what the plan asks of other parts: trees, layouts, the kernel.
func (c *conformanceCase) checkRest(t *testing.T, plan *machine.Plan) {
	expected := map[string]bool{}
	for _, n := range c.Tree {
		expected[n.Path] = true
	}
	for _, tree := range plan.Trees {
		if tree.Prefix != "" && !expected[tree.Prefix] {
			t.Errorf("tree %s at %s is not expected", tree.Name, tree.Prefix)
		}
	}
	for _, l := range plan.Layouts {
		index, ok := c.Documents[l.Prefix+"/index.json"].(map[string]any)
		if !ok || !strings.Contains(fmt.Sprint(index), l.Image) {
			t.Errorf("layout of %s at %s is not expected", l.Image, l.Prefix)
		}
	}
	if want := expected["boot/kernel"]; want != (plan.Kernel != nil) {
		t.Errorf("kernel expected: %t, planned: %+v", want, plan.Kernel)
	}
	for _, n := range c.Tree {
		if sum := sha256.Sum256([]byte(plan.Cmdline)); n.Path == "boot/cmdline" && n.SHA256 != hex.EncodeToString(sum[:]) {
			t.Errorf("command line is %q", plan.Cmdline)
		}
	}
}

// checkError checks the message of a case that must fail. Some errors occur only
// when images are unpacked or sources are read. For these the plan must have the
// position.
func (c *conformanceCase) checkError(t *testing.T, plan *machine.Plan, err error) {
	var found machine.Diagnostics
	switch {
	case errors.As(err, &found):
	case err != nil:
		t.Fatal(err)
	default:
		found = c.later(plan)
	}
	checkRanges(t, found)
	for _, d := range found {
		if c.mentions(d.Message) && (c.Line == 0 || d.File == c.File && d.Range.Start == c.Line) {
			t.Log(d)
			return
		}
	}
	t.Errorf("no message mentions %v at %s:%d:\n%v", c.MustMention, c.File, c.Line, found)
}

// later returns the errors that other parts will find, with their positions in
// the plan.
func (c *conformanceCase) later(plan *machine.Plan) (found machine.Diagnostics) {
	if k := plan.Kernel; k != nil {
		found = append(found,
			machine.Diagnostic{Message: k.Binary + " is not in " + k.Image, Range: k.BinaryRange, File: c.Inputs[0]},
			machine.Diagnostic{Message: k.Tar + " is not in " + k.Image, Range: k.TarRange, File: c.Inputs[0]})
	}
	for _, e := range plan.Files {
		found = append(found, machine.Diagnostic{Message: e.Source + " does not exist for " + e.Path, Range: e.Range, File: c.Inputs[0]})
	}
	return found
}

// mentions reports whether a message contains all words that it must contain. A
// list stands for any one of its words.
func (c *conformanceCase) mentions(message string) bool {
	for _, want := range c.MustMention {
		words, ok := want.([]any)
		if !ok {
			words = []any{want}
		}
		if !slices.ContainsFunc(words, func(w any) bool {
			return regexp.MustCompile(`(?i)(^|[^a-z0-9_])` + regexp.QuoteMeta(w.(string)) + `($|[^a-z0-9_])`).MatchString(message)
		}) {
			return false
		}
	}
	return true
}

// prune removes members that mean the same as absent ones.
func prune(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, x := range v {
			if x = prune(x); !empty(x) {
				out[k] = x
			}
		}
		return out
	case []any:
		out := []any{}
		for _, x := range v {
			out = append(out, prune(x))
		}
		return out
	}
	return v
}

func empty(v any) bool {
	switch v := v.(type) {
	case map[string]any:
		return len(v) == 0
	case []any:
		return len(v) == 0
	}
	return v == nil || v == false || v == ""
}

// normalizeConfig returns what config.json means in the OCI runtime
// specification.
func normalizeConfig(v any) any {
	config, _ := v.(map[string]any)
	process, _ := config["process"].(map[string]any)
	capabilities, present := process["capabilities"].(map[string]any)
	for set, names := range capabilities {
		capabilities[set] = asSet(names)
	}
	if version, _ := config["ociVersion"].(string); strings.HasPrefix(version, "1.") {
		config["ociVersion"] = "1"
	}
	linux, _ := config["linux"].(map[string]any)
	linux["namespaces"] = asSet(linux["namespaces"])
	out := prune(config).(map[string]any)
	out["has process.capabilities"] = present
	return out
}

// asSet returns the entries of a list without order and duplicates.
func asSet(v any) any {
	list, _ := v.([]any)
	byText := map[string]any{}
	for _, x := range list {
		byText[fmt.Sprint(x)] = x
	}
	out := map[string]any{}
	for text, x := range byText {
		out[text] = x
	}
	return out
}

// checkRanges checks that all diagnostics have a range.
func checkRanges(t *testing.T, ds machine.Diagnostics) {
	t.Helper()
	for _, d := range ds {
		if d.Range.Start < 1 || d.Range.End < d.Range.Start {
			t.Errorf("%v has the range %+v", d, d.Range)
		}
	}
}

// layout is an OCI image layout (OCI image specification) with its images by
// name.
type layout struct {
	dir    string
	images map[string]ocispec.Descriptor
}

func readLayout(t *testing.T, dir string) layout {
	var index ocispec.Index
	readJSON(t, dir+"/index.json", &index)
	l := layout{dir, map[string]ocispec.Descriptor{}}
	for _, d := range index.Manifests {
		l.images[d.Annotations[ocispec.AnnotationRefName]] = d
	}
	return l
}

// image returns the config of an image for linux/arch.
func (l layout) image(t *testing.T, name, arch string) (machine.Image, bool) {
	var index ocispec.Index
	d, ok := l.images[name]
	if !ok {
		return machine.Image{}, false
	}
	readJSON(t, l.blob(d.Digest), &index)
	for _, d := range index.Manifests {
		if d.Platform == nil || d.Platform.OS != "linux" || d.Platform.Architecture != arch {
			continue
		}
		var manifest ocispec.Manifest
		var image ocispec.Image
		readJSON(t, l.blob(d.Digest), &manifest)
		readJSON(t, l.blob(manifest.Config.Digest), &image)
		return machine.Image{Digest: d.Digest.String(), Config: image.Config}, true
	}
	return machine.Image{}, false
}

func (l layout) blob(d digest.Digest) string {
	return filepath.Join(l.dir, "blobs", d.Algorithm().String(), d.Encoded())
}

func readJSON(t *testing.T, path string, v any) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, v)
	}
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}
