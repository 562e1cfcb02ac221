package machine

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// Range is a range of lines, counted from 1, in one of the sources given to [Parse].
// The zero Range is nowhere.
type Range struct {
	Source     int // index of the source
	Start, End int // first and last line
}

// written tells whether the range is somewhere.
func (r Range) written() bool { return r.Start > 0 }

// Diagnostic is a mistake or a warning at a place in a machine YAML.
type Diagnostic struct {
	Rule    string // name of the rule of a warning, see [Rules]; empty for a mistake
	Message string // lower case, one line, without the place
	Range   Range
	File    string // name of the source
}

// String gives the diagnostic as "file:line: message".
func (d Diagnostic) String() string {
	return fmt.Sprintf("%s:%d: %s", d.File, d.Range.Start, d.Message)
}

// Diagnostics are all mistakes, or all warnings, of the sources, sorted by source and line.
type Diagnostics []Diagnostic

// Error gives the diagnostics one a line.
func (ds Diagnostics) Error() string {
	lines := make([]string, len(ds))
	for i, d := range ds {
		lines[i] = d.String()
	}
	return strings.Join(lines, "\n")
}

// report collects diagnostics. Its names are those of the sources.
type report struct {
	names    []string
	found    Diagnostics
	mistakes int // also those that are not reported again
}

// add notes a mistake, or with a rule a warning.
func (r *report) add(rule string, at Range, format string, args ...any) {
	d := Diagnostic{Rule: rule, Message: strings.Map(printable, fmt.Sprintf(format, args...)), Range: at}
	if at.Source < len(r.names) {
		d.File = r.names[at.Source]
	}
	r.found = append(r.found, d)
}

// printable replaces what would spoil a line of text.
func printable(r rune) rune {
	if unicode.IsPrint(r) {
		return r
	}
	return unicode.ReplacementChar
}

// mistake notes a mistake.
func (r *report) mistake(at Range, format string, args ...any) {
	r.mistakes++
	r.add("", at, format, args...)
}

// sorted gives the diagnostics in the order of the text, each once.
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

// split gives the mistakes and the warnings apart.
func (r *report) split() (mistakes, warnings Diagnostics) {
	for _, d := range r.sorted() {
		if d.Rule == "" {
			mistakes = append(mistakes, d)
		} else {
			warnings = append(warnings, d)
		}
	}
	return mistakes, warnings
}
