// Package command holds what the programs that run inside the build have in
// common: subcommands and errors of one line.
//
// These programs parse flags with the standard library. Cobra, which the
// programs in the user's hand share, adds 350 KB to the packer's 4.1 MB, and
// the packer's bytes are part of every segment's cache key: each release of
// cobra would repack all machines.
package command

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"

	"github.com/slipway-build/slipway/internal/failure"
	"github.com/slipway-build/slipway/internal/printable"
)

// A Command is a subcommand. It reports about its work on report.
type Command struct {
	Name string
	Run  func(args []string, report io.Writer) error
}

// memoryLimit is the size in bytes from which the garbage collector works harder,
// instead of letting the heap grow to twice what is in use.
const memoryLimit = 208 << 20

// Main runs the subcommand that the first argument names. If it fails, Main
// exits with status 1 and leaves the message for the frontend.
func Main(program string, commands []Command) {
	debug.SetMemoryLimit(memoryLimit)
	commands = append(commands, Command{failure.Command, printFailure})
	err := run(commands, os.Args[1:])
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		err = message(program, err)
		fmt.Fprintln(os.Stderr, err)
		failure.Write(os.Args, err)
		os.Exit(1)
	}
}

// printFailure prints the message of an earlier run.
func printFailure(args []string, report io.Writer) error {
	if len(args) != 1 {
		return fmt.Errorf("%s: requires the output directory of a failed run", failure.Command)
	}
	return failure.Print(args[0], report)
}

// message returns a printable error: the names in it can be those of strangers.
func message(program string, err error) error {
	return fmt.Errorf("%s: %s", program, printable.Lines(err.Error()))
}

func run(commands []Command, args []string) error {
	var names []string
	for _, c := range commands {
		if len(args) > 0 && c.Name == args[0] {
			return c.Run(args[1:], os.Stdout)
		}
		names = append(names, c.Name)
	}
	return fmt.Errorf("the first argument must be one of: %s", strings.Join(names, ", "))
}

// Flags is a [flag.FlagSet] that returns errors instead of printing them.
type Flags struct {
	*flag.FlagSet
	Positional bool // accepts arguments after the flags
}

// NewFlags returns an empty set of flags for a subcommand.
func NewFlags(command string) *Flags {
	flags := &Flags{FlagSet: flag.NewFlagSet(command, flag.ContinueOnError)}
	flags.SetOutput(io.Discard)
	return flags
}

// ListVar defines a flag that may be repeated.
func (f *Flags) ListVar(values *[]string, name, usage string) {
	f.Func(name, usage, func(s string) error {
		*values = append(*values, s)
		return nil
	})
}

// Parse reads args. It fails if one of the required flags has no value.
func (f *Flags) Parse(args []string, required ...string) error {
	if err := f.FlagSet.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			f.SetOutput(os.Stdout)
			f.Usage()
			return err
		}
		return fmt.Errorf("%s: %w", f.Name(), err)
	}
	if !f.Positional && f.NArg() > 0 {
		return fmt.Errorf("%s: unexpected argument %q", f.Name(), f.Arg(0))
	}
	for _, name := range required {
		if f.Lookup(name).Value.String() == "" {
			return fmt.Errorf("%s: --%s is missing", f.Name(), name)
		}
	}
	return nil
}
