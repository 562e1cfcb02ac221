package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/slipway-build/slipway/cmd/internal/cli"
	"github.com/slipway-build/slipway/publisher/ami"
)

func newGCCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "gc [flags]",
		Short: "Remove what interrupted runs left behind, and old AMIs",
		Long: "Remove what interrupted runs left behind. With --keep-last, also remove old AMIs of slipway-publish with their snapshots,\n" +
			"but none that instances, versions of launch templates, Spot requests, Auto Scaling or SSM parameters use, or that is protected from deregistration.",
		Example: `  slipway-publish aws gc --dry-run
  slipway-publish aws gc --keep-last 5 --name-prefix web- --tag Team=infra --older-than 30d`,
		Args: cobra.NoArgs,
	}
	account := newAccountFlags(cmd)
	account.dryRunVar(cmd)
	o := ami.GCOptions{OlderThan: 2 * time.Hour}
	flags := cmd.Flags()
	flags.StringVar(&o.Bucket, "bucket", "", "also look in this S3 `bucket`")
	var retention ami.Retention
	retention.Tags = map[string]string{}
	flags.IntVar(&retention.KeepLast, "keep-last", 0, "remove all but the last `number` of the AMIs that --name-prefix and --tag select")
	flags.StringVar(&retention.NamePrefix, "name-prefix", "", "with --keep-last, the `start` of the names")
	cli.PairsVar(flags, retention.Tags, "tag", "with --keep-last, a tag of the AMIs, as `KEY=VALUE`; may be repeated", nil)
	ageVar(flags, &o.OlderThan, "older-than", "keep what is younger than `age` (default: 2h)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if flags.Changed("keep-last") {
			o.Retention = &retention
		} else if retention.NamePrefix != "" || len(retention.Tags) > 0 {
			return cli.Usagef("--name-prefix and --tag require --keep-last")
		}
		cfg, err := account.load(cmd.Context())
		if err != nil {
			return err
		}
		o.Regions, o.DryRun = account.regions(), account.dryRun
		found, err := ami.GC(cmd.Context(), cfg, o)
		if ami.ClassOf(err) == ami.ClassUsage {
			return err
		}
		if printErr := printLeftovers(cmd.OutOrStdout(), found, o.DryRun, account.json); err == nil {
			err = printErr
		}
		return err
	}
	return cmd
}
