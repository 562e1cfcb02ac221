// Package examples holds machines to start from. slipway new writes them.
package examples

import (
	"embed"
	"io/fs"
	"path"
	"strings"

	"github.com/slipway-build/slipway/machine"
)

//go:embed *.yml
var files embed.FS

// Schema is the line that tells editors with the YAML language server where the
// schema of machines is.
const Schema = "# yaml-language-server: $schema=" + machine.SchemaURL

// An Example is a machine to start from.
type Example struct {
	Name        string // of the file, without .yml
	Description string // one line
	Text        string // the machine YAML
}

// All returns the examples, sorted by name.
func All() ([]Example, error) {
	names, err := fs.Glob(files, "*.yml")
	if err != nil {
		return nil, err
	}
	var all []Example
	for _, name := range names {
		text, err := files.ReadFile(name)
		if err != nil {
			return nil, err
		}
		all = append(all, Example{strings.TrimSuffix(name, path.Ext(name)), describe(string(text)), string(text)})
	}
	return all, nil
}

// describe returns the first sentence of the first comment that is not a
// directive.
func describe(text string) string {
	var sentence []string
	for line := range strings.Lines(text) {
		comment, ok := strings.CutPrefix(strings.TrimSpace(line), "#")
		if !ok {
			break
		}
		comment = strings.TrimSpace(comment)
		switch {
		case strings.HasPrefix(comment, "syntax="), strings.HasPrefix(comment, "check="), strings.HasPrefix(comment, "yaml-language-server:"), comment == "" && sentence == nil:
			continue
		case comment == "":
			return strings.Join(sentence, " ")
		}
		before, _, end := strings.Cut(comment+" ", ". ")
		sentence = append(sentence, strings.TrimSpace(before))
		if end {
			break
		}
	}
	return strings.TrimSuffix(strings.Join(sentence, " "), ".")
}
