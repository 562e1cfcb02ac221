package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/moby/buildkit/frontend/subrequests/lint"
	"github.com/spf13/cobra"

	"github.com/slipway-build/slipway/cmd/internal/cli"
	"github.com/slipway-build/slipway/cmd/slipway/internal/sarif"
	"github.com/slipway-build/slipway/exporter/format"
	"github.com/slipway-build/slipway/internal/client"
	"github.com/slipway-build/slipway/machine"
)

// newPlanCommand returns the command that shows what a build would pack.
func newPlanCommand() *cobra.Command {
	var asJSON, resolved bool
	cmd := &cobra.Command{
		Use:   "plan [flags] YAML [CONTEXT]",
		Short: "Show every component of a machine with its image, place and configuration",
		Example: `  slipway plan aws.yml
  slipway plan --resolved --arg CONSOLE=ttyS1 aws.yml`,
	}
	f := newBuilderFlags(cmd)
	cmd.Flags().StringVar(&f.Target, "format", "", "`name` of the output format (default: kernel+initrd)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&resolved, "resolved", false, "print the merged machine YAML instead, with the place from which each line comes")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		request := "frontend.machine.plan"
		if resolved {
			request = "frontend.machine.resolved"
		}
		answer, err := ask(cmd, f, args, request)
		if err != nil {
			return err
		}
		return printAnswer(cmd.OutOrStdout(), answer, asJSON)
	}
	return cmd
}

func printAnswer(w io.Writer, answer map[string][]byte, asJSON bool) error {
	text := answer["result.txt"]
	if asJSON {
		text = append(answer["result.json"], '\n')
	}
	_, err := w.Write(text)
	return err
}

// ask asks the frontend a question about a machine.
func ask(cmd *cobra.Command, f *builderFlags, args []string, request string) (map[string][]byte, error) {
	b, progress, end, err := f.start(cmd, args)
	if err != nil {
		return nil, err
	}
	defer end()
	answer, err := client.Call(cmd.Context(), b, f.Options, request, progress)
	return answer, f.explain(cmd, progress, err)
}

// newCheckCommand returns the command that lints.
func newCheckCommand() *cobra.Command {
	var asJSON, asSARIF bool
	cmd := &cobra.Command{
		Use:   "check [flags] YAML [CONTEXT]",
		Short: "Report warnings and errors of a machine YAML without building it",
		Long: `Report warnings and errors of a machine YAML without building it. Exit status: 0
none; 1 there are some.`,
		Example: `  slipway check aws.yml
  slipway check --sarif aws.yml > aws.sarif`,
	}
	f := newBuilderFlags(cmd)
	cmd.Flags().StringVar(&f.Target, "format", "", "`name` of the output format (default: kernel+initrd)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&asSARIF, "sarif", false, "print SARIF 2.1.0, for code scanning")
	cmd.MarkFlagsMutuallyExclusive("json", "sarif")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		name := args[0]
		answer, err := ask(cmd, f, args, lint.SubrequestLintDefinition.Name)
		if err != nil {
			return err
		}
		var results lint.LintResults
		if err := json.Unmarshal(answer["result.json"], &results); err != nil {
			return fmt.Errorf("answer of the frontend: %w", err)
		}
		switch {
		case asSARIF:
			err = printJSON(cmd.OutOrStdout(), sarif.New(cli.Version(), name, &results))
		case !asJSON && len(results.Warnings) == 0 && results.Error == nil:
			fmt.Fprintf(cmd.OutOrStdout(), "%s: no warnings\n", name)
		default:
			err = printAnswer(cmd.OutOrStdout(), answer, asJSON)
			if !asJSON {
				printError(cmd.OutOrStdout(), &results)
			}
		}
		if err == nil && (len(results.Warnings) > 0 || results.Error != nil) {
			return cli.ExitStatus(cli.StatusFailed)
		}
		return err
	}
	return cmd
}

// printError prints the error of a check, which the text of the frontend does not
// contain, with its lines.
func printError(w io.Writer, results *lint.LintResults) {
	e := results.Error
	if e == nil {
		return
	}
	if i := int(e.Location.SourceIndex); i < 0 || i >= len(results.Sources) {
		fmt.Fprintln(w, e.Message)
		return
	}
	results.PrintErrorTo(w, nil)
}

func newFormatsCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "formats [flags]",
		Short: "List the output formats",
		Args:  cobra.NoArgs,
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		type row struct {
			Name          string   `json:"name"`
			Description   string   `json:"description"`
			Files         []string `json:"files"`
			Architectures []string `json:"architectures"`
		}
		var rows []row
		for _, f := range format.All() {
			r := row{Name: f.Name, Description: f.Description, Files: f.Files("NAME")}
			for _, architecture := range []string{"amd64", "arm64"} {
				if f.Check(architecture) == nil {
					r.Architectures = append(r.Architectures, architecture)
				}
			}
			rows = append(rows, r)
		}
		if asJSON {
			return printJSON(cmd.OutOrStdout(), rows)
		}
		t := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "FORMAT\tARCHITECTURES\tFILES\tDESCRIPTION")
		for _, r := range rows {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", r.Name, strings.Join(r.Architectures, ","), strings.Join(r.Files, " "), r.Description)
		}
		return t.Flush()
	}
	return cmd
}

func newSchemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "schema",
		Short:   "Print the JSON Schema of the machine YAML",
		Example: "  slipway schema > machine.schema.json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := cmd.OutOrStdout().Write(machine.JSONSchema())
			return err
		},
	}
}
