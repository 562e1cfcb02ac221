package main

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/spf13/cobra"

	"github.com/slipway-build/slipway/cmd/internal/cli"
	"github.com/slipway-build/slipway/internal/client"
)

// execute runs the program in this process.
func execute(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var o, e bytes.Buffer
	status = newProgram().Run(context.Background(), args, &o, &e)
	return status, o.String(), e.String()
}

func TestErrors(t *testing.T) {
	for _, c := range []struct {
		args   string
		status int
		want   string
	}{
		{"", 2, "slipway requires a command; see slipway --help"},
		{"biuld", 2, `unknown command "biuld" (did you mean "build"?)`},
		{"build", 2, "requires one machine YAML"},
		{"build a b c", 2, "requires one machine YAML"},
		{"build --siez=100M a.yml", 2, `unknown flag: --siez (did you mean "--size"?)`},
		{"build --build-arg =x a.yml", 2, `"--build-arg" flag: write it as NAME=VALUE`},
		{"build --build-context a a.yml", 2, `"--build-context" flag: write it as NAME=VALUE`},
		{"build --sbom=x a.yml", 2, `"--sbom" flag: write it as true, false or KEY=VALUE`},
		{"build --progress x a.yml", 2, "--progress: invalid progress mode x; see slipway build --help"},
		{"build --builder unix:///nonsuch/socket a.yml", 1, "unix:///nonsuch/socket does not answer"},
		{"version x", 2, "unknown command"},
		{"lock -", 2, "requires a file, beside which it writes the lock"},
		{"lock --format raw a.yml", 2, "unknown flag: --format"},
	} {
		status, stdout, stderr := execute(t, strings.Fields(c.args)...)
		if status != c.status || !strings.Contains(stderr, c.want) || stdout != "" {
			t.Errorf("%s: status %d, want %d; %q, want %q", c.args, status, c.status, stderr, c.want)
		}
	}
}

// Flags come before and after the arguments, and some have optional values.
func TestOptions(t *testing.T) {
	t.Setenv("FROM_ENVIRONMENT", "1G")
	t.Setenv("SOURCE_DATE_EPOCH", "1700000000")
	cmd := &cobra.Command{}
	f := newBuildFlags(cmd)
	args := "--format raw aws.yml --size=1G --sbom --provenance=mode=max folder -o out -o type=oci,dest=a.tar --no-cache-filter a,b " +
		"--build-arg FROM_ENVIRONMENT --build-arg UNSET --build-arg A=b=c,d --build-context x=docker-image://y --platform linux/amd64,linux/arm64 " +
		"--secret id=a,src=b --cache-from a --pull"
	if err := cmd.ParseFlags(strings.Fields(args)); err != nil {
		t.Fatal(err)
	}
	f.complete(cmd.Flags().Args())
	want := client.Options{
		File:          "aws.yml",
		Context:       "folder",
		Target:        "raw",
		BuildArgs:     map[string]string{"SIZE": "1G", "FROM_ENVIRONMENT": "1G", "A": "b=c,d", "SOURCE_DATE_EPOCH": "1700000000"},
		BuildContexts: map[string]string{"x": "docker-image://y"},
		Attests:       map[string]string{"sbom": "", "provenance": "mode=max"},
		CacheFrom:     []string{"a"},
		NoCacheFilter: []string{"a", "b"},
		Outputs:       []string{"out", "type=oci,dest=a.tar"},
		Platforms:     []string{"linux/amd64", "linux/arm64"},
		Pull:          true,
		Secrets:       []string{"id=a,src=b"},
	}
	if diff := cmp.Diff(want, f.Options, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}

	// As in docker buildx, -f names the YAML, and the argument is the context.
	cmd = &cobra.Command{}
	f = newBuildFlags(cmd)
	if err := cmd.ParseFlags(strings.Fields("-f aws.yml --target docker --name web -t example.com/web:1 --tag web folder")); err != nil {
		t.Fatal(err)
	}
	f.complete(f.arguments(cmd.Flags().Args()))
	want = client.Options{
		File: "aws.yml", Context: "folder", Target: "docker", BuildArgs: map[string]string{"NAME": "web", "SOURCE_DATE_EPOCH": "1700000000"},
		Outputs: []string{`type=docker,"name=example.com/web:1,web"`},
	}
	if diff := cmp.Diff(want, f.Options, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}

	cmd = &cobra.Command{}
	f = newBuildFlags(cmd)
	if err := cmd.ParseFlags([]string{"--sbom", "--sbom=false", "aws.yml"}); err != nil {
		t.Fatal(err)
	}
	f.complete(cmd.Flags().Args())
	if len(f.Attests) > 0 || f.Context != "." || len(f.Outputs) != 1 || f.Outputs[0] != "." {
		t.Errorf("defaults %+v", f.Options)
	}
}

func TestHelp(t *testing.T) {
	for _, args := range []string{"--help", "build -h", "lock --help", "--version", "build --version", "help build"} {
		status, stdout, stderr := execute(t, strings.Fields(args)...)
		if status != 0 || stdout == "" || stderr != "" {
			t.Errorf("%s: status %d, %q, %q", args, status, stdout, stderr)
		}
	}
}

// Without a builder, slipway knows its own version.
func TestVersion(t *testing.T) {
	status, stdout, stderr := execute(t, "version", "--builder", "unix:///nonsuch/socket")
	if status != 1 || stdout != "slipway  "+cli.Version()+"\n" || !strings.Contains(stderr, "unix:///nonsuch/socket does not answer") {
		t.Errorf("status %d, %q, %q", status, stdout, stderr)
	}
}
