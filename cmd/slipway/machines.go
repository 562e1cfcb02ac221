package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/slipway-build/slipway/internal/run"
)

func newPsCommand() *cobra.Command {
	var all, asJSON bool
	cmd := &cobra.Command{
		Use:   "ps",
		Short: "List the machines that run",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			store, err := run.OpenStore()
			if err != nil {
				return err
			}
			records, err := store.List()
			if err != nil {
				return err
			}
			shown := []run.Record{}
			for _, r := range records {
				if all || r.State != run.Ended {
					shown = append(shown, r)
				}
			}
			if asJSON {
				encoder := json.NewEncoder(cmd.OutOrStdout())
				encoder.SetIndent("", "  ")
				return encoder.Encode(shown)
			}
			return printMachines(cmd.OutOrStdout(), shown)
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "also list machines of the background that have ended")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printMachines(w io.Writer, records []run.Record) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NAME\tSTATE\tSINCE\tPORTS\tSOURCE")
	for _, r := range records {
		state, since := r.State, r.Started
		if r.State == run.Ended {
			state, since = fmt.Sprintf("%s (%d)", r.State, r.Status), cmp.Or(r.Ended, r.Started)
		}
		var ports []string
		for _, f := range r.Config.Forwards {
			ports = append(ports, fmt.Sprintf("%s:%d->%d", f.Address, f.Port, f.GuestPort))
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", r.Name, state, units.HumanDuration(time.Since(since))+" ago", strings.Join(ports, " "), r.Source)
	}
	return table.Flush()
}

func newSSHCommand() *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:     "ssh [flags] NAME [COMMAND…]",
		Short:   "Log in to a machine that runs",
		Example: "  slipway ssh aws\n  slipway ssh aws nsenter --target 1 --mount service list",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			store, r, err := find(args[0])
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeoutCause(cmd.Context(), timeout, fmt.Errorf("not within %v", timeout))
			defer cancel()
			if r, err = store.WaitSSH(ctx, r.Name); err != nil {
				return err
			}
			status, err := run.SSH(cmd.Context(), r, strings.Join(args[1:], " "))
			if err != nil {
				return err
			}
			return exitStatus(status)
		},
	}
	cmd.Flags().DurationVarP(&timeout, "timeout", "t", time.Minute, "how long to wait until the machine accepts the login")
	cmd.Flags().SetInterspersed(false) // flags after the name belong to the command
	return cmd
}

func newLogsCommand() *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use:   "logs [flags] NAME",
		Short: "Print the output of a machine's console",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			store, r, err := find(args[0])
			if err != nil {
				return err
			}
			f, err := os.Open(store.Log(r))
			if err != nil {
				return err
			}
			defer f.Close()
			for {
				if _, err := io.Copy(cmd.OutOrStdout(), f); err != nil || !follow || r.State == run.Ended {
					return err
				}
				select {
				case <-time.After(200 * time.Millisecond):
				case <-cmd.Context().Done():
					return nil
				}
				if r, err = store.Find(r.Name); err != nil {
					return err
				}
			}
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "continue until the machine ends")
	return cmd
}

func newStopCommand() *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "stop [flags] NAME…",
		Short: "Power off machines",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var errs []error
			for _, name := range args {
				store, r, err := find(name)
				if err == nil && r.State != run.Ended {
					err = store.Stop(cmd.Context(), r, timeout)
				}
				if err != nil {
					errs = append(errs, err)
					continue
				}
				fmt.Fprintln(cmd.OutOrStdout(), name)
			}
			return errors.Join(errs...)
		},
	}
	cmd.Flags().DurationVarP(&timeout, "timeout", "t", 30*time.Second, "how long a machine may take to power off before it is killed; 0 kills it at once")
	return cmd
}

// find returns the record of a machine.
func find(name string) (run.Store, run.Record, error) {
	store, err := run.OpenStore()
	if err != nil {
		return store, run.Record{}, err
	}
	r, err := store.Find(name)
	return store, r, err
}
