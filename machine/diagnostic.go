package machine

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/slipway-build/slipway/internal/schema"
	"github.com/slipway-build/slipway/internal/suggest"
)

// A Range is a range of lines, counted from 1, in one of the sources given to
// [Parse]. The zero Range is nowhere.
type Range struct {
	Source     int // index of the source
	Start, End int // first and last line
}

// at returns the range of a node.
func at(n *schema.Node) Range {
	p := n.Position()
	return Range{Source: p.Source, Start: p.Line, End: p.Line}
}

// A Diagnostic is an error or a warning at a place in a machine YAML.
type Diagnostic struct {
	Rule    string // name of the rule of a warning, see [Rules]; empty for an error
	Message string // lower case, one line, without the place
	Range   Range
	File    string // name of the source
}

// String returns the diagnostic as "file:line: message".
func (d Diagnostic) String() string {
	return fmt.Sprintf("%s:%d: %s", d.File, d.Range.Start, d.Message)
}

// Diagnostics are all errors, or all warnings, of the sources, sorted by source
// and line.
type Diagnostics []Diagnostic

// Error returns the diagnostics one per line.
func (ds Diagnostics) Error() string {
	lines := make([]string, len(ds))
	for i, d := range ds {
		lines[i] = d.String()
	}
	return strings.Join(lines, "\n")
}

// report collects diagnostics.
type report struct {
	names    []string // of the sources
	found    Diagnostics
	compared int // words that suggest has compared
}

// warn adds a warning, or with an empty rule an error.
func (r *report) warn(rule string, at Range, format string, args ...any) {
	d := Diagnostic{Rule: rule, Message: strings.Map(printable, fmt.Sprintf(format, args...)), Range: at}
	if at.Source < len(r.names) {
		d.File = r.names[at.Source]
	}
	r.found = append(r.found, d)
}

// printable replaces characters that would spoil a line of text.
func printable(r rune) rune {
	if unicode.IsPrint(r) {
		return r
	}
	return unicode.ReplacementChar
}

// errorAt adds an error.
func (r *report) errorAt(at Range, format string, args ...any) { r.warn("", at, format, args...) }

// decoder returns a decoder that reports to r.
func (r *report) decoder(title string, source int) schema.Decoder {
	return schema.Decoder{Title: title, Source: source, Report: r.finding}
}

// finding adds an error or a warning of package schema.
func (r *report) finding(f schema.Finding) {
	rule := ""
	if f.Lenient {
		rule = NotPortable
	}
	r.warn(rule, Range{f.Position.Source, f.Position.Line, f.Position.Line}, "%s", f.Message)
}

// maxCompared bounds the time that suggestions take for a machine with many
// names and many errors.
const maxCompared = 500_000

// suggest returns [suggest.Among] until it has compared too many words.
func (r *report) suggest(word string, candidates []string) string {
	if r.compared += len(candidates); r.compared > maxCompared {
		return ""
	}
	return suggest.Among(word, candidates)
}

// sorted returns the diagnostics in the order of the text, each once.
func (r *report) sorted() Diagnostics {
	slices.SortStableFunc(r.found, func(a, b Diagnostic) int {
		return cmp.Or(
			cmp.Compare(a.Range.Source, b.Range.Source),
			cmp.Compare(a.Range.Start, b.Range.Start),
			cmp.Compare(a.Rule, b.Rule),
		)
	})
	return slices.Compact(r.found)
}

// split returns the errors and the warnings.
func (r *report) split() (failed, warnings Diagnostics) {
	for _, d := range r.sorted() {
		if d.Rule == "" {
			failed = append(failed, d)
		} else {
			warnings = append(warnings, d)
		}
	}
	return failed, warnings
}
