package main

import (
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

// pages are those that this package is about.
var pages = []string{"formats.md", "machine.md", "lint.md", "compatibility.md"}

// TestGenerated checks that what docs/ lists is what the code has.
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
			t.Errorf("%s is not in step with the code (-want +got): run go run ./hack/docs\n%s", file, diff)
		}
	}
}

func TestFill(t *testing.T) {
	const page = "a\n<!-- generated: x -->\nold\n<!-- end -->\nb\n"
	for _, test := range []struct{ page, parts, want, err string }{
		{page: page, parts: "x", want: "a\n<!-- generated: x -->\nnew x\n<!-- end -->\nb\n"},
		{page: page, parts: "x y", err: "no place for y"},
		{page: page + page, parts: "x y", err: `"x" is not generated, or has two places`},
		{page: page + page, parts: "x", err: "more to generate than is known"},
		{page: "<!-- generated: x -->\nno end\n", parts: "x", err: "no place for x"},
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
	long := strings.Repeat("word ", 26)
	want := "- " + strings.TrimSpace(long) + "\n  `kept together: here` end\n"
	if got := wrap("- ", long+"`kept together: here` end"); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

var yamlBlock = regexp.MustCompile("(?s)```yaml\n(.*?)```")

// TestExamples checks that every example on the pages is right, and means what the page says: in lint.md the first of a
// rule shows its warning and no other, the second none.
func TestExamples(t *testing.T) {
	for _, file := range pages {
		page, err := os.ReadFile(filepath.Join(docs, file))
		if err != nil {
			t.Fatal(err)
		}
		for _, section := range strings.Split("\n"+string(page), "\n## ") {
			title, _, _ := strings.Cut(section, "\n")
			isRule := slices.ContainsFunc(machine.Rules, func(r machine.Rule) bool { return r.Name == title })
			for i, example := range yamlBlock.FindAllStringSubmatch(section, -1) {
				var want []string
				if isRule && i == 0 {
					want = []string{title}
				}
				if got := warnings(t, file, example[1]); !slices.Equal(got, want) {
					t.Errorf("%s, %s: the warnings %v, want %v, for\n%s", file, title, got, want, example[1])
				}
			}
		}
	}
}

// TestRules checks that lint.md has a section for each rule, in order, with an example and a remedy.
func TestRules(t *testing.T) {
	page, err := os.ReadFile(docs + "/lint.md")
	if err != nil {
		t.Fatal(err)
	}
	var got, want []string
	for _, section := range strings.Split(string(page), "\n## ")[2:] {
		title, _, _ := strings.Cut(section, "\n")
		got = append(got, title)
		if n := len(yamlBlock.FindAllString(section, -1)); n != 2 {
			t.Errorf("%s has %d examples, want the mistake and its remedy", title, n)
		}
	}
	for _, r := range machine.Rules {
		want = append(want, r.Name)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("sections of lint.md (-want +got):\n%s", diff)
	}
}

// warnings gives the rules that a machine YAML breaks, each once. It must have no mistake.
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
		switch {
		case strings.Contains(ref.Name, "/user:"):
			config.User = "33"
		case strings.Contains(ref.Name, "/silent:"):
			config.Cmd = nil
		}
		images[ref.Name] = machine.Image{Config: config}
	}
	plan, err := m.Plan(images)
	if err != nil {
		t.Errorf("%v in\n%s", err, text)
		return nil
	}
	var rules []string
	for _, w := range slices.Concat(m.Warnings(), plan.Warnings) {
		if !slices.Contains(rules, w.Rule) {
			rules = append(rules, w.Rule)
		}
	}
	return rules
}

// isComment tells whether a text has nothing but comments.
func isComment(text string) bool {
	return !slices.ContainsFunc(strings.Split(strings.TrimSpace(text), "\n"), func(line string) bool { return !strings.HasPrefix(line, "#") })
}

var (
	headings = regexp.MustCompile(`(?m)^#+ (.*)$`)
	noSlug   = regexp.MustCompile(`[^a-z0-9 _-]`) // what GitHub leaves out of the anchors of headings
	ids      = regexp.MustCompile(`<a id="(.*?)">`)
	links    = regexp.MustCompile(`\]\(([^):]*)\)`)
)

// TestLinks checks that links on the pages lead somewhere.
func TestLinks(t *testing.T) {
	anchors, found := map[string]bool{}, []string{}
	all, err := filepath.Glob(filepath.Join(docs, "*.md"))
	if err != nil || len(all) == 0 {
		t.Fatal("no pages", err)
	}
	for _, file := range all {
		name := filepath.Base(file)
		page, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, heading := range headings.FindAllStringSubmatch(string(page), -1) {
			slug := noSlug.ReplaceAllString(strings.ToLower(heading[1]), "")
			anchors[name+"#"+strings.ReplaceAll(slug, " ", "-")] = true
		}
		for _, id := range ids.FindAllStringSubmatch(string(page), -1) {
			anchors[name+"#"+id[1]] = true
		}
		for _, link := range links.FindAllStringSubmatch(string(page), -1) {
			if strings.HasPrefix(link[1], "#") {
				link[1] = name + link[1]
			}
			found = append(found, link[1])
		}
	}
	for _, link := range found {
		if _, err := os.Stat(filepath.Join(docs, link)); err != nil && !anchors[link] {
			t.Errorf("the link %s leads nowhere", link)
		}
	}
}
