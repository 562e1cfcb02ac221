package main

import (
	"context"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/slipway-build/slipway/cmd/internal/cli"
	"github.com/slipway-build/slipway/internal/client"
)

func newVersionCommand() *cobra.Command {
	var builder string
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Show the versions of slipway, of the frontend and of BuildKit, and BuildKit's vulnerabilities",
		Args:  cobra.NoArgs,
	}
	builderVar(cmd.Flags(), &builder)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return version(cmd, builder) }
	return cmd
}

func version(cmd *cobra.Command, builder string) error {
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	defer w.Flush()
	fmt.Fprintf(w, "slipway\t%s\n", cli.Version())
	b, err := client.Dial(cmd.Context(), builder)
	if err != nil {
		return err
	}
	defer b.Close()
	fmt.Fprintf(w, "frontend\t%s\n", frontendVersion(cmd.Context(), b))
	info, err := b.Info(cmd.Context())
	if err != nil {
		return err
	}
	buildkit := info.BuildkitVersion.Version
	fmt.Fprintf(w, "BuildKit\t%s\n", buildkit)
	w.Flush()
	found := client.Vulnerabilities(buildkit)
	if len(found) == 0 {
		return nil
	}
	fmt.Fprintf(w, "\nThis BuildKit has known vulnerabilities. Update it to %s or later.\n", client.SafeVersion())
	for _, a := range found {
		fmt.Fprintf(w, "  %s\tfixed in %s\t%s\n", a.Name, a.Fixed, a.Text)
	}
	return nil
}

// frontendVersion describes the frontend image that machines name by default.
func frontendVersion(ctx context.Context, b *client.Builder) string {
	ref, err := b.ResolveFrontend(ctx)
	if err != nil {
		return fmt.Sprintf("unknown: %v", err)
	}
	return ref
}
