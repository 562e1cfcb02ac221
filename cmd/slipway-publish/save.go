package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/slipway-build/slipway/cmd/internal/cli"
	"github.com/slipway-build/slipway/publisher/ami"
)

func newSaveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "save [flags] AMI|SNAPSHOT FILE",
		Short: "Save the disk of an AMI as a file",
		Long: "Read the disk of an AMI or a snapshot through the EBS direct API, and write it to FILE, a raw disk as large as the volume, with holes.\n" +
			"slipway inspect, diff and run accept it.",
		Example: `  slipway-publish aws save ami-0123456789abcdef0 web.raw`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return cli.Usagef("requires an AMI or a snapshot, and a file to write")
			}
			return nil
		},
	}
	o := ami.Options{Monitor: new(ami.Monitor)}
	flags := cmd.Flags()
	flags.SortFlags = false // the most used first
	flags.IntVar(&o.Workers, "workers", 64, "maximum `number` of blocks to read at the same time")
	flags.Float64Var(&o.Rate, "rate", 950, "maximum number of `blocks` per second")
	flags.DurationVar(&o.Timeout, "timeout", 20*time.Second, "`limit` of one attempt of a request")
	account := newAccountFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if o.Workers < 1 || o.Rate <= 0 || o.Timeout <= 0 {
			return cli.Usagef("--workers, --rate and --timeout must be greater than zero")
		}
		o.Regions = account.regions()
		cfg, err := account.load(cmd.Context())
		if err != nil {
			return err
		}
		// The file appears only when it is complete.
		file, err := os.CreateTemp(filepath.Dir(args[1]), ".slipway-")
		if err != nil {
			return err
		}
		defer os.Remove(file.Name()) // fails after the rename
		stop := follow(cmd.ErrOrStderr(), o.Monitor)
		err = ami.Save(cmd.Context(), cfg, args[0], file, o)
		stop()
		if err := errors.Join(err, file.Chmod(0o644), file.Close()); err != nil {
			return err
		}
		if err := os.Rename(file.Name(), args[1]); err != nil {
			return err
		}
		if account.json {
			return printJSON(cmd.OutOrStdout(), map[string]string{"file": args[1]})
		}
		_, err = fmt.Fprintln(cmd.OutOrStdout(), args[1])
		return err
	}
	return cmd
}
