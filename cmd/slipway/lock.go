package main

import (
	"fmt"

	"github.com/containerd/continuity"
	"github.com/spf13/cobra"

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
	c, display, err := f.connect(cmd, args)
	if err != nil {
		return err
	}
	defer c.Close()
	data, err := client.Lock(cmd.Context(), c, f.Options, display)
	if err != nil {
		return printSources(cmd, err)
	}
	path := frontend.LockName(f.File)
	if err := continuity.AtomicWriteFile(path, data, 0o644); err != nil {
		return err
	}
	fmt.Fprintln(cmd.OutOrStdout(), path)
	return nil
}
