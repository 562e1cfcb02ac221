package main

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/slipway-build/slipway/exporter/measure"
	"github.com/slipway-build/slipway/internal/bootkeys"
	"github.com/slipway-build/slipway/internal/image"
	"github.com/slipway-build/slipway/internal/statement"
)

func newMeasurementsCommand() *cobra.Command {
	var asJSON bool
	var keys, output, role string
	cmd := &cobra.Command{
		Use:   "measurements [flags] IMAGE",
		Short: "Predict the TPM's registers after a boot",
		Long: `Predict the registers (PCRs 4, 7, 9, 11 and 12) of a TPM after firmware for UEFI has
booted a disk or a unified kernel image, with the events that result in them.`,
		Example: `  slipway measurements out/aws.raw
  slipway measurements --keys keys --json -o aws.pcrs.json out/aws-efi.img
  slipway measurements --keys keys --kms-policy arn:aws:iam::123456789012:role/aws \
    -o aws.kms-policy.json out/aws-efi.img`,
		Args: cobra.ExactArgs(1),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().StringVar(&keys, "keys", "", "`folder` of slipway keys new whose keys the firmware trusts (default: Secure Boot is off)")
	cmd.Flags().StringVar(&role, "kms-policy", "", "print a policy for a key in AWS KMS that lets `role`, an ARN, decrypt on this machine only")
	cmd.MarkFlagsMutuallyExclusive("json", "kms-policy")
	cmd.Flags().StringVarP(&output, "output", "o", "-", "`file` to write; - is standard output")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		i, err := openImage(cmd, args[0])
		if err != nil {
			return err
		}
		defer i.Close()
		trusted, err := trustedKeys(keys)
		if err != nil {
			return err
		}
		if i.Blocks() == nil {
			return fmt.Errorf("%s is not a disk or a unified kernel image", args[0])
		}
		m, err := measure.File(i.Blocks(), i.Size, trusted)
		if err != nil {
			return fmt.Errorf("%s: %w", args[0], err)
		}
		return writeTo(output, cmd.OutOrStdout(), func(w io.Writer) error {
			switch {
			case asJSON:
				return m.WriteJSON(w)
			case role != "":
				return printJSON(w, kmsPolicy(m, role))
			}
			return m.WriteText(w)
		})
	}
	return cmd
}

// trustedKeys returns the keys in a folder of slipway keys new, or nil for "".
func trustedKeys(folder string) (*measure.Keys, error) {
	if folder == "" {
		return nil, nil
	}
	keys, err := bootkeys.Read(folder)
	if err != nil {
		return nil, err
	}
	return measure.KeysOf(keys.Variables()), nil
}

// measured predicts the measurements of a disk or a unified kernel image. The result
// is empty if they are not known, for example those of a disk for BIOS.
func measured(name, architecture string, r io.ReaderAt, size int64, keys *measure.Keys) []statement.Measured {
	i, err := image.OpenBoot(name, r, size)
	if err != nil {
		return nil
	}
	defer i.Close()
	if i.Blocks() == nil {
		return nil
	}
	m, err := measure.File(i.Blocks(), i.Size, keys)
	if err != nil {
		return nil
	}
	return []statement.Measured{{Name: strings.TrimSuffix(name, filepath.Ext(name)), Architecture: architecture, Measurements: m}}
}

// kmsPolicy returns a policy that lets a role use a key from a machine with these
// registers, which a NitroTPM attests (AWS KMS, "Condition keys for NitroTPM"). The
// registers are those that AWS documents for such policies. All three are checked:
// PCR 4 identifies the machine, and PCR 7 alone would allow all that the same
// key has signed.
func kmsPolicy(m *measure.Measurements, role string) any {
	registers := map[string]string{}
	for _, pcr := range []string{"4", "7", "12"} {
		registers["kms:RecipientAttestation:NitroTPMPCR"+pcr] = m.PCRs["sha384"][pcr]
	}
	return measure.KMSPolicy(role, registers)
}
