// Package cmdline reads the command line of the Linux kernel.
package cmdline

import (
	"fmt"
	"os"
	"strings"
)

// Arg is one argument of the kernel's command line: "quiet" or "key=value".
type Arg struct {
	Key, Value string
	HasValue   bool
}

// Parse splits a kernel command line as the kernel does (lib/cmdline.c, next_arg): at blanks outside double quotes, with quotes around
// the whole argument or its value removed.
func Parse(line string) []Arg {
	var args []Arg
	quoted := false
	words := strings.FieldsFunc(line, func(c rune) bool {
		if c == '"' {
			quoted = !quoted
		}
		return !quoted && (c == ' ' || c == '\t' || c == '\n')
	})
	for _, word := range words {
		key, value, ok := strings.Cut(unquote(word), "=")
		args = append(args, Arg{key, unquote(value), ok})
	}
	return args
}

func unquote(s string) string {
	if rest, ok := strings.CutPrefix(s, `"`); ok {
		return strings.TrimSuffix(rest, `"`)
	}
	return s
}

// Read parses the command line of the running kernel, /proc/cmdline.
func Read() ([]Arg, error) {
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return nil, fmt.Errorf("kernel command line: %w", err)
	}
	return Parse(string(line)), nil
}

// Lookup gives the value of the last argument with that key.
func Lookup(args []Arg, key string) (value string, ok bool) {
	for _, arg := range args {
		if arg.Key == key {
			value, ok = arg.Value, true
		}
	}
	return value, ok
}
