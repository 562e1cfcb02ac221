// Package version holds the version of Slipway that all its programs share.
package version

import (
	"regexp"
	"runtime/debug"
	"strings"
)

// Development is the release of programs that no release consists of.
const Development = "devel"

// number is the version of a release, which the linker sets.
var number string

// A pseudo-version ends with a time and a commit (go.dev/ref/mod,
// pseudo-versions).
var pseudo = regexp.MustCompile(`[-.]\d{14}-[0-9a-f]{12}$`)

// Release returns the version of the release that the program belongs to, for
// example 1.2.3, or [Development]. All programs of a release return the same,
// however they were built.
func Release() string {
	if number != "" {
		return number
	}
	return release(module())
}

func release(module string) string {
	if !strings.HasPrefix(module, "v") || strings.Contains(module, "+") || pseudo.MatchString(module) {
		return Development
	}
	return module[1:]
}

// Detailed returns the release or, for a program without one, the version of the
// module that it was built from.
func Detailed() string {
	if number == "" {
		return module()
	}
	return number
}

func module() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
