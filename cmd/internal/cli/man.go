package cli

import (
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// newManCommand returns a hidden command that writes the man pages of all
// commands, for packages of the program. The pages have the date of
// SOURCE_DATE_EPOCH, in seconds since 1970.
func newManCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:    "man FOLDER",
		Short:  "Write the man pages to a folder",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		header := doc.GenManHeader{Section: "1", Source: "Slipway " + Version(), Manual: "Slipway Manual"}
		if text := os.Getenv("SOURCE_DATE_EPOCH"); text != "" {
			seconds, err := strconv.ParseInt(text, 10, 64)
			if err != nil {
				return Usagef("SOURCE_DATE_EPOCH=%s: use a number of seconds since 1970", text)
			}
			date := time.Unix(seconds, 0).UTC()
			header.Date = &date
		}
		if err := os.MkdirAll(args[0], 0o755); err != nil {
			return err
		}
		disableTags(cmd.Root())
		return doc.GenManTree(cmd.Root(), &header, args[0])
	}
	return cmd
}

// disableTags removes the line with the date of today from the pages.
func disableTags(cmd *cobra.Command) {
	cmd.DisableAutoGenTag = true
	for _, sub := range cmd.Commands() {
		disableTags(sub)
	}
}
