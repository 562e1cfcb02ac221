package cli

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// run runs a program with one command, fail, that returns err.
func run(ctx context.Context, t *testing.T, err error, args ...string) (status int, stdout, stderr string, pairs map[string]string) {
	t.Helper()
	pairs = map[string]string{}
	fail := &cobra.Command{Use: "fail [flags] FILE", Short: "Fail", Args: cobra.MaximumNArgs(1), RunE: func(*cobra.Command, []string) error { return err }}
	fail.Flags().Int("size", 0, "`size` of a disk")
	PairsVar(fail.Flags(), pairs, "tag", "tag as `NAME=VALUE`", func(name string) (string, bool) { return "found", name == "known" })
	root := &cobra.Command{Use: "slipway-test COMMAND", Args: cobra.ArbitraryArgs, RunE: Subcommands}
	root.AddCommand(fail)
	var o, e bytes.Buffer
	p := Program{Root: root, Explain: func(err error) (int, string) {
		if err.Error() == "taken" {
			return 6, "the name is taken"
		}
		return 0, ""
	}}
	status = p.Run(ctx, args, &o, &e)
	return status, o.String(), e.String(), pairs
}

func TestExitStatus(t *testing.T) {
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		name   string
		ctx    context.Context
		err    error
		args   []string
		status int
		want   string // on standard error
	}{
		{"success", t.Context(), nil, []string{"fail"}, 0, ""},
		{"failure", t.Context(), errors.New("no luck"), []string{"fail"}, 1, "slipway-test: no luck\n"},
		{"explained", t.Context(), errors.New("taken"), []string{"fail"}, 6, "slipway-test: the name is taken\n"},
		{"usage", t.Context(), Usagef("needs a name"), []string{"fail"}, 2, "slipway-test: needs a name; see slipway-test fail --help\n"},
		{"interrupted", canceled, errors.New("no luck"), []string{"fail"}, 130, "slipway-test: interrupted\n"},
		{"no command", t.Context(), nil, nil, 2, "slipway-test: slipway-test requires a command; see slipway-test --help\n"},
		{"unknown command", t.Context(), nil, []string{"fial"}, 2, "slipway-test: unknown command \"fial\" (did you mean \"fail\"?)\n"},
		{"too many arguments", t.Context(), nil, []string{"fail", "a", "b"}, 2, "accepts at most 1 arg"},
		{"unknown flag", t.Context(), nil, []string{"fail", "--siez=1"}, 2, "slipway-test: unknown flag: --siez (did you mean \"--size\"?)\n"},
		{"one dash", t.Context(), nil, []string{"fail", "-size", "1"}, 2, "slipway-test: unknown flag: -size (did you mean \"--size\"?)\n"},
		{"invalid value", t.Context(), nil, []string{"fail", "--size=x"}, 2, `invalid argument "x" for "--size" flag`},
		{"no value", t.Context(), nil, []string{"fail", "--size"}, 2, "flag needs an argument: --size"},
		{"invalid pair", t.Context(), nil, []string{"fail", "--tag", "=x"}, 2, `invalid argument "=x" for "--tag" flag: write it as NAME=VALUE`},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, stdout, stderr, _ := run(c.ctx, t, c.err, c.args...)
			if status != c.status || !strings.Contains(stderr, c.want) || strings.Count(stderr, "\n") > 1 || stdout != "" {
				t.Errorf("status %d, want %d; stdout %q; stderr %q, want %q", status, c.status, stdout, stderr, c.want)
			}
		})
	}
}

func TestHelpAndVersion(t *testing.T) {
	for _, c := range []struct {
		args []string
		want []string // on standard output
	}{
		{[]string{"--version"}, []string{"slipway-test version "}},
		{[]string{"--help"}, []string{"Usage: slipway-test COMMAND\n", "Commands:", "fail", "help"}},
		{[]string{"help"}, []string{"Usage: slipway-test COMMAND"}},
		{[]string{"fail", "-h"}, []string{"Usage: slipway-test fail [flags] FILE", "--size size", "--tag NAME=VALUE"}},
	} {
		status, stdout, stderr, _ := run(t.Context(), t, errors.New("must not run"), c.args...)
		if status != 0 || stderr != "" {
			t.Errorf("%v: status %d, stderr %q", c.args, status, stderr)
		}
		for _, want := range c.want {
			if !strings.Contains(stdout, want) {
				t.Errorf("%v: no %q in:\n%s", c.args, want, stdout)
			}
		}
	}
}

func TestMan(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "86400")
	dir := filepath.Join(t.TempDir(), "man1")
	if status, _, stderr, _ := run(t.Context(), t, nil, "man", dir); status != 0 {
		t.Fatalf("status %d: %s", status, stderr)
	}
	page, err := os.ReadFile(filepath.Join(dir, "slipway-test-fail.1"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"SLIPWAY-TEST-FAIL" "1" "Jan 1970" "Slipway `, "slipway-test fail [flags] FILE", `--size`} {
		if !strings.Contains(strings.ReplaceAll(string(page), `\-`, "-"), want) {
			t.Errorf("no %q in:\n%s", want, page)
		}
	}
	if strings.Contains(string(page), "HISTORY") {
		t.Errorf("a page with the date of today:\n%s", page)
	}
	if _, err := os.Stat(filepath.Join(dir, "slipway-test-man.1")); err == nil {
		t.Error("a page of the hidden command")
	}
	if status, _, stderr, _ := run(t.Context(), t, nil, "man"); status != StatusUsage {
		t.Errorf("without a folder: status %d: %s", status, stderr)
	}
}

func TestPairs(t *testing.T) {
	status, _, stderr, pairs := run(t.Context(), t, nil, "fail", "--tag", "a=b=c", "--tag=known", "--tag", "unknown", "--tag", "empty=")
	if status != 0 || len(pairs) != 3 || pairs["a"] != "b=c" || pairs["known"] != "found" || pairs["empty"] != "" {
		t.Errorf("status %d, %q: %v", status, stderr, pairs)
	}
}
