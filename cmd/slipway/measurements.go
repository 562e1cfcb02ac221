package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/slipway-build/slipway/exporter/measure"
	"github.com/slipway-build/slipway/internal/bootkeys"
)

func newMeasurementsCommand() *cobra.Command {
	var asJSON bool
	var keys, output string
	cmd := &cobra.Command{
		Use:   "measurements [flags] IMAGE",
		Short: "Predict the TPM's registers after a boot",
		Long: `Predict the registers (PCRs 4, 7, 9, 11 and 12) of a TPM after firmware for UEFI has
booted a disk or a unified kernel image, with the events that result in them.`,
		Example: `  slipway measurements out/aws.raw
  slipway measurements --keys keys --json -o aws.pcrs.json out/aws-efi.img`,
		Args: cobra.ExactArgs(1),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().StringVar(&keys, "keys", "", "`folder` of slipway keys new whose keys the firmware trusts (default: Secure Boot is off)")
	cmd.Flags().StringVarP(&output, "output", "o", "-", "`file` to write; - is standard output")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		i, err := openImage(cmd, args[0])
		if err != nil {
			return err
		}
		defer i.Close()
		var trusted *measure.Keys
		if keys != "" {
			k, err := bootkeys.Read(keys)
			if err != nil {
				return err
			}
			trusted = measure.KeysOf(k.Variables())
		}
		if i.Blocks() == nil {
			return fmt.Errorf("%s is not a disk or a unified kernel image", args[0])
		}
		m, err := measure.File(i.Blocks(), i.Size, trusted)
		if err != nil {
			return fmt.Errorf("%s: %w", args[0], err)
		}
		return writeTo(output, cmd.OutOrStdout(), func(w io.Writer) error {
			if asJSON {
				return m.WriteJSON(w)
			}
			return printMeasurements(w, m)
		})
	}
	return cmd
}

func printMeasurements(w io.Writer, m *measure.Measurements) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "PCR\tSHA-256")
	for _, pcr := range measure.PCRs {
		fmt.Fprintf(table, "%d\t%s\n", pcr, m.PCRs["sha256"][fmt.Sprint(pcr)])
	}
	fmt.Fprintln(table, "\nPCR\tEVENT\tWHAT\tSHA-256")
	for _, e := range m.Events {
		fmt.Fprintf(table, "%d\t%s\t%s\t%s\n", e.PCR, e.Type, e.Description, e.Digests["sha256"])
	}
	return table.Flush()
}
