package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

var requirement = regexp.MustCompile(`'([\w-]+)(?:\[\w+\])?==([\w.]+)'`)

// pypi returns the pins of programs from PyPI.
func pypi() ([]pin, error) {
	var pins []pin
	for _, file := range []string{"hack/moto", "hack/spdx"} {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		matches := requirement.FindAllStringSubmatch(string(text), -1)
		if matches == nil {
			return nil, fmt.Errorf("%s has no requirement", file)
		}
		for _, match := range matches {
			p := pin{kind: "pypi", name: match[1], file: file, pinned: match[2]}
			// The output is "NAME (VERSION)", then lines with details.
			out, err := run(".", "python3", "-m", "pip", "--disable-pip-version-check", "index", "versions", p.name)
			p.err = err
			if found := regexp.MustCompile(`^\S+ \(([^)]+)\)`).FindStringSubmatch(out); found != nil {
				p.served = found[1]
			} else if err == nil {
				p.err = errors.New("no version")
			}
			p.update = func() error {
				return replace(file, match[0], strings.Replace(match[0], "=="+p.pinned, "=="+p.served, 1))
			}
			pins = append(pins, p)
		}
	}
	return pins, nil
}

// uses matches an action that a workflow pins by its commit, with its version in
// a comment.
var uses = regexp.MustCompile(`uses: ([\w.-]+/[\w.-]+)(?:/\S*)?@([0-9a-f]{40}) # (v[\d.]+)`)

// actions returns the pins of GitHub Actions.
func actions() ([]pin, error) {
	files, _ := filepath.Glob(".github/workflows/*.yml") // the pattern is valid
	files = append(files, "examples/ci/github.yml", "examples/ci/review.yml")
	var pins []pin
	tags := map[string]string{} // output of git by action
	errs := map[string]error{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		seen := map[string]bool{}
		for _, match := range uses.FindAllStringSubmatch(string(text), -1) {
			name, commit := match[1], match[2]
			if seen[name+commit] {
				continue
			}
			seen[name+commit] = true
			if _, ok := tags[name]; !ok {
				tags[name], errs[name] = run(".", "git", "ls-remote", "--tags", "https://github.com/"+name)
			}
			p := pin{kind: "action", name: name, file: file, pinned: match[3], err: errs[name]}
			var newest string
			p.served, newest = newestTag(tags[name])
			if p.err == nil && newest == "" {
				p.err = errors.New("no version")
			}
			p.update = func() error { return replace(file, commit+" # "+p.pinned, newest+" # "+p.served) }
			pins = append(pins, p)
		}
	}
	return pins, nil
}

var release = regexp.MustCompile(`^([0-9a-f]{40})\trefs/tags/(v(\d+)\.(\d+)\.(\d+))(\^\{\})?$`)

// newestTag returns the newest release in the output of git ls-remote, with its
// commit. An annotated tag has a second line, with its commit.
func newestTag(tags string) (tag, commit string) {
	var newest [3]int
	for line := range strings.Lines(tags) {
		match := release.FindStringSubmatch(strings.TrimSpace(line))
		if match == nil {
			continue
		}
		var v [3]int
		for i := range v {
			v[i], _ = strconv.Atoi(match[3+i]) // the pattern allows digits only
		}
		if tag == "" || slices.Compare(v[:], newest[:]) >= 0 {
			newest, tag, commit = v, match[2], match[1]
		}
	}
	return tag, commit
}
