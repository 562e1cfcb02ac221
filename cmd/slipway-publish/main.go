// Command slipway-publish makes a machine image in a cloud of a raw disk.
//
// Usage:
//
//	slipway-publish aws --name NAME [flags] FILE|-
//	slipway-publish aws gc [--dry-run] [--older-than AGE] [--region A,B] [--bucket BUCKET]
//
// The result goes to standard output, progress and errors to standard error.
// Credentials, region and endpoints come from where the AWS CLI takes them too:
// the environment, ~/.aws, or the instance's role. docs/how-to/publish-to-aws.md explains all
// flags, the state that is kept, and what each needs to be allowed.
//
// Exit codes: 0 done; 1 AWS, the network or anything else failed; 2 wrong
// flags; 3 the disk cannot boot; 4 credentials; 5 permission denied; 6 the name
// is taken; 7 quota; 8 wrong region; 130 interrupted.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/smithy-go/logging"
	"go.yaml.in/yaml/v4"

	"github.com/slipway-build/slipway/publisher/ami"
	"github.com/slipway-build/slipway/publisher/disk"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once
	err := run(ctx, os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		message := strings.ReplaceAll(err.Error(), "\n", "; ")
		if ami.ClassOf(err) == ami.ClassInterrupted {
			message = strings.Replace(message, context.Canceled.Error(), "interrupted", 1)
		}
		if advice := advice(err); advice != "" {
			message += "; " + advice
		}
		fmt.Fprintln(os.Stderr, "slipway-publish:", message)
		os.Exit(int(ami.ClassOf(err)))
	}
}

// advice returns what to do about an error, or "".
func advice(err error) string {
	switch ami.ClassOf(err) {
	case ami.ClassCredentials:
		return "check with: aws sts get-caller-identity; if that works, the account has not enabled the region"
	case ami.ClassPermission:
		return "docs/how-to/publish-to-aws.md has the policy that each method requires"
	case ami.ClassQuota:
		return "request an increase in the console under Service Quotas, or remove leftovers with: slipway-publish aws gc"
	case ami.ClassRegionUnavailable:
		return "check --region, and that the account has enabled the region"
	}
	return ""
}

func usage(format string, args ...any) error {
	return &ami.Error{Class: ami.ClassUsage, Err: fmt.Errorf(format, args...)}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 || args[0] != "aws" {
		return usage("the first argument must be aws; see slipway-publish aws --help")
	}
	if len(args) > 1 && args[1] == "gc" {
		return gc(ctx, args[2:])
	}
	return publish(ctx, args[1:])
}

// flags have what both commands need.
type flags struct {
	*flag.FlagSet
	regions, endpoint string
	dryRun, json      bool
}

func newFlags(name, synopsis string) *flags {
	f := &flags{FlagSet: flag.NewFlagSet(name, flag.ContinueOnError)}
	f.Usage = func() {
		fmt.Fprintf(f.Output(), "Usage: slipway-publish %s\n\n", synopsis)
		f.PrintDefaults()
	}
	f.StringVar(&f.regions, "region", "", "`regions`, separated by commas (default: AWS_REGION or the profile's)")
	f.StringVar(&f.endpoint, "endpoint-url", "", "`URL` of all services, for a fake of AWS (default: AWS_ENDPOINT_URL)")
	f.BoolVar(&f.dryRun, "dry-run", false, "check all that can be checked, change nothing")
	f.BoolVar(&f.json, "json", false, "print the result as JSON")
	return f
}

// parse takes flags before and after the other arguments, and returns those.
func (f *flags) parse(args []string) ([]string, error) {
	var rest []string
	for {
		f.SetOutput(io.Discard) // the error is printed once, by main
		err := f.Parse(args)
		if errors.Is(err, flag.ErrHelp) {
			f.SetOutput(os.Stdout)
			f.Usage()
			return nil, err
		}
		if err != nil {
			return nil, &ami.Error{Class: ami.ClassUsage, Err: err}
		}
		if f.NArg() == 0 {
			return rest, nil
		}
		rest, args = append(rest, f.Arg(0)), f.Args()[1:]
	}
}

func (f *flags) config(ctx context.Context) (aws.Config, error) {
	// What the SDK warns of ends in an error or does not matter.
	options := []func(*config.LoadOptions) error{config.WithLogger(logging.Nop{})}
	if f.endpoint != "" {
		options = append(options, config.WithBaseEndpoint(f.endpoint))
	}
	if first := list(f.regions); len(first) > 0 {
		options = append(options, config.WithRegion(first[0]))
	}
	cfg, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return cfg, &ami.Error{Class: ami.ClassCredentials, Err: fmt.Errorf("read the AWS configuration: %w", err)}
	}
	if _, err := cfg.Credentials.Retrieve(ctx); err != nil {
		if ctx.Err() != nil {
			return cfg, ctx.Err()
		}
		return cfg, &ami.Error{Class: ami.ClassCredentials, Err: errors.New("no AWS credentials: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run on an instance with a role")}
	}
	return cfg, nil
}

func list(text string) []string {
	return strings.FieldsFunc(text, func(c rune) bool { return c == ',' || c == ' ' })
}

// pairs are KEY=VALUE flags.
type pairs map[string]string

func (p pairs) String() string { return "" }
func (p pairs) Set(text string) error {
	key, value, found := strings.Cut(text, "=")
	if !found || key == "" {
		return errors.New("write it as KEY=VALUE")
	}
	p[key] = value
	return nil
}

// age is a duration that may be in days.
type age time.Duration

func (a age) String() string { return time.Duration(a).String() }
func (a *age) Set(text string) error {
	if days, found := strings.CutSuffix(text, "d"); found {
		n, err := strconv.Atoi(days)
		if err != nil || n < 0 {
			return errors.New("write it as 90d or 12h")
		}
		*a = age(time.Duration(n) * 24 * time.Hour)
		return nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return errors.New("write it as 90d or 12h")
	}
	*a = age(d)
	return nil
}

func publish(ctx context.Context, args []string) error {
	f := newFlags("aws", "aws --name NAME [flags] FILE|-")
	tags, deprecate := pairs{}, age(0)
	var (
		name        = f.String("name", "", "`name` of the AMI (required)")
		description = f.String("description", "", "`text` of the AMI's description (default: its name)")
		method      = f.String("method", "ebs", "ebs: write blocks by EBS direct; import: through S3 and ImportSnapshot")
		bucket      = f.String("bucket", "", "S3 `bucket` in the same region, for --method import")
		role        = f.String("role", "vmimport", "service `role` for --method import")
		parent      = f.String("parent", "", "`snapshot` to write only the differences to, or auto: the newest of a disk of the same file name")
		onlyCopy    = f.Bool("copy", false, "upload to the first region and copy to the others, instead of uploading to each")
		arch        = f.String("arch", "", "x86_64 or arm64 (default: what the disk boots on)")
		bootMode    = f.String("boot-mode", "", "uefi, uefi-preferred or legacy-bios (default: what the disk can)")
		volumeType  = f.String("volume-type", "gp3", "`type` of the volume")
		volumeSize  = f.Int64("volume-size", 0, "size of the volume in `GiB` (default: the disk's, rounded up)")
		encrypt     = f.Bool("encrypt", false, "encrypt the snapshot")
		key         = f.String("kms-key", "", "`ARN` of the key to encrypt with (default: the account's)")
		share       = f.String("share", "", "`who` may launch it: accounts, ARNs of organizations or units, or all; separated by commas")
		parameter   = f.String("ssm-parameter", "", "`name` of an SSM parameter that gets the id of the AMI")
		register    = f.String("register", "", "YAML `file` with more fields of RegisterImage")
		keep        = f.Bool("keep", false, "after a failure, keep what was made, to go on from there")
		state       = f.String("state", "", "`directory` for the state of unfinished runs (default: $XDG_STATE_HOME/slipway)")
		workers     = f.Int("workers", 128, "`number` of blocks under way at most")
		rate        = f.Float64("rate", 950, "`blocks` per second and region at most")
		timeout     = f.Duration("timeout", 20*time.Second, "`time` for one attempt of a request")
	)
	f.Var(tags, "tag", "`KEY=VALUE` for image and snapshot; may be repeated")
	f.Var(&deprecate, "deprecate-after", "`age` at which the AMI is deprecated, such as 90d")
	rest, err := f.parse(args)
	if err != nil {
		return err
	}
	if len(rest) != 1 {
		return usage("give one disk: a file, or - for standard input")
	}
	if *workers < 1 || *rate <= 0 || *timeout <= 0 {
		return usage("--workers, --rate and --timeout must be greater than zero")
	}
	o := ami.Options{
		Name: *name, Regions: list(f.regions), Method: ami.Method(*method), Copy: *onlyCopy,
		Bucket: *bucket, Role: *role, Parent: *parent, KMSKey: *key, Encrypt: *encrypt,
		VolumeSize: *volumeSize, VolumeType: types.VolumeType(*volumeType), Tags: tags, Architecture: disk.Architecture(*arch),
		Share: list(*share), DeprecateAfter: time.Duration(deprecate), SSMParameter: *parameter,
		Keep: *keep, State: *state, Workers: *workers, Rate: *rate, Timeout: *timeout,
		Monitor: new(ami.Monitor),
	}
	if *register != "" {
		if err := readRegister(*register, &o); err != nil {
			return err
		}
	}
	if *description != "" {
		o.Register.Description = description
	}
	if *bootMode != "" {
		o.Register.BootMode = types.BootModeValues(*bootMode)
	}

	started := time.Now()
	d, err := open(ctx, rest[0])
	if err != nil {
		if ctx.Err() == nil {
			err = &ami.Error{Class: ami.ClassDisk, Err: err}
		}
		return err
	}
	defer d.Close()
	p, err := ami.New(d, o)
	if err != nil {
		return err
	}
	for _, warning := range p.Warnings() {
		fmt.Fprintf(os.Stderr, "slipway-publish: warning: %s: %s\n", d.Name, warning)
	}
	cfg, err := f.config(ctx)
	if err != nil {
		return err
	}
	if f.dryRun {
		result, err := p.Preflight(ctx, cfg)
		if err != nil {
			return err
		}
		return printPlan(os.Stdout, d, p.Options(), result, f.json)
	}
	stop := follow(os.Stderr, o.Monitor)
	result, err := p.Publish(ctx, cfg)
	stop()
	if err != nil {
		return err
	}
	return printResult(os.Stdout, result, time.Since(started), f.json)
}

func open(ctx context.Context, name string) (*disk.Disk, error) {
	if name == "-" {
		return disk.Spool(ctx, os.Stdin, "")
	}
	return disk.Open(ctx, name)
}

// readRegister reads fields of RegisterImage, by the names that the API gives
// them. Those that the publisher itself sets cannot be there.
func readRegister(path string, o *ami.Options) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return &ami.Error{Class: ami.ClassUsage, Err: err}
	}
	var fields map[string]any
	if err := yaml.Unmarshal(data, &fields); err != nil {
		return usage("%s: %w", path, err)
	}
	for _, ours := range []string{"Name", "DryRun", "TagSpecifications", "ImageLocation"} {
		if _, found := fields[ours]; found {
			return usage("%s: %s is not for this file: use --name, --dry-run and --tag", path, ours)
		}
	}
	text, err := json.Marshal(fields)
	if err != nil {
		return usage("%s: %w", path, err)
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&o.Register); err != nil {
		return usage("%s: %w; fields have the names of RegisterImage in the EC2 API", path, err)
	}
	return nil
}

func gc(ctx context.Context, args []string) error {
	f := newFlags("aws gc", "aws gc [flags]")
	older := age(2 * time.Hour)
	bucket := f.String("bucket", "", "also look in this S3 `bucket`")
	f.Var(&older, "older-than", "leave what is younger than `age`")
	rest, err := f.parse(args)
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return usage("gc takes no argument: %q", rest[0])
	}
	cfg, err := f.config(ctx)
	if err != nil {
		return err
	}
	found, err := ami.GC(ctx, cfg, ami.GCOptions{Regions: list(f.regions), Bucket: *bucket, OlderThan: time.Duration(older), DryRun: f.dryRun})
	if printErr := printLeftovers(os.Stdout, found, f.dryRun, f.json); err == nil {
		err = printErr
	}
	return err
}
