// Command docs generates the reference pages' lists from the code: it writes
// docs/reference/machine.schema.json, and in the pages of docs/reference the
// text between the lines
//
//	<!-- generated: NAME -->
//	<!-- end -->
//
// Everything else in the pages is written by hand. Run it at the root of the
// checkout:
//
//	go run ./hack/docs
package main

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/slipway-build/slipway/exporter/format"
	"github.com/slipway-build/slipway/machine"
)

func main() {
	pages, err := render("docs")
	for file, text := range pages {
		if err == nil {
			err = write(file, text)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "docs:", err)
		os.Exit(1)
	}
}

// render returns the generated files and pages below dir by file name.
func render(dir string) (map[string][]byte, error) {
	pages := map[string][]byte{filepath.Join(dir, "reference/machine.schema.json"): machine.JSONSchema()}
	for page, parts := range map[string]map[string]string{
		"reference/machine.md": keyLists(),
		"reference/lint.md":    {"rules": ruleList()},
		"reference/formats.md": {"formats": formatTable()},
		"reference/guest.md":   {"annotations": annotationList()},
	} {
		file := filepath.Join(dir, page)
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		if pages[file], err = fill(text, parts); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
	}
	return pages, nil
}

// formatTable returns the table of output formats.
func formatTable() string {
	var b strings.Builder
	b.WriteString("| `--target` | what | files | architectures |\n|---|---|---|---|\n")
	for i, f := range format.All() {
		var architectures []string
		for _, a := range []string{"amd64", "arm64"} {
			if f.Check(a) == nil {
				architectures = append(architectures, a)
			}
		}
		description := f.Description
		if i == 0 {
			description += " (default)"
		}
		files := "`" + strings.Join(f.Files("NAME"), "`, `") + "`"
		if f.Container {
			files = "an image"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", f.Name, description, files, strings.Join(architectures, ", "))
	}
	return b.String()
}

const (
	begin = "<!-- generated: "
	end   = "<!-- end -->\n"
)

// fill replaces the generated blocks of a page with parts, by name. It is an
// error if a block or a part is missing.
func fill(page []byte, parts map[string]string) ([]byte, error) {
	var out bytes.Buffer
	rest := string(page)
	for len(parts) > 0 {
		before, after, found := strings.Cut(rest, begin)
		name, after, named := strings.Cut(after, " -->\n")
		_, after, ended := strings.Cut(after, end)
		if !found || !named || !ended {
			missing := slices.Sorted(maps.Keys(parts))[0]
			return nil, fmt.Errorf("no block %s: add the lines %q and %q", missing, begin+missing+" -->", strings.TrimSpace(end))
		}
		part, known := parts[name]
		if !known {
			return nil, fmt.Errorf("block %q is unknown or repeated", name)
		}
		out.WriteString(before + begin + name + " -->\n" + part + end)
		delete(parts, name)
		rest = after
	}
	if strings.Contains(rest, begin) {
		return nil, errors.New("unknown or repeated generated block")
	}
	out.WriteString(rest)
	return out.Bytes(), nil
}

// write replaces a file if its contents differ.
func write(file string, text []byte) error {
	if old, err := os.ReadFile(file); err == nil && bytes.Equal(old, text) {
		return nil
	}
	if err := os.WriteFile(file+".new", text, 0o644); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}
