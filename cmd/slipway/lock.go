package main

import (
	"fmt"

	"github.com/containerd/continuity"
	"github.com/spf13/cobra"

	"github.com/slipway-build/slipway/cmd/internal/cli"
	"github.com/slipway-build/slipway/frontend"
	"github.com/slipway-build/slipway/internal/client"
)

func newLockCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lock [flags] YAML [CONTEXT]",
		Short: "Write the digests of a machine's images to its lock file",
		Example: `  slipway lock aws.yml
  slipway lock --update slipwaybuild/sshd aws.yml`,
	}
	f := newBuilderFlags(cmd)
	cmd.Flags().Func("update", "comma-separated `images` to resolve again; --update= resolves only new ones (default: all)", func(names string) error {
		f.BuildArgs[frontend.LockUpdate] = names
		return nil
	})
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return lock(cmd, f, args) }
	return cmd
}

func lock(cmd *cobra.Command, f *builderFlags, args []string) error {
	if args[0] == "-" {
		return cli.Usagef("requires a file, beside which it writes the lock")
	}
	b, progress, err := f.connect(cmd, args)
	if err != nil {
		return err
	}
	defer b.Close()
	data, err := client.Lock(cmd.Context(), b, f.Options, progress)
	if err := f.explain(cmd, progress, err); err != nil {
		return err
	}
	path := frontend.LockName(f.File)
	if err := continuity.AtomicWriteFile(path, data, 0o644); err != nil {
		return err
	}
	fmt.Fprintln(cmd.OutOrStdout(), path)
	return nil
}
