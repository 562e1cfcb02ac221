package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/slipway-build/slipway/publisher/ami"
)

func newGCCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "gc [flags]",
		Short: "Remove what interrupted runs left behind",
		Args:  cobra.NoArgs,
	}
	account := newAccountFlags(cmd)
	account.dryRunVar(cmd)
	o := ami.GCOptions{OlderThan: 2 * time.Hour}
	flags := cmd.Flags()
	flags.StringVar(&o.Bucket, "bucket", "", "also look in this S3 `bucket`")
	ageVar(flags, &o.OlderThan, "older-than", "keep what is younger than `age` (default: 2h)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := account.load(cmd.Context())
		if err != nil {
			return err
		}
		o.Regions, o.DryRun = account.regions(), account.dryRun
		found, err := ami.GC(cmd.Context(), cfg, o)
		if printErr := printLeftovers(cmd.OutOrStdout(), found, o.DryRun, account.json); err == nil {
			err = printErr
		}
		return err
	}
	return cmd
}
