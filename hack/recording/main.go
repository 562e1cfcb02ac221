// Command recording records commands in a terminal, and renders the recording as
// an animated SVG. README.md shows one of a real build and boot. Run it at the root
// of the checkout, with the programs in PATH and the stack running:
//
//	go run ./hack/recording record hack/recording/script docs/recording.cast
//	go run ./hack/recording render docs/recording.cast docs/recording.svg
//
// A script has one shell command a line; # starts a comment. The recording is an
// asciicast (docs.asciinema.org, asciicast v2), which asciinema plays too. The SVG
// depends on nothing but the recording: it has no scripts and uses no network.
package main

import (
	"bytes"
	"fmt"
	"os"
)

// The size of the terminal, in characters.
const (
	columns = 100
	rows    = 26
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "recording:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 3 {
		return fmt.Errorf("usage: recording record SCRIPT CAST, or recording render CAST SVG")
	}
	in, err := os.ReadFile(args[1])
	if err != nil {
		return err
	}
	switch args[0] {
	case "record":
		c, err := record(in)
		if err != nil {
			return err
		}
		return write(args[2], c.encode)
	case "render":
		c, err := decode(bytes.NewReader(in))
		if err != nil {
			return fmt.Errorf("%s: %w", args[1], err)
		}
		return write(args[2], c.render)
	}
	return fmt.Errorf("unknown command %q", args[0])
}

func write(name string, contents func(*bytes.Buffer) error) error {
	var out bytes.Buffer
	if err := contents(&out); err != nil {
		return err
	}
	return os.WriteFile(name, out.Bytes(), 0o644)
}
