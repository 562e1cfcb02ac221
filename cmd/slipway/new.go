package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strings"

	"github.com/containerd/console"
	dockerref "github.com/distribution/reference"
	"github.com/spf13/cobra"

	"github.com/slipway-build/slipway/cmd/internal/cli"
	"github.com/slipway-build/slipway/examples"
	"github.com/slipway-build/slipway/internal/suggest"
)

func newNewCommand() *cobra.Command {
	var output, purpose string
	cmd := &cobra.Command{
		Use:   "new [flags] [TEMPLATE|IMAGE]",
		Short: "Write the YAML of a first machine",
		Long: `Write the YAML of a first machine, with comments. Without TEMPLATE, it asks on a
terminal, and lists the templates otherwise. It does not replace a file.

With --for enclave, it writes the YAML of a Nitro enclave that runs IMAGE, any Docker
image.`,
		Example: `  slipway new aws
  slipway new web -o site.yml && slipway run site.yml
  slipway new --for enclave ghcr.io/example/vault:v1 && slipway build --format eif enclave.yml`,
		Args: cobra.MaximumNArgs(1),
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "`file` to write (default: TEMPLATE.yml); - is standard output")
	cmd.Flags().StringVar(&purpose, "for", "", "`purpose` of a machine that runs an image: enclave")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		all, err := examples.All()
		if err != nil {
			return err
		}
		if purpose != "" {
			return newFor(cmd, all, purpose, args, output)
		}
		if len(args) == 0 {
			list(cmd, all)
			if !isTerminal() {
				return nil
			}
			if args, err = choose(cmd); err != nil || len(args) == 0 {
				return err
			}
		}
		var names []string
		for _, e := range all {
			if e.Name == args[0] {
				return writeExample(cmd, e, output)
			}
			names = append(names, e.Name)
		}
		return cli.Usagef("there is no template %q%s", args[0], suggest.Among(args[0], names))
	}
	return cmd
}

// imageKeys matches the image and the command of the service of an example.
var imageKeys = regexp.MustCompile(`(?m)^    image: .*\n(?:    command: .*\n)?`)

// newFor writes a machine that runs an image with its own command.
func newFor(cmd *cobra.Command, all []examples.Example, purpose string, args []string, output string) error {
	if purpose != "enclave" {
		return cli.Usagef("--for %q: must be enclave", purpose)
	}
	if len(args) == 0 {
		return cli.Usagef("--for %s requires a Docker image", purpose)
	}
	if _, err := dockerref.ParseNormalizedNamed(args[0]); err != nil {
		return cli.Usagef("%q: %w", args[0], err)
	}
	for _, e := range all {
		if e.Name == purpose {
			e.Text = imageKeys.ReplaceAllLiteralString(e.Text, "    image: "+args[0]+"\n")
			return writeExample(cmd, e, output)
		}
	}
	panic("there is no example " + purpose)
}

func list(cmd *cobra.Command, all []examples.Example) {
	for _, e := range all {
		fmt.Fprintf(cmd.OutOrStdout(), "%-20s %s\n", e.Name, e.Description)
	}
}

func isTerminal() bool {
	_, err := console.ConsoleFromFile(os.Stdin)
	return err == nil
}

// choose asks for a template.
func choose(cmd *cobra.Command) ([]string, error) {
	fmt.Fprint(cmd.ErrOrStderr(), "\nTemplate: ")
	line, err := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("read the name of a template: %w", err)
	}
	return strings.Fields(line), nil
}

// fromRoot matches what only holds in the repository, across lines of a comment.
var fromRoot = regexp.MustCompile(strings.ReplaceAll(" from the root of the repository", " ", `(?:\n#)? `))

func writeExample(cmd *cobra.Command, e examples.Example, output string) error {
	if output == "" {
		output = e.Name + ".yml"
	}
	text := fromRoot.ReplaceAllString(e.Text, "")
	if output == "-" {
		_, err := fmt.Fprint(cmd.OutOrStdout(), text)
		return err
	}
	text = strings.ReplaceAll(text, "examples/"+e.Name+".yml", output)
	f, err := os.OpenFile(output, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s exists: choose another name with -o", output)
	}
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	fmt.Fprintln(cmd.OutOrStdout(), output)
	if e.Name == "enclave" {
		fmt.Fprintf(cmd.ErrOrStderr(), "\nto build it: slipway build --format eif %s\n", output)
		return nil
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "\nto boot it: slipway run %s\n", output)
	return nil
}
