package docs

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

// A block is a fenced code block of a page. An HTML comment on the line before
// it says how it is tested:
//
//	<!-- not tested: REASON -->      the block requires what a test does not have
//	<!-- file: NAME -->              the block is this file
//	<!-- warns: RULE -->             the check of this machine shows the warning
//	<!-- booted: HOW -->             commands of the page boot this machine
//	<!-- fails: TEXT -->             the command fails, and prints the text
//	<!-- background: REGEXP -->      the command runs until the end of the page,
//	                                 and is ready when its output matches
//	<!-- retried: REASON -->         the command may fail for a minute
type block struct {
	page     string
	line     int // of the opening fence
	language string
	text     string

	skip, file, warning, failure, background, retried, booted string
}

func (b *block) String() string { return fmt.Sprintf("%s:%d", b.page, b.line) }

var (
	fence  = regexp.MustCompile("^( *)```(.*)$")
	marker = regexp.MustCompile(`^ *<!-- (not tested|file|warns|fails|background|retried|booted): (.+) -->$`)
)

// parse returns the blocks of a page.
func parse(page, text string) ([]*block, error) {
	var blocks []*block
	var current *block // the block whose text is being read
	next := &block{}   // what the comments say about the next block
	indent := ""
	for i, line := range strings.Split(text, "\n") {
		position := fmt.Sprintf("%s:%d", page, i+1)
		if current != nil {
			line = strings.TrimPrefix(line, indent)
			if line == "```" {
				current = nil
			} else {
				current.text += line + "\n"
			}
			continue
		}
		if m := marker.FindStringSubmatch(line); m != nil {
			*map[string]*string{
				"not tested": &next.skip, "file": &next.file, "warns": &next.warning,
				"fails": &next.failure, "background": &next.background, "retried": &next.retried, "booted": &next.booted,
			}[m[1]] = m[2]
			continue
		}
		m := fence.FindStringSubmatch(line)
		if m == nil {
			if *next != (block{}) {
				return nil, fmt.Errorf("%s: a comment about a block is not directly above one", position)
			}
			continue
		}
		current, next = next, &block{}
		current.page, current.line, current.language, indent = page, i+1, m[2], m[1]
		if current.language == "" {
			return nil, fmt.Errorf("%s: code block without a language (text for output)", position)
		}
		if !slices.Contains([]string{"yaml", "sh", "json", "text"}, current.language) && current.file == "" && current.skip == "" {
			return nil, fmt.Errorf("%s: no test for a block of %s: say which file it is, or why it is not tested", position, current.language)
		}
		blocks = append(blocks, current)
	}
	if current != nil {
		return nil, fmt.Errorf("%s: the code block is not closed", current)
	}
	return blocks, nil
}

// pages returns the blocks of all pages below the root of the checkout by page.
func pages(root string) (map[string][]*block, error) {
	files, err := filepath.Glob(filepath.Join(root, "*.md"))
	if err != nil {
		return nil, err
	}
	err = filepath.WalkDir(filepath.Join(root, "docs"), func(file string, _ os.DirEntry, err error) error {
		if filepath.Ext(file) == ".md" {
			files = append(files, file)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	all := map[string][]*block{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		page, err := filepath.Rel(root, file)
		if err != nil {
			return nil, err
		}
		if all[page], err = parse(page, string(text)); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// sections are the top-level keys of a machine YAML.
var sections = []string{"args", "kernel", "init", "onboot", "onshutdown", "services", "files", "volumes", "trust"}

// A machine has the parts of a machine YAML that the test uses.
type machine struct {
	Kernel   struct{ Image string }
	Init     []string
	Onboot   []component
	Services []component
	Files    []struct{ Source string }
}

type component struct{ Name, Image string }

// onlyComments reports whether a YAML block contains only comments.
func (b *block) onlyComments() bool {
	for line := range strings.Lines(b.text) {
		if line != "\n" && !strings.HasPrefix(line, "#") {
			return false
		}
	}
	return true
}

// patches matches the keys of a YAML that changes another one.
var patches = regexp.MustCompile(`\$(patch|before|after):`)

// machine returns the machine that a YAML block describes, or nil if it
// describes something else. A machine that needs other files or args is tested
// by the commands of its page.
func (b *block) machine() (*machine, error) {
	if patches.MatchString(b.text) {
		return nil, nil
	}
	var keys map[string]any
	if err := yaml.Unmarshal([]byte(b.text), &keys); err != nil {
		return nil, fmt.Errorf("%s: %w", b, err)
	}
	for key := range keys {
		if !slices.Contains(sections, key) {
			return nil, nil
		}
	}
	if _, ok := keys["args"]; ok && b.warning == "" {
		return nil, nil
	}
	m := &machine{}
	// Blocks that show a warning can have values of other types.
	if err := yaml.Unmarshal([]byte(b.text), m); err != nil && b.warning == "" {
		return nil, fmt.Errorf("%s: %w", b, err)
	}
	return m, nil
}

// complete reports whether the machine can boot and has something to run.
func (m *machine) complete() bool {
	return m.Kernel.Image != "" && len(m.Init) > 0 && len(m.Services) > 0
}

// has reports whether the machine has a component with a package's image.
func (m *machine) has(name string) bool {
	return slices.ContainsFunc(slices.Concat(m.Onboot, m.Services), func(c component) bool {
		return strings.Contains(c.Image, "slipwaybuild/"+name+":")
	})
}

func TestParse(t *testing.T) {
	const text = "# Title\n\n" +
		"<!-- file: a.yml -->\n```yaml\ninit: [a]\n```\n\n" +
		"1. Run it:\n\n   <!-- background: login: -->\n   ```sh\n   run \\\n     a.yml\n   ```\n"
	blocks, err := parse("page.md", text)
	if err != nil {
		t.Fatal(err)
	}
	want := []block{
		{page: "page.md", line: 4, language: "yaml", text: "init: [a]\n", file: "a.yml"},
		{page: "page.md", line: 11, language: "sh", text: "run \\\n  a.yml\n", background: "login:"},
	}
	if len(blocks) != len(want) {
		t.Fatalf("%d blocks, want %d", len(blocks), len(want))
	}
	for i := range want {
		if *blocks[i] != want[i] {
			t.Errorf("block %+v, want %+v", *blocks[i], want[i])
		}
	}
	for text, want := range map[string]string{
		"```\na\n```\n":                        "without a language",
		"```toml\na = 1\n```\n":                "no test for a block of toml",
		"```sh\nls\n":                          "is not closed",
		"<!-- file: a -->\n\n```sh\nls\n```\n": "not directly above one",
	} {
		if _, err := parse("page.md", text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", text, err, want)
		}
	}
}
