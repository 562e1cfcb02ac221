// Package cmdline parses the command line of the Linux kernel as the kernel
// itself does (Linux, lib/cmdline.c, next_arg).
package cmdline

import (
	"fmt"
	"os"
	"strings"
)

// Arg is one argument: "quiet" or "key=value", without its quotes.
type Arg struct {
	Key, Value string
	HasValue   bool
}

// String returns the argument without quotes.
func (a Arg) String() string {
	if a.HasValue {
		return a.Key + "=" + a.Value
	}
	return a.Key
}

// Parse returns the arguments of a command line.
func Parse(line string) []Arg {
	var args []Arg
	for _, word := range Split(line) {
		if word != "" {
			args = append(args, ParseArg(word))
		}
	}
	return args
}

// Split splits a command line at each white space character outside double
// quotes. The words keep their quotes. Where several such characters follow each
// other, the words between them are empty.
func Split(line string) []string {
	var words []string
	quoted := false
	start := 0
	for i := range len(line) {
		switch c := line[i]; {
		case c == '"':
			quoted = !quoted
		case !quoted && (c == ' ' || c >= '\t' && c <= '\r'):
			words = append(words, line[start:i])
			start = i + 1
		}
	}
	return append(words, line[start:])
}

// ParseArg parses one word of [Split]. It removes the quotes around the word, or
// around the value.
func ParseArg(word string) Arg {
	rest, quoted := strings.CutPrefix(word, `"`)
	// The kernel finds no value in a word that starts with "=", unless there is
	// another one.
	name, value, ok := cutValue(rest)
	if !ok {
		if quoted {
			rest = strings.TrimSuffix(rest, `"`)
		}
		return Arg{Key: rest}
	}
	if inner, ok := strings.CutPrefix(value, `"`); ok {
		value = strings.TrimSuffix(inner, `"`)
	} else if quoted {
		value = strings.TrimSuffix(value, `"`)
	}
	return Arg{name, value, true}
}

// cutValue splits a word at the first "=" after its first character.
func cutValue(word string) (name, value string, ok bool) {
	if word == "" {
		return "", "", false
	}
	name, value, ok = strings.Cut(word[1:], "=")
	return word[:1] + name, value, ok
}

// Read parses the command line of the running kernel, /proc/cmdline.
func Read() ([]Arg, error) {
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return nil, fmt.Errorf("kernel command line: %w", err)
	}
	return Parse(string(line)), nil
}

// Lookup returns the value of the last argument with a key.
func Lookup(args []Arg, key string) (value string, ok bool) {
	for _, arg := range args {
		if arg.Key == key {
			value, ok = arg.Value, true
		}
	}
	return value, ok
}
