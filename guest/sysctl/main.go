// Command sysctl sets kernel parameters once, from files in the format of
// sysctl.d(5): lines of "key = value", keys with dots or slashes, wildcards for
// existing parameters, and "-" before a key that may fail. If some parameters
// cannot be set, it sets the others and exits with status 1. Under the name
// sysfs it does the same below /sys.
//
// Usage: sysctl [FILE...]
//
// The default is all of /etc/sysctl.d/*.conf, or /etc/sysfs.d/*.conf for sysfs,
// in the order of their names.
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

func main() {
	name, root := filepath.Base(os.Args[0]), "/proc/sys"
	if name == "sysfs" {
		root = "/sys"
	}
	log.SetFlags(0)
	log.SetPrefix(name + ": ")
	files := os.Args[1:]
	if len(files) == 0 {
		files, _ = filepath.Glob("/etc/" + name + ".d/*.conf") // sorted; the pattern is valid
	}
	failed := false
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err == nil {
			err = apply(root, file, string(text))
		}
		if err != nil {
			log.Print(err)
			failed = true
		}
	}
	if failed {
		os.Exit(1)
	}
}

// apply sets the parameters in the text of a file below root. The error has a
// line for each parameter that could not be set.
func apply(root, file, text string) error {
	var failed []error
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		key, optional := strings.CutPrefix(strings.TrimSpace(key), "-")
		if !ok || key == "" {
			failed = append(failed, fmt.Errorf("%s:%d: must be key = value, not %q", file, number, line))
			continue
		}
		if err := set(root, key, strings.TrimSpace(value)); err != nil && !optional {
			failed = append(failed, fmt.Errorf("%s:%d: %w", file, number, err))
		}
	}
	return errors.Join(failed...)
}

// set writes a value to the parameters that a key names.
func set(root, key, value string) error {
	// The first separator decides whether dots and slashes are swapped, for
	// example in net.ipv4.conf.eth0/1.rp_filter.
	name := key
	if i := strings.IndexAny(key, "./"); i >= 0 && key[i] == '.' {
		name = strings.Map(func(r rune) rune {
			switch r {
			case '.':
				return '/'
			case '/':
				return '.'
			}
			return r
		}, key)
	}
	if slices.Contains(strings.Split(name, "/"), "..") {
		return fmt.Errorf("%s: not a parameter", key)
	}
	paths := []string{filepath.Join(root, name)}
	if strings.ContainsAny(name, "*?[") {
		matches, err := filepath.Glob(paths[0])
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		paths = matches // may be empty
	}
	var failed []error
	for _, path := range paths {
		if err := write(path, value); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", key, err))
		}
	}
	return errors.Join(failed...)
}

func write(path, value string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("the kernel has no such parameter")
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteString(value + "\n"); err != nil {
		return fmt.Errorf("cannot be set to %q: %w", value, errors.Unwrap(err))
	}
	return nil
}
