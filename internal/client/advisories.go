package client

import (
	"fmt"
	"slices"
)

// An Advisory is a published vulnerability of BuildKit.
type Advisory struct {
	Name  string // its identifiers
	Fixed string // first version of BuildKit without it
	Text  string // what it allows
}

// Advisories are the known vulnerabilities of BuildKit that affect builds with
// frontends or images of strangers. The documentation lists the same ones.
var Advisories = []Advisory{
	{"CVE-2026-33747, GHSA-4c29-8rgm-jvjj", "0.28.1", "a frontend writes outside of the builder's state"},
	{"CVE-2026-33748, GHSA-4vrq-3vrq-g6gg", "0.28.1", "a Git URL with a subfolder reads files outside of the repository"},
	{"GHSA-7236-3392-c5c6", "0.31.1", "a frontend switches seccomp off"},
	{"moby/buildkit#6962", "0.31.2", "five more vulnerabilities"},
}

// Oldest is the oldest version of BuildKit that works.
const Oldest = "0.13.0"

// SafeVersion returns the first version of BuildKit without known
// vulnerabilities.
func SafeVersion() string {
	return slices.MaxFunc(Advisories, func(a, b Advisory) int { return compareVersions(a.Fixed, b.Fixed) }).Fixed
}

// Vulnerabilities returns the advisories that a version of BuildKit is affected
// by. It returns all of them if the version is unknown.
func Vulnerabilities(version string) []Advisory {
	if !isVersion(version) {
		return Advisories
	}
	return slices.DeleteFunc(slices.Clone(Advisories), func(a Advisory) bool { return compareVersions(version, a.Fixed) >= 0 })
}

// isVersion reports whether a version has a number. Builds from an unknown
// commit are 0.0.0.
func isVersion(version string) bool { return compareVersions(version, "0.0.0") != 0 }

// compareVersions compares versions like v1.2.3 and 1.2.3-rc1+suffix by their
// three numbers. A version without them is 0.0.0. A release candidate counts as
// the release: only development builds have them.
func compareVersions(a, b string) int {
	parse := func(version string) [3]int {
		var v [3]int
		if version != "" && version[0] == 'v' {
			version = version[1:]
		}
		_, _ = fmt.Sscanf(version, "%d.%d.%d", &v[0], &v[1], &v[2])
		return v
	}
	x, y := parse(a), parse(b)
	return slices.Compare(x[:], y[:])
}
