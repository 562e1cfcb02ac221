package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/slipway-build/slipway/cmd/internal/cli"
	"github.com/slipway-build/slipway/internal/bootkeys"
)

func newKeysCommand() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "keys new [flags] FOLDER",
		Short: "Make the keys of Secure Boot",
		Long: `Make the keys of Secure Boot: the platform key (PK), the key exchange key (KEK) and
the key that signs machines (db), each with its certificate, and what firmware
reads them from: signature lists (.esl), signed updates (.auth) and EC2's UefiData.`,
		Example: `  slipway keys new keys
  slipway build --format raw-efi --secure-boot-key keys/db.key --secure-boot-cert keys/db.crt aws.yml
  slipway run --secure-boot --keys keys aws-efi.img`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 || args[0] != "new" {
				return cli.Usagef("requires new and a folder: slipway keys new FOLDER")
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&name, "name", "Slipway", "`name` in the subjects of the certificates")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		keys, err := bootkeys.New(name, time.Now())
		if err != nil {
			return err
		}
		dir := args[1]
		if err := keys.Write(dir); errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("%s already has keys: choose another folder: %w", dir, err)
		} else if err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s\n%s\n%s\n", filepath.Join(dir, bootkeys.DB+".key"), filepath.Join(dir, bootkeys.DB+".crt"), filepath.Join(dir, bootkeys.AWSFile))
		return nil
	}
	return cmd
}
