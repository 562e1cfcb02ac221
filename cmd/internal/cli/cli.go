// Package cli holds what the programs that people run have in common: how a
// program starts and stops, its exit statuses, and how it prints errors, help
// and its version. Each program builds its commands with cobra.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/slipway-build/slipway/internal/suggest"
	"github.com/slipway-build/slipway/internal/version"
)

// The exit statuses that all programs share. A program may define more.
const (
	StatusFailed      = 1
	StatusUsage       = 2
	StatusInterrupted = 130 // 128 + SIGINT, as in a shell
)

// A Program is a command line program.
type Program struct {
	Root *cobra.Command

	// Explain returns the exit status for an error of a command and the message
	// to print. It is optional. If it returns status 0, or is nil, the status is
	// StatusFailed, or StatusInterrupted after a signal. Usage errors do not
	// reach it.
	Explain func(error) (status int, message string)

	// Translate returns the arguments in today's form. It is optional.
	Translate func(args []string) []string
}

// Main runs the program with the arguments of the process and exits. SIGINT and
// SIGTERM cancel the context of the command; a second one ends the process at
// once.
func (p Program) Main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	os.Exit(p.Run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// Run runs the program and returns its exit status. Help and version go to
// stdout, errors to stderr.
func (p Program) Run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := p.Root
	if p.Translate != nil {
		args = p.Translate(args)
	}
	root.AddCommand(newManCommand())
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SilenceErrors, root.SilenceUsage = true, true
	root.DisableFlagsInUseLine = true
	root.SetUsageTemplate(usageTemplate)
	root.SetFlagErrorFunc(explainFlag)
	prepare(root)

	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	status, message := p.explain(ctx, cmd, err)
	if message != "" {
		fmt.Fprintf(stderr, "%s: %s\n", root.Name(), message)
	}
	return status
}

// An ExitStatus is the error of a command that ends the program with this status
// and without a message, for example that of another program.
type ExitStatus int

func (s ExitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

func (p Program) explain(ctx context.Context, cmd *cobra.Command, err error) (status int, message string) {
	var failed *commandError
	if !errors.As(err, &failed) { // cobra did not get as far as the command
		err = Usagef("%w", err)
	}
	var usage *usageError
	if errors.As(err, &usage) {
		message = err.Error()
		if !strings.HasSuffix(message, "?)") { // it makes a suggestion
			message += "; see " + cmd.CommandPath() + " --help"
		}
		return StatusUsage, message
	}
	var exit ExitStatus
	if errors.As(err, &exit) {
		return int(exit), ""
	}
	if p.Explain != nil {
		if status, message = p.Explain(failed.error); status != 0 {
			return status, message
		}
	}
	if ctx.Err() != nil {
		return StatusInterrupted, "interrupted"
	}
	return StatusFailed, err.Error()
}

// Version returns the version of the release, or of the module that the program
// was built from.
func Version() string { return version.Detailed() }

// Usagef returns an error about the command line itself. The program exits with
// StatusUsage.
func Usagef(format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...)}
}

type usageError struct{ error }

func (e *usageError) Unwrap() error { return e.error }

// commandError is an error that a command returned, as opposed to those that
// cobra finds in the command line.
type commandError struct{ error }

func (e *commandError) Unwrap() error { return e.error }

// prepare gives c and its subcommands the flag --version, and marks the errors
// that they return.
func prepare(c *cobra.Command) {
	c.Version = Version()
	c.SetVersionTemplate(c.Root().Name() + " version {{.Version}}\n")
	if run := c.RunE; run != nil {
		c.RunE = func(cmd *cobra.Command, args []string) error {
			if err := run(cmd, args); err != nil {
				return &commandError{err}
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		prepare(sub)
	}
}

// Subcommands is the RunE of a command that only holds others.
func Subcommands(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return Usagef("%s requires a command", cmd.CommandPath())
	}
	var names []string
	for _, c := range cmd.Commands() {
		names = append(names, c.Name())
	}
	return Usagef("unknown command %q%s", args[0], suggest.Among(args[0], names))
}

const usageTemplate = `Usage: {{.UseLine}}
{{- if .HasExample}}

Examples:
{{.Example}}
{{- end}}
{{- if .HasAvailableSubCommands}}

Commands:
{{- range .Commands}}{{if or .IsAvailableCommand (eq .Name "help")}}
  {{rpad .Name .NamePadding}} {{.Short}}
{{- end}}{{end}}
{{- end}}
{{- if .HasAvailableLocalFlags}}

Flags:
{{.LocalFlags.FlagUsagesWrapped 100 | trimTrailingWhitespaces}}
{{- end}}
{{- if .HasAvailableInheritedFlags}}

Global flags:
{{.InheritedFlags.FlagUsagesWrapped 100 | trimTrailingWhitespaces}}
{{- end}}
`
