package main

import (
	"fmt"
	"net/url"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
)

const lockFile = "hack/debian/lock"

// debian returns the pins of Debian packages. They are updated together.
func debian() ([]pin, error) {
	text, err := os.ReadFile(lockFile)
	if err != nil {
		return nil, err
	}
	served, err := run(".", "hack/debian-lock", "--print")
	return comparePackages(string(text), served, err), nil
}

// comparePackages compares two locks. A version is the same for all
// architectures and files of a package, or the first one is listed.
func comparePackages(lock, served string, lookup error) []pin {
	now := map[string]string{}
	for _, p := range packages(served) {
		now[p.name] = p.version
	}
	var pins []pin
	for _, p := range packages(lock) {
		q := pin{kind: "debian", name: p.name, file: lockFile, pinned: p.version, served: now[p.name], err: lookup}
		if len(pins) == 0 {
			q.update = func() error { return os.WriteFile(lockFile, []byte(served+"\n"), 0o644) }
		}
		pins = append(pins, q)
	}
	// The first pin carries the update, even if only others are outdated.
	if i := slices.IndexFunc(pins, pin.outdated); i > 0 {
		pins[i].update, pins[0].update = pins[0].update, nil
	}
	return pins
}

type debianPackage struct{ name, version string }

// packages returns the packages of a lock, in its order. A source package has
// the version of its last file, that of Debian's changes.
func packages(lock string) []debianPackage {
	var all []debianPackage
	for line := range strings.Lines(lock) {
		fields := strings.Fields(line)
		if len(fields) != 4 || fields[0] == "#" {
			continue
		}
		p := debianPackage{fields[0], version(fields[2])}
		last := len(all) - 1
		switch {
		case last < 0 || all[last].name != p.name:
			all = append(all, p)
		case fields[1] == "source":
			all[last] = p
		}
	}
	return all
}

var suffix = regexp.MustCompile(`(_[a-z0-9]+\.deb|\.(orig|debian)\.tar\.\w+)$`)

// version returns the version in the path of a package, without its epoch.
func version(file string) string {
	name, err := url.PathUnescape(path.Base(file))
	if err != nil {
		return file
	}
	_, version, _ := strings.Cut(suffix.ReplaceAllString(name, ""), "_")
	return version
}

const changelog = "packages/CHANGELOG.md"

// note adds a section to the changelog of the packages: each changed version,
// with the images that have it.
func note(pins []pin) error {
	text, err := os.ReadFile(changelog)
	if err != nil {
		return err
	}
	lock, err := os.ReadFile(lockFile)
	if err != nil {
		return err
	}
	section, err := changes(pins, date(string(lock)))
	if err != nil || section == "" {
		return err
	}
	head, rest, found := strings.Cut(string(text), "\n## ")
	if found {
		rest = "\n## " + rest
	}
	return os.WriteFile(changelog, []byte(strings.TrimRight(head, "\n")+"\n\n"+section+rest), 0o644)
}

// date returns the date of a lock, which is also that of the images' tags.
func date(lock string) string {
	_, snapshot, _ := strings.Cut(lock, "\n# snapshot ")
	return snapshot[:min(len(snapshot), len("20060102"))]
}

// changes returns the section of the changelog, or nothing if no image changes.
func changes(pins []pin, date string) (string, error) {
	var lines []string
	for _, p := range pins {
		if !p.outdated() {
			continue
		}
		images, err := images(p)
		if err != nil {
			return "", err
		}
		if len(images) > 0 {
			lines = append(lines, fmt.Sprintf("- %s %s → %s: `%s`\n", p.name, p.pinned, p.served, strings.Join(images, "`, `")))
		}
	}
	if lines == nil {
		return "", nil
	}
	return "## v1-" + date + "\n\n" + strings.Join(lines, ""), nil
}

// images returns the images that are built with what a pin names: those whose
// Dockerfile gets the Debian package, or that have the Go module.
func images(p pin) ([]string, error) {
	dirs, err := os.ReadDir("packages")
	if err != nil {
		return nil, err
	}
	var names []string
	for _, dir := range dirs {
		dockerfile := path.Join("packages", dir.Name(), "Dockerfile")
		text, err := os.ReadFile(dockerfile)
		if err != nil {
			continue // a file
		}
		switch p.kind {
		case "debian":
			if regexp.MustCompile(`[\s]` + regexp.QuoteMeta(p.name) + `[\s\\]`).Match(text) {
				names = append(names, dir.Name())
			}
		case "go":
			if strings.Contains(string(text), "COPY "+p.file) {
				names = append(names, dir.Name())
			}
		}
	}
	frontend, err := os.ReadFile("Dockerfile")
	if err == nil && p.kind == "debian" && regexp.MustCompile(`[\s]`+regexp.QuoteMeta(p.name)+`[\s\\]`).Match(frontend) {
		names = append(names, "slipway")
	}
	return names, err
}
