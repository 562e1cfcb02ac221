package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/util/progress/progressui"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/slipway-build/slipway/cmd/internal/cli"
	"github.com/slipway-build/slipway/internal/client"
)

// builderFlags are the flags of every command that uses a builder.
type builderFlags struct {
	client.Options
	builder, progress string
	file              string   // of -f
	tags              []string // of --tag
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
	builderVar(flags, &f.builder)
	flags.StringVar(&f.progress, "progress", "auto", "`kind` of display: auto, plain, tty, quiet or rawjson")
	cli.PairsVar(flags, f.BuildArgs, "build-arg", "option as `NAME=VALUE`; NAME alone takes the value from the environment", os.LookupEnv)
	cli.PairsVar(flags, f.BuildArgs, "arg", "arg of the machine as `NAME=VALUE`, the same as --build-arg; may be repeated", os.LookupEnv)
	cli.PairsVar(flags, f.BuildContexts, "build-context", "replacement for an image of the YAML as `NAME=VALUE`: a folder, docker-image://… or oci-layout://…", nil)
	flags.StringSliceVar(&f.Platforms, "platform", nil, "comma-separated `platforms` of the machine (default: the builder's)")
	flags.BoolVar(&f.Pull, "pull", false, "ask the registries for images again")
	cmd.Args = func(_ *cobra.Command, args []string) error {
		if f.file != "" && len(args) <= 1 {
			return nil
		}
		if len(args) == 0 || len(args) > 2 {
			return cli.Usagef("requires one machine YAML, or - for standard input, and, unless it is the current folder, the folder of the build context")
		}
		return nil
	}
	return f
}

// builderVar defines the flag that names a builder.
func builderVar(flags *pflag.FlagSet, builder *string) {
	flags.StringVar(builder, "builder", "", "`name` of a docker buildx builder, or address of a buildkitd (default: BUILDKIT_HOST, else the current builder)")
}

// complete sets the options that come from the arguments and the environment.
func (f *builderFlags) complete(args []string) {
	f.File, f.Context = args[0], "."
	if len(args) == 2 {
		f.Context = args[1]
	}
	if f.tags != nil {
		f.Outputs = tagOutputs(f.Outputs, f.tags)
	}
	if epoch, ok := os.LookupEnv("SOURCE_DATE_EPOCH"); ok && f.BuildArgs["SOURCE_DATE_EPOCH"] == "" {
		f.BuildArgs["SOURCE_DATE_EPOCH"] = epoch
	}
}

// arguments returns the YAML and the folder of the build context.
func (f *builderFlags) arguments(args []string) []string {
	if f.file == "" {
		return args
	}
	return append([]string{f.file}, args...)
}

// tagOutputs names the image of outputs. Without an output, the image goes to the
// Docker Engine.
func tagOutputs(outputs, tags []string) []string {
	name := "name=" + strings.Join(tags, ",")
	if len(tags) > 1 {
		name = `"` + name + `"`
	}
	if len(outputs) == 1 && outputs[0] == "." {
		return []string{"type=docker," + name}
	}
	var named []string
	for _, o := range outputs {
		if strings.Contains(o, "type=docker") || strings.Contains(o, "type=oci") || strings.Contains(o, "type=image") {
			o += "," + name
		}
		named = append(named, o)
	}
	return named
}

// start reads the machine YAML of standard input, and connects to the builder. The
// caller must call end.
func (f *builderFlags) start(cmd *cobra.Command, args []string) (b *client.Builder, progress *client.Progress, end func(), err error) {
	remove, err := readStdin(cmd, args)
	if err != nil {
		return nil, nil, nil, err
	}
	if b, progress, err = f.connect(cmd, args); err != nil {
		remove()
		return nil, nil, nil, err
	}
	return b, progress, func() {
		b.Close()
		remove()
	}, nil
}

// readStdin copies the machine YAML to a file if the argument - names standard
// input. The returned function removes the file.
func readStdin(cmd *cobra.Command, args []string) (remove func(), err error) {
	if args[0] != "-" {
		return func() {}, nil
	}
	dir, err := os.MkdirTemp("", "slipway-")
	if err != nil {
		return nil, err
	}
	remove = func() { os.RemoveAll(dir) }
	args[0] = filepath.Join(dir, "machine.yml")
	f, err := os.Create(args[0])
	if err == nil {
		_, err = io.Copy(f, cmd.InOrStdin())
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		remove()
		return nil, fmt.Errorf("read the machine YAML from standard input: %w", err)
	}
	return remove, nil
}

// connect completes the options, connects to the builder and chooses the display.
func (f *builderFlags) connect(cmd *cobra.Command, args []string) (*client.Builder, *client.Progress, error) {
	f.complete(args)
	display, err := progressui.NewDisplay(os.Stderr, progressui.DisplayMode(f.progress))
	if err != nil {
		return nil, nil, cli.Usagef("--progress: %w", err)
	}
	b, err := client.Dial(cmd.Context(), f.builder)
	return b, &client.Progress{Display: display}, err
}

// explain prints the warnings of a build and, if it failed, the lines of the YAML
// that its error is about. It returns the error.
func (f *builderFlags) explain(cmd *cobra.Command, progress *client.Progress, err error) error {
	w := cmd.ErrOrStderr()
	switch progressui.DisplayMode(f.progress) {
	case progressui.QuietMode, progressui.RawJSONMode:
	default:
		printWarnings(w, progress)
	}
	if cmd.Context().Err() == nil {
		for _, s := range errdefs.Sources(err) {
			s.Print(w)
		}
	}
	return err
}

// printWarnings prints warnings as docker buildx does.
func printWarnings(w io.Writer, progress *client.Progress) {
	switch n := len(progress.Warnings); n {
	case 0:
		return
	case 1:
		fmt.Fprint(w, "\n 1 warning found:\n")
	default:
		fmt.Fprintf(w, "\n %d warnings found:\n", n)
	}
	for _, warning := range progress.Warnings {
		fmt.Fprintf(w, " - %s\n", warning.Short)
	}
}
