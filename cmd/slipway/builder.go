package main

import (
	"os"

	buildkit "github.com/moby/buildkit/client"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/util/progress/progressui"
	"github.com/spf13/cobra"

	"github.com/slipway-build/slipway/cmd/internal/cli"
	"github.com/slipway-build/slipway/internal/client"
)

// builderFlags are the flags of every command that uses a builder.
type builderFlags struct {
	client.Options
	builder, progress string
}

// newBuilderFlags adds the flags to a command, and its arguments: the YAML and
// the optional folder of the build context.
func newBuilderFlags(cmd *cobra.Command) *builderFlags {
	f := &builderFlags{Options: client.Options{
		BuildArgs:     map[string]string{},
		BuildContexts: map[string]string{},
		Attests:       map[string]string{},
	}}
	flags := cmd.Flags()
	flags.StringVar(&f.builder, "builder", "", "`name` of a docker buildx builder, or address of a buildkitd (default: BUILDKIT_HOST, else the current builder)")
	flags.StringVar(&f.progress, "progress", "auto", "`kind` of display: auto, plain, tty, quiet or rawjson")
	cli.PairsVar(flags, f.BuildArgs, "build-arg", "option as `NAME=VALUE`; NAME alone takes the value from the environment", os.LookupEnv)
	cli.PairsVar(flags, f.BuildContexts, "build-context", "replacement for an image of the YAML as `NAME=VALUE`: a folder, docker-image://… or oci-layout://…", nil)
	flags.StringSliceVar(&f.Platforms, "platform", nil, "comma-separated `platforms` of the machine (default: the builder's)")
	flags.BoolVar(&f.Pull, "pull", false, "ask the registries for images again")
	cmd.Args = func(_ *cobra.Command, args []string) error {
		if len(args) == 0 || len(args) > 2 {
			return cli.Usagef("requires one machine YAML and, unless it is the current folder, the folder of the build context")
		}
		return nil
	}
	return f
}

// complete sets the options that come from the arguments and the environment.
func (f *builderFlags) complete(args []string) {
	f.File, f.Context = args[0], "."
	if len(args) == 2 {
		f.Context = args[1]
	}
	if epoch, ok := os.LookupEnv("SOURCE_DATE_EPOCH"); ok && f.BuildArgs["SOURCE_DATE_EPOCH"] == "" {
		f.BuildArgs["SOURCE_DATE_EPOCH"] = epoch
	}
}

// connect completes the options, connects to the builder and chooses the display.
func (f *builderFlags) connect(cmd *cobra.Command, args []string) (*buildkit.Client, progressui.Display, error) {
	f.complete(args)
	display, err := progressui.NewDisplay(os.Stderr, progressui.DisplayMode(f.progress))
	if err != nil {
		return nil, display, cli.Usagef("--progress: %w", err)
	}
	c, err := client.Dial(cmd.Context(), f.builder)
	return c, display, err
}

// printSources prints the lines of the YAML that an error is about.
func printSources(cmd *cobra.Command, err error) error {
	if cmd.Context().Err() == nil {
		for _, s := range errdefs.Sources(err) {
			s.Print(cmd.ErrOrStderr())
		}
	}
	return err
}
