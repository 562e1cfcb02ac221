// Package printable escapes text from strangers for messages: names in images and
// folders, labels and build arguments can have control characters, which must
// not control the terminal or the log that shows a message.
package printable

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Line escapes the characters of a line that are not printable, as Go does in
// quoted strings. Newlines and tabs are among them.
func Line(line string) string {
	var out strings.Builder
	for line != "" {
		r, size := utf8.DecodeRuneInString(line)
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&out, `\x%02x`, line[0])
		case unicode.IsPrint(r):
			out.WriteRune(r)
		default:
			out.WriteString(strings.Trim(fmt.Sprintf("%+q", r), "'"))
		}
		line = line[size:]
	}
	return out.String()
}

// Lines escapes what Line escapes in each line of a text.
func Lines(text string) string {
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		lines[i] = Line(l)
	}
	return strings.Join(lines, "\n")
}
