// Package command is what the programs that run inside the build have in
// common: subcommands whose errors are one line.
package command

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
)

// Command is a subcommand. It writes what it reports about its work to report.
type Command struct {
	Name string
	Run  func(args []string, report io.Writer) error
}

// Main runs the subcommand that the arguments of the program start with, and
// ends the program with status 1 if it fails.
func Main(program string, commands []Command) {
	err := run(commands, os.Args[1:])
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(os.Stderr, "%s: %v\n", program, err)
		os.Exit(1)
	}
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

// Flags is a flag.FlagSet whose errors are returned, not printed.
type Flags struct {
	*flag.FlagSet
	Positional bool // arguments after the flags are expected
}

// NewFlags returns the flags of a subcommand.
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

// Parse reads args and makes sure that the required flags have a value.
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
