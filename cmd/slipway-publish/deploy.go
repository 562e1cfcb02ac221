package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/slipway-build/slipway/cmd/internal/cli"
	"github.com/slipway-build/slipway/publisher/ami"
)

// launchFlags are the flags about the test of an AMI with an instance, and about
// waiting for an instance.
type launchFlags struct {
	on     bool
	launch ami.Launch
}

// define adds the flags. Where instances are waited for without a test too,
// onlyTest is false.
func (f *launchFlags) define(flags *pflag.FlagSet, before string, onlyTest bool) {
	l := &f.launch
	flags.BoolVar(&f.on, "launch", false, "start an instance of the AMI, wait until it is up and terminate it "+before)
	flags.StringVar(&l.InstanceType, "launch-type", "", "`type` of that instance (default: t3.micro, or t4g.micro for arm64)")
	flags.StringVar(&l.Subnet, "launch-subnet", "", "`ID` of its subnet (default: one of the default VPC)")
	flags.StringSliceVar(&l.SecurityGroups, "launch-security-group", nil, "comma-separated `IDs` of its security groups (default: that of the VPC)")
	flags.StringVar(&l.Console, "launch-console", ami.DefaultConsole, "`expression` that its console output must match")
	whose := "instance"
	if onlyTest {
		whose = "instance of --launch"
	}
	flags.IntVar(&l.Port, "wait-port", 0, "TCP `port`, for example 22, that each "+whose+" must accept a connection at, besides passing its status checks")
	flags.DurationVar(&l.Limit, "wait-timeout", 15*time.Minute, "`time` for each "+whose+" to come up")
}

// options returns the test, or nil. Flags about a test without --launch are an
// error.
func (f *launchFlags) options(flags *pflag.FlagSet, onlyTest bool) (*ami.Launch, error) {
	names := []string{"launch-type", "launch-subnet", "launch-security-group", "launch-console"}
	if onlyTest {
		names = append(names, "wait-port", "wait-timeout")
	}
	if f.launch.Limit <= 0 {
		return nil, cli.Usagef("--wait-timeout must be greater than zero")
	}
	if f.on {
		return &f.launch, nil
	}
	for _, name := range names {
		if flags.Changed(name) {
			return nil, cli.Usagef("--%s requires --launch", name)
		}
	}
	return nil, nil
}

func newDeployCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "deploy [flags] AMI",
		Short: "Roll an AMI out to running instances",
		Long: "Replace the root volumes of running instances by volumes of an AMI, one instance after the other.\n" +
			"Each instance must be up again before the next one follows. The instances keep their IDs, addresses and other volumes.\n" +
			"With --launch, an instance of its own tests the AMI first. --ssm-parameter is set last.\n" +
			"To test an AMI before it is shared, use --launch of slipway-publish aws.",
		Example: `  slipway-publish aws deploy ami-0123456789abcdef0 --instance i-0aaaaaaaaaaaaaaaa --wait-port 22
  slipway-publish aws deploy ami-0123456789abcdef0 --launch --instance i-0aaaaaaaaaaaaaaaa,i-0bbbbbbbbbbbbbbbb --delete-old-volume
  slipway-publish aws deploy ami-0123456789abcdef0 --launch --ssm-parameter /web/ami`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return cli.Usagef("%d AMIs instead of one", len(args))
			}
			return nil
		},
	}
	o := ami.DeployOptions{Monitor: new(ami.Monitor)}
	launch := new(launchFlags)
	flags := cmd.Flags()
	flags.SortFlags = false // the most used first
	flags.StringSliceVar(&o.Instances, "instance", nil, "comma-separated `IDs` of the instances; may be repeated")
	flags.BoolVar(&o.DeleteOld, "delete-old-volume", false, "delete the volumes that were replaced (default: keep them)")
	launch.define(flags, "before anything else changes", false)
	flags.StringVar(&o.SSMParameter, "ssm-parameter", "", "`name` of an SSM parameter to set to the ID of the AMI in the end")
	flags.StringVar(&o.State, "state", "", "`directory` for the state of unfinished runs (default: $XDG_STATE_HOME/slipway)")
	flags.DurationVar(&o.Timeout, "timeout", 20*time.Second, "`limit` of one attempt of a request")
	account := newAccountFlags(cmd)
	account.dryRunVar(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if o.Timeout <= 0 {
			return cli.Usagef("--timeout must be greater than zero")
		}
		var err error
		if o.Launch, err = launch.options(flags, false); err != nil {
			return err
		}
		regions := account.regions()
		if len(regions) > 1 {
			return cli.Usagef("an AMI exists in one region: use --region with one")
		}
		if len(regions) == 1 {
			o.Region = regions[0]
		}
		o.Port, o.Limit, o.DryRun = launch.launch.Port, launch.launch.Limit, account.dryRun
		cfg, err := account.load(cmd.Context())
		if err != nil {
			return err
		}
		stop := follow(cmd.ErrOrStderr(), o.Monitor)
		result, err := ami.Deploy(cmd.Context(), cfg, args[0], o)
		stop()
		if result != nil { // what was done before an error
			err = errors.Join(err, printDeployment(cmd.OutOrStdout(), result, o, account.json))
		}
		return err
	}
	return cmd
}

func printDeployment(w io.Writer, d *ami.Deployment, o ami.DeployOptions, asJSON bool) error {
	if asJSON {
		return printJSON(w, d)
	}
	if o.DryRun {
		_, err := fmt.Fprintf(w, "%s can be deployed to %d instances in %s\n", d.Image, len(o.Instances), d.Region)
		return err
	}
	if d.Tested {
		fmt.Fprintf(w, "%s: an instance was up and is terminated\n", d.Image)
	}
	for _, i := range d.Instances {
		how := "replaced by " + i.Task
		switch {
		case i.Existing:
			how = "runs it already"
		case i.OldVolume != "":
			how += ", kept " + i.OldVolume
		}
		fmt.Fprintf(w, "%s: %s (%s, %s)\n", d.Image, i.Instance, i.Volume, how)
	}
	if d.Parameter != "" {
		fmt.Fprintf(w, "%s: %s\n", d.Image, d.Parameter)
	}
	return nil
}
