package main

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

var update = flag.Bool("update", false, "write the generated part of docs/reference/slipway.md")

// TestReference checks that the reference page has all commands and flags.
func TestReference(t *testing.T) {
	const file = "../../docs/reference/slipway.md"
	page, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	generated := regexp.MustCompile(`(?s)(<!-- generated: commands -->\n).*?(\n<!-- end -->)`)
	want := generated.ReplaceAllString(string(page), "${1}\n"+strings.ReplaceAll(reference(), "$", "$$")+"${2}")
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if !generated.Match(page) || !*update && want != string(page) {
		t.Error("docs/reference/slipway.md is out of date: run go test ./cmd/slipway -run TestReference -update")
	}
}

// reference describes the commands and their flags in Markdown.
func reference() string {
	var b strings.Builder
	for _, cmd := range newCommand().Commands() {
		if !cmd.IsAvailableCommand() || cmd.Name() == "help" {
			continue
		}
		fmt.Fprintf(&b, "### slipway %s\n\n```text\nslipway %s\n```\n\n%s", cmd.Name(), cmd.Use, wrap(description(cmd)+".", ""))
		if cmd.LocalFlags().HasAvailableFlags() {
			b.WriteByte('\n')
		}
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			value, usage := pflag.UnquoteUsage(f)
			name := "--" + f.Name
			if f.Shorthand != "" {
				name = "-" + f.Shorthand + ", " + name
			}
			if value != "" {
				name += " " + value
			}
			text := fmt.Sprintf("- **`%s`**: %s", name, usage)
			if d := f.DefValue; d != "" && d != "false" && d != "[]" && d != "0" && !strings.Contains(usage, "default") {
				text += fmt.Sprintf(" (default: %s)", d)
			}
			b.WriteString(wrap(text+".", "  "))
		})
		b.WriteByte('\n')
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}

func description(cmd *cobra.Command) string {
	text := cmd.Long
	if text == "" {
		text = cmd.Short
	}
	return strings.TrimSuffix(strings.ReplaceAll(text, "\n", " "), ".")
}

// wrap breaks a text into lines of up to 100 characters, the second and later
// ones indented.
func wrap(text, indent string) string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && len([]rune(line+" "+word)) > 100 {
			lines = append(lines, line)
			line = indent + word
			continue
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return strings.Join(append(lines, line), "\n") + "\n"
}
