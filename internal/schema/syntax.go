package schema

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"

	"github.com/slipway-build/slipway/internal/suggest"
)

// syntaxHints replace messages of the YAML library by what to do. %[1]d is the
// line of the construct that contains the error, %[2]q the character at the
// error.
var syntaxHints = map[string]string{
	"did not find expected key":                      "expected a key of the map that starts on line %[1]d: check the indentation and the quotes",
	"did not find expected '-' indicator":            "expected an entry of the list that starts on line %[1]d: check the indentation",
	"did not find expected ',' or ']'":               "the list that starts with [ on line %[1]d is not closed before this line",
	"did not find expected ',' or '}'":               "the map that starts with { on line %[1]d is not closed before this line",
	"found unexpected end of stream":                 "the quoted string that starts here is not closed",
	"could not find expected ':'":                    "a key needs a colon and a space after it",
	"mapping values are not allowed in this context": "a colon is not allowed here: put strings that contain one in quotes, or check the indentation",
	"found character that cannot start any token":    "a string that starts with %[2]q must be in quotes",
}

// constructs are the messages whose error is where the construct starts.
var constructs = map[string]bool{"found unexpected end of stream": true, "could not find expected ':'": true}

// syntaxError returns the line and the text of an error of the YAML library.
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
	if name := suggest.Placeholder(lineAt(data, line)); name != "" {
		return line, "the line " + name
	}
	hint, ok := syntaxHints[load.Message]
	char := charAt(data, load.Mark.Line, load.Mark.Column)
	switch {
	case char == '\t':
		hint = "tabs are not allowed for indentation: use spaces"
	case !ok:
		return line, load.Message
	}
	hint = strings.ReplaceAll(hint, "%[1]d", fmt.Sprint(load.ContextMark.Line))
	return line, strings.ReplaceAll(hint, "%[2]q", fmt.Sprintf("%q", string(char)))
}

// charAt returns the character at a line and column, both counted from 1, or a
// space if there is none.
func charAt(data []byte, line, column int) rune {
	if runes := []rune(lineAt(data, line)); 0 < column && column <= len(runes) {
		return runes[column-1]
	}
	return ' '
}

// lineAt returns a line, counted from 1, or "" if there is none.
func lineAt(data []byte, line int) string {
	n := 1
	for text := range bytes.SplitSeq(data, []byte("\n")) {
		if n == line {
			return string(text)
		}
		n++
	}
	return ""
}

// unreadable returns the offset of the first byte that YAML does not allow, or
// the length.
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
