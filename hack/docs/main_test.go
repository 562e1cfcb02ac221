package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipway-build/slipway/machine"
)

const docs = "../../docs"

// pages are the reference pages about the machine YAML.
var pages = []string{"formats.md", "machine.md", "lint.md", "compatibility.md"}

// TestGenerated checks that the generated files and blocks match the code.
func TestGenerated(t *testing.T) {
	pages, err := render(docs)
	if err != nil {
		t.Fatal(err)
	}
	for file, want := range pages {
		got, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("%s is out of date (-want +got): run go run ./hack/docs\n%s", file, diff)
		}
	}
}

func TestFill(t *testing.T) {
	const page = "a\n<!-- generated: x -->\nold\n<!-- end -->\nb\n"
	for _, test := range []struct{ page, parts, want, err string }{
		{page: page, parts: "x", want: "a\n<!-- generated: x -->\nnew x\n<!-- end -->\nb\n"},
		{page: page, parts: "x y", err: "no block y"},
		{page: page + page, parts: "x y", err: `block "x" is unknown or repeated`},
		{page: page + page, parts: "x", err: "unknown or repeated generated block"},
		{page: "<!-- generated: x -->\nno end\n", parts: "x", err: "no block x"},
	} {
		parts := map[string]string{}
		for _, name := range strings.Fields(test.parts) {
			parts[name] = "new " + name + "\n"
		}
		got, err := fill([]byte(test.page), parts)
		if test.err == "" && err != nil || test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
			t.Errorf("%q with %s: error %v, want %q", test.page, test.parts, err, test.err)
		}
		if string(got) != test.want {
			t.Errorf("%q with %s: %q, want %q", test.page, test.parts, got, test.want)
		}
	}
}

func TestWrap(t *testing.T) {
	long := strings.Repeat("word ", 19)
	want := "- " + strings.TrimSpace(long) + "\n  `kept together: here` end\n"
	if got := wrap("- ", long+"`kept together: here` end"); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// yamlBlock matches a YAML block, and the comment that makes it the description
// of a package.
var yamlBlock = regexp.MustCompile("(?s)(<!-- file: [^\n]*/build.yml -->\n)?```yaml\n(.*?)```")

// TestExamples checks that every example on the pages is valid and causes the
// warnings that the page says: in lint.md the first example of a rule shows its
// warning and no other, the second one none.
func TestExamples(t *testing.T) {
	for _, file := range pages {
		page, err := os.ReadFile(filepath.Join(docs, "reference", file))
		if err != nil {
			t.Fatal(err)
		}
		for _, section := range strings.Split("\n"+string(page), "\n## ") {
			title, _, _ := strings.Cut(section, "\n")
			isRule := slices.ContainsFunc(machine.Rules(), func(r machine.Rule) bool { return r.Name == title })
			for i, example := range yamlBlock.FindAllStringSubmatch(section, -1) {
				if example[1] != "" {
					continue
				}
				var want []string
				if isRule && i == 0 {
					want = []string{title}
				}
				if got := warnings(t, file, example[2]); !slices.Equal(got, want) {
					t.Errorf("%s, %s: the warnings %v, want %v, for\n%s", file, title, got, want, example[2])
				}
			}
		}
	}
}

// TestRules checks that lint.md has a section for each rule, in order, with an
// example and its correction.
func TestRules(t *testing.T) {
	page, err := os.ReadFile(docs + "/reference/lint.md")
	if err != nil {
		t.Fatal(err)
	}
	var got, want []string
	for _, section := range strings.Split(string(page), "\n## ")[2:] {
		title, _, _ := strings.Cut(section, "\n")
		got = append(got, title)
		if n := len(yamlBlock.FindAllString(section, -1)); n != 2 {
			t.Errorf("%s has %d examples, want the wrong and the right one", title, n)
		}
	}
	for _, r := range machine.Rules() {
		want = append(want, r.Name)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("sections of lint.md (-want +got):\n%s", diff)
	}
}

// warnings returns the rules that a valid machine YAML breaks, each once.
func warnings(t *testing.T, file, text string) []string {
	if isComment(text) {
		return nil
	}
	m, err := machine.Parse(machine.Source{Name: file, Data: []byte(text)})
	if err != nil {
		t.Errorf("%v in\n%s", err, text)
		return nil
	}
	images := map[string]machine.Image{}
	for _, ref := range m.ImageRefs() {
		config := ocispec.ImageConfig{Cmd: []string{"/bin/run"}, Env: []string{"PATH=/bin"}}
		config.Labels = map[string]string{machine.Label: "readonlyPaths: [/proc/sys, /sys]"}
		switch {
		case strings.Contains(ref.Name, "/user:"):
			config.User = "33"
		case strings.Contains(ref.Name, "/silent:"):
			config.Cmd = nil
		case strings.Contains(ref.Name, "/greedy:"):
			config.Labels[machine.Label] = "pid: host"
		case strings.Contains(ref.Name, "/bare:"):
			config.Labels = nil
		}
		images[ref.Name] = machine.Image{Config: config}
	}
	plan, err := m.Plan(images)
	if err != nil {
		t.Errorf("%v in\n%s", err, text)
		return nil
	}
	var rules []string
	if slices.ContainsFunc(m.Sources(), func(s machine.FileSource) bool { return s.Optional && s.Outside() }) {
		rules = append(rules, machine.SourceOutside) // as from the frontend
	}
	for _, w := range slices.Concat(m.Warnings(), plan.Warnings) {
		if !slices.Contains(rules, w.Rule) {
			rules = append(rules, w.Rule)
		}
	}
	return rules
}

// isComment reports whether a text consists of comments.
func isComment(text string) bool {
	return !slices.ContainsFunc(strings.Split(strings.TrimSpace(text), "\n"), func(line string) bool { return !strings.HasPrefix(line, "#") })
}

var (
	headings = regexp.MustCompile(`(?m)^#+ (.*)$`)
	noSlug   = regexp.MustCompile(`[^a-z0-9 _-]`) // what GitHub leaves out of the anchors of headings
	ids      = regexp.MustCompile(`<a id="(.*?)">`)
	links    = regexp.MustCompile(`\]\(([^):]*)\)`)
)

// TestLinks checks that every relative link on a page, and its anchor, exists.
func TestLinks(t *testing.T) {
	type link struct{ page, target string }
	anchors, found := map[string]bool{}, []link{}
	for _, file := range markdown(t) {
		page, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, heading := range headings.FindAllStringSubmatch(string(page), -1) {
			slug := noSlug.ReplaceAllString(strings.ToLower(heading[1]), "")
			anchors[file+"#"+strings.ReplaceAll(slug, " ", "-")] = true
		}
		for _, id := range ids.FindAllStringSubmatch(string(page), -1) {
			anchors[file+"#"+id[1]] = true
		}
		for _, match := range links.FindAllStringSubmatch(string(page), -1) {
			found = append(found, link{file, match[1]})
		}
	}
	for _, l := range found {
		name, anchor, hasAnchor := strings.Cut(l.target, "#")
		file := l.page
		if name != "" {
			file = filepath.Join(filepath.Dir(l.page), name)
		}
		if _, err := os.Stat(file); err != nil {
			t.Errorf("%s links to %s, which does not exist", l.page, l.target)
		} else if hasAnchor && !anchors[file+"#"+anchor] {
			t.Errorf("%s links to %s, which has no such heading", l.page, l.target)
		}
	}
}

// markdown returns the pages that people read: those of docs and those at the
// root of the checkout.
func markdown(t *testing.T) []string {
	files, err := filepath.Glob(filepath.Join(docs, "../*.md"))
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(docs, func(file string, _ fs.DirEntry, err error) error {
		if filepath.Ext(file) == ".md" {
			files = append(files, file)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
