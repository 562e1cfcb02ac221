package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// programs are what a release consists of.
var programs = []string{"slipway", "slipway-publish"}

// notices are the files that every archive and package has.
var notices = []string{"LICENSE", "THIRD_PARTY_NOTICES.md", "CHANGELOG.md"}

const module = "github.com/slipway-build/slipway"

// files makes everything except the examples.
func (r *release) files() error {
	host := platform{runtime.GOOS, runtime.GOARCH}
	for _, p := range append(slices.Clone(r.platforms), host) { // the host's write the man pages
		if err := r.build(p); err != nil {
			return err
		}
	}
	if err := r.command([]string{"CGO_ENABLED=0"}, "go", "build", "-C", "hack/nfpm", "-o", r.work+string(filepath.Separator), "tool"); err != nil {
		return err
	}
	extras, err := r.extras(host)
	if err != nil {
		return err
	}
	for _, p := range r.platforms {
		if err := r.archive(p, extras); err != nil {
			return err
		}
		if p.os != "linux" {
			continue
		}
		for _, format := range []string{"deb", "rpm"} {
			if err := r.pack(format, p, extras); err != nil {
				return fmt.Errorf("%s for %s: %w", format, p, err)
			}
		}
	}
	return r.formula()
}

// build compiles the programs for a platform, statically.
func (r *release) build(p platform) error {
	args := []string{"build", "-trimpath", "-buildvcs=false", "-o", r.programFolder(p) + string(filepath.Separator),
		"-ldflags", "-s -w -buildid= -X " + module + "/internal/version.number=" + r.version}
	for _, name := range programs {
		args = append(args, "./cmd/"+name)
	}
	return r.command([]string{"CGO_ENABLED=0", "GOOS=" + p.os, "GOARCH=" + p.arch, "GOFLAGS="}, "go", args...)
}

func (r *release) programFolder(p platform) string {
	return filepath.Join(r.work, p.os+"-"+p.arch)
}

func (p platform) program(name string) string {
	if p.os == "windows" {
		return name + ".exe"
	}
	return name
}

// An extra is a file that accompanies the programs.
type extra struct {
	file    string // which has its contents
	archive string // its path in an archive
	system  string // its path in a Linux system; empty in archives only
}

// extras writes the man pages and the completions of shells with the programs of
// the host, and returns them and the notices.
func (r *release) extras(host platform) ([]extra, error) {
	var all []extra
	for _, name := range notices {
		all = append(all, extra{file: filepath.Join(r.root, name), archive: name})
	}
	for _, name := range programs {
		program := filepath.Join(r.programFolder(host), host.program(name))
		if err := r.command([]string{fmt.Sprintf("SOURCE_DATE_EPOCH=%d", r.time.Unix())}, program, "man", filepath.Join(r.work, "man")); err != nil {
			return nil, err
		}
		for shell, system := range map[string]string{
			"bash": "/usr/share/bash-completion/completions/" + name,
			"zsh":  "/usr/share/zsh/vendor-completions/_" + name,
			"fish": "/usr/share/fish/vendor_completions.d/" + name + ".fish",
		} {
			text, err := exec.Command(program, "completion", shell).Output()
			if err != nil {
				return nil, fmt.Errorf("%s completion %s: %w", name, shell, err)
			}
			file := filepath.Join(r.work, name+"."+shell)
			if err := os.WriteFile(file, text, 0o644); err != nil {
				return nil, err
			}
			all = append(all, extra{file, "completions/" + name + "." + shell, system})
		}
	}
	pages, err := filepath.Glob(filepath.Join(r.work, "man", "*.1"))
	if err != nil {
		return nil, err
	}
	for _, page := range pages {
		name := filepath.Base(page)
		all = append(all, extra{page, "man/" + name, "/usr/share/man/man1/" + name})
	}
	slices.SortFunc(all, func(a, b extra) int { return strings.Compare(a.archive, b.archive) })
	return all, nil
}

// checksums writes the SHA-256 digests of all files in the form of sha256sum.
func (r *release) checksums() error {
	const name = "SHA256SUMS"
	entries, err := os.ReadDir(r.out)
	if err != nil {
		return err
	}
	var list strings.Builder
	for _, e := range entries {
		if e.Name() == name || !e.Type().IsRegular() {
			continue
		}
		sum, err := digest(filepath.Join(r.out, e.Name()))
		if err != nil {
			return err
		}
		fmt.Fprintf(&list, "%s  %s\n", sum, e.Name())
	}
	return os.WriteFile(filepath.Join(r.out, name), []byte(list.String()), 0o644)
}

func digest(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", sum.Sum(nil)), nil
}

// command runs a program at the root of the checkout.
func (r *release) command(env []string, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env = r.root, append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	fmt.Fprintln(os.Stderr, strings.Join(append(env, cmd.Args...), " "))
	return cmd.Run()
}
