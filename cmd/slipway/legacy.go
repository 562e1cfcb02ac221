package main

import (
	"slices"
	"strings"

	"github.com/slipway-build/slipway/exporter/format"
)

// legacyFlags are flags of moby build (2017) and linuxkit build with one dash, and
// what they are called here. An empty name stands for a flag that has no meaning
// here and is dropped.
var legacyFlags = map[string]struct {
	name    string
	isValue bool // the flag has a value
}{
	"name":                  {"--name", true},
	"output":                {"--output", true},
	"o":                     {"--output", true},
	"format":                {"--format", true},
	"size":                  {"--size", true},
	"dir":                   {"--output", true},
	"arch":                  {"--platform", true},
	"pull":                  {"--pull", false},
	"no-sbom":               {"", false},
	"docker":                {"", false},
	"disable-content-trust": {"", false},
}

// translateLegacy translates the flags of moby build and linuxkit build, for
// example "build -name aws -output raw -size 100M aws.yml". In 2017, -output was
// the format.
func translateLegacy(args []string) []string {
	if len(args) == 0 || args[0] != "build" {
		return args
	}
	out := []string{args[0]}
	for i := 1; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			return append(out, args[i:]...)
		}
		name, value, hasValue := strings.Cut(strings.TrimPrefix(arg, "-"), "=")
		flag, ok := legacyFlags[name]
		// One letter is a short flag here too.
		if !ok || !strings.HasPrefix(arg, "-") || strings.HasPrefix(arg, "--") || len(name) == 1 {
			out = append(out, arg)
			continue
		}
		if flag.isValue && !hasValue && i+1 < len(args) {
			i++
			value, hasValue = args[i], true
		}
		switch {
		case flag.name == "":
			continue
		case name == "output" && areFormats(value):
			out = append(out, "--format="+value)
		case name == "arch":
			out = append(out, "--platform=linux/"+value)
		case hasValue:
			out = append(out, flag.name+"="+value)
		default:
			out = append(out, flag.name)
		}
	}
	return out
}

// areFormats reports whether a text is a comma-separated list of formats.
func areFormats(text string) bool {
	return !slices.ContainsFunc(strings.Split(text, ","), func(name string) bool {
		_, ok := format.Lookup(name)
		return !ok
	})
}
