package machine

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// syntaxHints say for messages of the YAML library what to do. %[1]d is the line of the construct that the mistake is in,
// %[2]q the character at the mistake.
var syntaxHints = map[string]string{
	"did not find expected key":                      "this is no key of the map that begins on line %[1]d: check the indentation and the quotes",
	"did not find expected '-' indicator":            "this is no entry of the list that begins on line %[1]d: check the indentation",
	"did not find expected ',' or ']'":               "the list that begins with [ on line %[1]d is not closed before this",
	"did not find expected ',' or '}'":               "the map that begins with { on line %[1]d is not closed before this",
	"found unexpected end of stream":                 "the text that begins with a quote here is not closed",
	"could not find expected ':'":                    "a key needs a colon and a blank behind it",
	"mapping values are not allowed in this context": "a colon is not allowed here: put text that has one in quotes, or check the indentation",
	"found character that cannot start any token":    "text that begins with %[2]q must be in quotes",
}

// constructs are messages whose mistake is where the construct begins.
var constructs = map[string]bool{"found unexpected end of stream": true, "could not find expected ':'": true}

// syntaxError takes the error of the YAML library apart.
func syntaxError(err error, data []byte) (line int, text string) {
	var load *yaml.LoadError
	if !errors.As(err, &load) {
		return 1, err.Error()
	}
	line = load.Mark.Line
	if constructs[load.Message] && load.ContextMark.Line > 0 {
		line = load.ContextMark.Line
	}
	if line == 0 {
		line = 1 + bytes.Count(data[:unreadable(data)], []byte("\n"))
	}
	hint, ok := syntaxHints[load.Message]
	char := charAt(data, load.Mark.Line, load.Mark.Column)
	switch {
	case char == '\t':
		hint = "a tab cannot indent: use blanks"
	case !ok:
		return line, load.Message
	}
	hint = strings.ReplaceAll(hint, "%[1]d", fmt.Sprint(load.ContextMark.Line))
	return line, strings.ReplaceAll(hint, "%[2]q", fmt.Sprintf("%q", string(char)))
}

// charAt gives the character at a place, both numbers counted from 1.
func charAt(data []byte, line, column int) rune {
	for i, text := range strings.Split(string(data), "\n") {
		if runes := []rune(text); i+1 == line && 0 < column && column <= len(runes) {
			return runes[column-1]
		}
	}
	return ' '
}

// unreadable gives the offset of the first byte that YAML does not allow, the length if there is none.
func unreadable(data []byte) int {
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && size == 1 || r < ' ' && !strings.ContainsRune("\t\r\n", r) || r == 0x7f {
			return i
		}
		i += size
	}
	return len(data)
}
