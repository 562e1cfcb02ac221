// Command slipway builds machines without docker buildx: it runs the frontend
// in its own process, against any BuildKit. It also runs machines in QEMU.
//
// Usage:
//
//	slipway build [flags] YAML [CONTEXT]
//	slipway lock [flags] YAML [CONTEXT]
//	slipway new [flags] [TEMPLATE]
//	slipway check [flags] YAML [CONTEXT]
//	slipway plan [flags] YAML [CONTEXT]
//	slipway formats [flags]
//	slipway schema
//	slipway inspect [flags] IMAGE [PATH]
//	slipway size [flags] IMAGE
//	slipway diff [flags] OLD NEW
//	slipway customize [flags] IMAGE
//	slipway sign [flags] DISK|UKI
//	slipway measurements [flags] IMAGE
//	slipway keys new [flags] FOLDER
//	slipway push [flags] DISK… oci://REGISTRY/REPOSITORY:TAG
//	slipway pull [flags] oci://REGISTRY/REPOSITORY[:TAG][@DIGEST]
//	slipway run [flags] YAML|DISK|FOLDER|IMAGE [CONTEXT] [-- COMMAND…]
//	slipway ps [flags]
//	slipway ssh [flags] NAME [COMMAND…]
//	slipway logs [flags] NAME
//	slipway stop [flags] NAME…
//	slipway version [flags]
//
// Results go to standard output, progress and errors to standard error. Exit
// status: 0 success; 1 failure; 2 the command line is invalid; 130 interrupted.
// slipway run and slipway ssh exit with the status of the command, and slipway
// run without a command with the status of the machine.
package main

import (
	"io"
	"log"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"github.com/slipway-build/slipway/cmd/internal/cli"
)

func main() {
	// Libraries log what a user cannot act on, for example that a folder has no
	// fs-verity. What matters is in the errors that they return.
	log.SetOutput(io.Discard)
	logrus.SetOutput(io.Discard)
	newProgram().Main()
}

func newProgram() cli.Program {
	return cli.Program{Root: newCommand(), Translate: translateLegacy}
}

func newCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "slipway COMMAND",
		Short: "Build machines with any BuildKit, and run them",
		Args:  cobra.ArbitraryArgs,
		RunE:  cli.Subcommands,
	}
	root.AddCommand(newBuildCommand(), newLockCommand(), newInspectCommand(), newDiffCommand(), newSizeCommand(), newNewCommand(), newCheckCommand(), newPlanCommand(),
		newFormatsCommand(), newSchemaCommand(), newKeysCommand(), newCustomizeCommand(), newPushCommand(), newPullCommand(), newVerifyCommand(), newServeCommand(), newVersionCommand(),
		newSignCommand(), newMeasurementsCommand(),
		newRunCommand(), newPsCommand(), newSSHCommand(), newLogsCommand(), newStopCommand(), newSuperviseCommand())
	return root
}
