// Command slipway-publish publishes a raw disk as a machine image in a cloud.
//
// Usage:
//
//	slipway-publish aws [flags] FILE|-|oci://…
//	slipway-publish aws deploy [flags] AMI
//	slipway-publish aws gc [flags]
//	slipway-publish aws save [flags] AMI|SNAPSHOT FILE
//	slipway-publish aws verify [flags] AMI|SNAPSHOT DISK|MAP|oci://…
//
// The result goes to standard output, progress and errors to standard error.
// Credentials, region and endpoints come from the same sources as those of the
// AWS CLI: the environment, ~/.aws, or the role of the instance. See
// docs/reference/slipway-publish.md for the flags, the state on this machine and
// the required permissions.
//
// Exit status: 0 success; 1 AWS, the network or anything else failed, or verify
// found a difference; 2 the command line is invalid; 3 the disk cannot boot, has
// secrets, or its instance does not come up; 4 credentials; 5 permission denied; 6 the name is taken; 7 quota;
// 8 region; 130 interrupted.
package main

import (
	"context"
	"io"
	"log"
	"os"
	"regexp"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/slipway-build/slipway/cmd/internal/cli"
	"github.com/slipway-build/slipway/publisher/ami"
)

// memoryLimit is a soft limit of the memory in bytes, unless GOMEMLIMIT sets one.
// The blocks on their way take 64 MiB, which Go would otherwise let grow to twice as
// much.
const memoryLimit = 128 << 20

func main() {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
	log.SetOutput(io.Discard) // what libraries log is in the errors that they return
	cli.Program{Root: newCommand(), Explain: explain}.Main()
}

func newCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "slipway-publish COMMAND",
		Short: "Publish disks as machine images",
		Args:  cobra.ArbitraryArgs,
		RunE:  cli.Subcommands,
	}
	aws := newPublishCommand()
	aws.AddCommand(newDeployCommand(), newGCCommand(), newSaveCommand(), newVerifyCommand())
	root.AddCommand(aws)
	return root
}

// explain returns the exit status and the message for an error, on one line.
func explain(err error) (status int, message string) {
	class := ami.ClassOf(err)
	message = strings.ReplaceAll(err.Error(), "\n", "; ")
	if class == ami.ClassInterrupted {
		message = strings.Replace(message, context.Canceled.Error(), "interrupted", 1)
	}
	if advice := advice(class); advice != "" && (class != ami.ClassCredentials || strings.Contains(message, "AWS refused")) {
		message += "; " + advice
	}
	if class == ami.ClassCredentials && notEnabled.MatchString(message) {
		message += "; if that works, the account has not enabled the region"
	}
	return int(class), message
}

// notEnabled matches the codes of errors for credentials that a region does not
// know, for example because the account has not enabled the region.
var notEnabled = regexp.MustCompile(`\((AuthFailure|InvalidClientTokenId|UnrecognizedClientException)\)`)

// advice returns what to do about errors of a class, or "".
func advice(class ami.Class) string {
	switch class {
	case ami.ClassCredentials:
		return "check with: aws sts get-caller-identity"
	case ami.ClassPermission:
		return "docs/reference/slipway-publish.md has the policy that each method requires"
	case ami.ClassQuota:
		return "request an increase in the console under Service Quotas, or remove leftovers with: slipway-publish aws gc"
	case ami.ClassRegionUnavailable:
		return "check --region, and that the account has enabled the region"
	}
	return ""
}
