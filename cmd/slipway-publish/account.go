package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/processcreds"
	"github.com/aws/aws-sdk-go-v2/credentials/ssocreds"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/smithy-go/logging"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/slipway-build/slipway/publisher/ami"
)

// accountFlags are the flags that the commands for AWS have in common.
type accountFlags struct {
	regionList, endpoint string
	dryRun, json         bool
}

func newAccountFlags(cmd *cobra.Command) *accountFlags {
	f := new(accountFlags)
	flags := cmd.Flags()
	flags.StringVar(&f.regionList, "region", "", "comma-separated `regions` (default: AWS_REGION, or the region of the profile)")
	flags.StringVar(&f.endpoint, "endpoint-url", "", "`URL` of all services, for a fake of AWS (default: AWS_ENDPOINT_URL)")
	flags.BoolVar(&f.json, "json", false, "print the result as JSON")
	return f
}

// dryRunVar defines the flag of commands that make changes.
func (f *accountFlags) dryRunVar(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "check what can be checked and change nothing")
}

func (f *accountFlags) regions() []string { return list(f.regionList) }

// load returns the AWS configuration. It fails if there are no credentials.
func (f *accountFlags) load(ctx context.Context) (aws.Config, error) {
	// The SDK's warnings either precede an error or do not matter.
	options := []func(*config.LoadOptions) error{
		config.WithLogger(logging.Nop{}),
		config.WithAssumeRoleCredentialOptions(func(o *stscreds.AssumeRoleOptions) { o.TokenProvider = askCode }),
	}
	if f.endpoint != "" {
		options = append(options, config.WithBaseEndpoint(f.endpoint))
	}
	if regions := f.regions(); len(regions) > 0 {
		options = append(options, config.WithRegion(regions[0]))
	}
	cfg, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return cfg, &ami.Error{Class: ami.ClassCredentials, Err: fmt.Errorf("read the AWS configuration: %w", err)}
	}
	if _, err := cfg.Credentials.Retrieve(ctx); err != nil {
		if ctx.Err() != nil {
			return cfg, ctx.Err()
		}
		return cfg, &ami.Error{Class: ami.ClassCredentials, Err: explainCredentials(err)}
	}
	return cfg, nil
}

// askCode asks for the code of an MFA device. It uses the terminal itself,
// because standard input may be the disk.
func askCode() (string, error) {
	terminal, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return "", errors.New("the profile requires the code of an MFA device: run the command in a terminal, which asks for it, or pass temporary credentials")
	}
	defer terminal.Close()
	fmt.Fprint(terminal, "MFA code: ")
	code, err := bufio.NewReader(terminal).ReadString('\n')
	return strings.TrimSpace(code), err
}

// explainCredentials returns why there are no credentials and what to do.
func explainCredentials(err error) error {
	var session *ssocreds.InvalidTokenError
	var process *processcreds.ProviderError
	var file *fs.PathError
	profile := ""
	if name := os.Getenv("AWS_PROFILE"); name != "" {
		profile = " --profile " + name
	}
	switch found := errors.As(err, &file); {
	case errors.As(err, &session), found && strings.Contains(filepath.ToSlash(file.Path), "/sso/cache/"):
		return fmt.Errorf("the SSO session has expired or does not exist: run aws sso login%s", profile)
	case errors.As(err, &process):
		return fmt.Errorf("credential_process failed: %w", process.Err)
	case found:
		return fmt.Errorf("read the token of the web identity: %w: check AWS_WEB_IDENTITY_TOKEN_FILE or web_identity_token_file", file)
	case strings.Contains(err.Error(), "EC2 IMDS"): // the last source
		return errors.New("no AWS credentials: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run on an instance with a role")
	}
	return fmt.Errorf("get AWS credentials: %w", err)
}

// list splits a list at commas and spaces.
func list(text string) []string {
	return strings.FieldsFunc(text, func(c rune) bool { return c == ',' || c == ' ' })
}

// ageVar defines a flag for a duration that may be in days.
func ageVar(flags *pflag.FlagSet, age *time.Duration, name, usage string) {
	flags.Func(name, usage, func(text string) (err error) {
		if days, found := strings.CutSuffix(text, "d"); found {
			var n int
			n, err = strconv.Atoi(days)
			*age = time.Duration(n) * 24 * time.Hour
		} else {
			*age, err = time.ParseDuration(text)
		}
		if err != nil || *age < 0 {
			return errors.New("write it as 90d or 12h")
		}
		return nil
	})
}
