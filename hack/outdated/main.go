// Command outdated compares the pinned versions of what the project uses with
// those that are served now, and prints the differences as a table: Debian
// packages, Go and its modules, programs from PyPI, and GitHub Actions. With
// --update it pins the new versions, and adds the changes of packages to
// packages/CHANGELOG.md.
//
// It exits with status 1 if it cannot look something up. The table names it.
//
// Usage: outdated [--update]
package main

import (
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"strings"
	"text/tabwriter"
)

// A pin is one version that the project pins.
type pin struct {
	kind, name, file string
	pinned, served   string
	err              error // served is unknown

	// update pins the served version. It is nil if another pin's update does
	// that.
	update func() error
}

func (p pin) outdated() bool { return p.err == nil && p.pinned != p.served }

func main() {
	log.SetFlags(0)
	log.SetPrefix("outdated: ")
	update := flag.Bool("update", false, "pin the new versions")
	flag.Parse()
	if flag.NArg() > 0 {
		log.Fatal("usage: outdated [--update]")
	}
	var pins []pin
	for _, find := range []func() ([]pin, error){debian, goModules, goPrograms, engine, pypi, actions} {
		found, err := find()
		if err != nil {
			log.Fatal(err)
		}
		pins = append(pins, found...)
	}
	table(os.Stdout, pins)
	if *update {
		if err := apply(pins); err != nil {
			log.Fatal(err)
		}
	}
	for _, p := range pins {
		if p.err != nil {
			os.Exit(1)
		}
	}
}

// table prints the pins that are outdated or could not be looked up, and how
// many there are.
func table(out io.Writer, pins []pin) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "KIND\tNAME\tPINNED\tSERVED\tFILE")
	outdated, unknown := 0, 0
	for _, p := range pins {
		switch {
		case p.err != nil:
			unknown++
			fmt.Fprintf(w, "%s\t%s\t%s\tunknown: %s\t%s\n", p.kind, p.name, p.pinned, lastLine(p.err.Error()), p.file)
		case p.outdated():
			outdated++
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", p.kind, p.name, p.pinned, p.served, p.file)
		}
	}
	w.Flush() // errors show in the output
	fmt.Fprintf(out, "%d pins: %d outdated, %d unknown\n", len(pins), outdated, unknown)
}

// apply pins the served versions, and notes those of packages.
func apply(pins []pin) error {
	for _, p := range pins {
		if p.outdated() && p.update != nil {
			if err := p.update(); err != nil {
				return fmt.Errorf("pin %s %s: %w", p.name, p.served, err)
			}
		}
	}
	return note(pins)
}

// run runs a command in dir and returns its output.
func run(dir string, command ...string) (string, error) {
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir = dir
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if why := lastLine(stderr.String()); err != nil && why != "" {
		return "", fmt.Errorf("%s: %s", command[0], why)
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", strings.Join(command, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}

func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return strings.TrimSpace(text[strings.LastIndex(text, "\n")+1:])
}

// replace replaces a text that must be in a file.
func replace(file string, pairs ...string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	changed := string(text)
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(changed, pairs[i]) {
			return fmt.Errorf("%s does not contain %q", file, pairs[i])
		}
		changed = strings.ReplaceAll(changed, pairs[i], pairs[i+1])
	}
	return os.WriteFile(file, []byte(changed), 0o644) // keeps the mode of an existing file
}
