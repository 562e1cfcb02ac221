// Package failure carries the message of a program that fails inside the build
// to the frontend. BuildKit's own error has only the command line and the exit
// status: what a program prints goes to the progress display, which
// --progress quiet hides.
//
// The program leaves its message in its output directory, which BuildKit keeps
// for the frontend. The frontend cannot read files of a failed step, so it runs
// the program once more, with the subcommand [Command].
package failure

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"unicode"
)

// Command is the subcommand that prints the message. Its argument is the output
// directory.
const Command = "failure"

const (
	fileName = ".slipway-failure"
	limit    = 16 << 10 // bytes of a message
)

// Write leaves the message of err in the directory that follows --out in args.
// It does nothing if it cannot: the error is on standard error as well.
func Write(args []string, err error) {
	for i := range args[1:] {
		if args[i] == "--out" {
			_ = os.WriteFile(filepath.Join(args[i+1], fileName), []byte(err.Error()), 0o644)
			return
		}
	}
}

// Print copies the message in a directory to w.
func Print(dir string, w io.Writer) error {
	f, err := os.Open(filepath.Join(dir, fileName))
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(w, io.LimitReader(f, limit))
	return err
}

// Clean returns a message without what can change a terminal.
func Clean(text string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r == '\n' || unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, text))
}

// A Message is an [io.WriteCloser] that keeps the beginning of a message.
type Message struct{ strings.Builder }

// Write implements [io.Writer].
func (m *Message) Write(p []byte) (int, error) {
	m.Builder.Write(p[:min(len(p), limit-m.Len())])
	return len(p), nil
}

// Close implements [io.Closer].
func (m *Message) Close() error { return nil }
