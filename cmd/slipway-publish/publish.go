package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v4"

	"github.com/slipway-build/slipway/cmd/internal/cli"
	"github.com/slipway-build/slipway/exporter/efivars"
	"github.com/slipway-build/slipway/publisher/ami"
	"github.com/slipway-build/slipway/publisher/artifact"
	"github.com/slipway-build/slipway/publisher/disk"
)

// publishFlags are the flags of slipway-publish aws. Those that need no
// conversion set the options directly.
type publishFlags struct {
	account *accountFlags
	options ami.Options
	launch  launchFlags

	method, arch, bootMode, volumeType   string
	description, registerFile, shareList string
	uefiData                             string
}

func newPublishCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "aws [flags] FILE|-|oci://REGISTRY/REPOSITORY[:TAG][@DIGEST]",
		Short: "Publish a raw disk as an AMI",
		Long:  "Publish a raw disk as an Amazon Machine Image (AMI): one in a file, from standard input (-), or in a registry (oci://).",
		Example: `  slipway-publish aws out/web.raw
  slipway-publish aws --name web-2 --parent auto --region us-east-1,eu-west-1 out/web.raw
  slipway-publish aws --name web-2 --launch --share 123456789012 --ssm-parameter /web/ami out/web.raw
  slipway-publish aws --name web-2 --dry-run - <out/web.raw
  slipway-publish aws --name web-2 oci://registry.example.com/machines/web:v2`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return cli.Usagef("%d disks instead of one: a FILE, oci://REGISTRY/REPOSITORY:TAG, or - for standard input", len(args))
			}
			return nil
		},
	}
	f := new(publishFlags)
	o := &f.options
	o.Tags, o.Monitor = map[string]string{}, new(ami.Monitor)
	flags := cmd.Flags()
	flags.SortFlags = false // the most used first
	flags.StringVar(&o.Name, "name", "", "`name` of the AMI (default: the file's name and a digest)")
	flags.StringVar(&f.description, "description", "", "`description` of the AMI (default: its name)")
	flags.StringVar(&f.method, "method", "ebs", "ebs: write blocks with the EBS direct APIs; import: upload to S3 and call ImportSnapshot")
	flags.StringVar(&o.Bucket, "bucket", "", "S3 `bucket` in the same region, for --method import")
	flags.StringVar(&o.Role, "role", "vmimport", "service `role` for --method import")
	flags.StringVar(&o.Parent, "parent", "", "`snapshot` to write only the differences to, or auto for the newest one of a disk with the same file name")
	flags.BoolVar(&o.Copy, "copy", false, "upload to the first region and copy the AMI to the others")
	flags.StringVar(&f.arch, "arch", "", "x86_64 or arm64 (default: the architecture that the disk boots on)")
	flags.StringVar(&f.bootMode, "boot-mode", "", "uefi, uefi-preferred or legacy-bios (default: what the disk supports)")
	flags.StringVar(&f.uefiData, "uefi-data", "", "`file` with the keys of Secure Boot (uefi-data of slipway keys new): instances trust them, boot with uefi and have a TPM 2.0")
	flags.StringVar(&f.volumeType, "volume-type", "gp3", "`type` of the root volume")
	flags.Int64Var(&o.VolumeSize, "volume-size", 0, "size of the root volume in `GiB` (default: the size of the disk, rounded up)")
	flags.BoolVar(&o.Encrypt, "encrypt", false, "encrypt the snapshot")
	flags.Func("kms-key", "ARN of the key to encrypt with, as `[REGION=]ARN`; may be repeated (default: the account's default key)", f.setKey)
	flags.StringVar(&f.shareList, "share", "", "comma-separated `accounts`, and ARNs of organizations or units, that may launch the AMI, or all")
	flags.StringArrayVar(&o.AllowSecrets, "allow-secret", nil, "`path` on the disk that may have secrets; may be repeated")
	flags.StringVar(&o.SSMParameter, "ssm-parameter", "", "`name` of an SSM parameter to set to the ID of the AMI")
	f.launch.define(flags, "before the AMI is shared and --ssm-parameter is set", true)
	flags.StringVar(&f.registerFile, "register", "", "YAML `file` with other fields of RegisterImage")
	flags.StringVar((*string)(&o.Protection), "deregistration-protection", "", "protect the AMI from deregistration: `enabled`, or with-cooldown for 24 hours more after the protection ends")
	flags.Lookup("deregistration-protection").NoOptDefVal = string(ami.ProtectionOn)
	flags.BoolVar(&o.KeepGoing, "keep-going", false, "keep the AMIs of the other regions if one fails")
	flags.BoolVar(&o.Keep, "keep", false, "after a failure, keep what was made, so that the same command can continue")
	flags.StringVar(&o.State, "state", "", "`directory` for the state of unfinished runs (default: $XDG_STATE_HOME/slipway)")
	flags.IntVar(&o.Workers, "workers", 128, "maximum `number` of blocks to write at the same time")
	flags.Float64Var(&o.Rate, "rate", 950, "maximum number of `blocks` per second in each region")
	flags.DurationVar(&o.Timeout, "timeout", 20*time.Second, "`limit` of one attempt of a request")
	cli.PairsVar(flags, o.Tags, "tag", "tag for the AMI and its snapshot, as `KEY=VALUE`; may be repeated", nil)
	ageVar(flags, &o.DeprecateAfter, "deprecate-after", "`age` at which the AMI is deprecated, for example 90d or 12h")
	f.account = newAccountFlags(cmd)
	f.account.dryRunVar(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0]) }
	return cmd
}

func (f *publishFlags) run(cmd *cobra.Command, path string) error {
	if f.options.Name == "" && path == "-" {
		return cli.Usagef("--name is required for a disk from standard input")
	}
	if err := f.complete(); err != nil {
		return err
	}
	var err error
	if f.options.Launch, err = f.launch.options(cmd.Flags(), true); err != nil {
		return err
	}
	ctx, started := cmd.Context(), time.Now()
	d, err := open(cmd, path, f.arch)
	if err != nil {
		return err
	}
	defer d.Close()
	p, err := ami.New(d, f.options)
	if err != nil {
		return err
	}
	secrets, err := p.SecretWarnings(ctx)
	if err != nil {
		return err
	}
	for _, warning := range slices.Concat(p.Warnings(), secrets) {
		fmt.Fprintf(cmd.ErrOrStderr(), "slipway-publish: warning: %s: %s\n", d.Name, warning)
	}
	cfg, err := f.account.load(ctx)
	if err != nil {
		return err
	}
	if f.account.dryRun {
		result, err := p.Preflight(ctx, cfg)
		if err != nil {
			return err
		}
		return printPlan(cmd.OutOrStdout(), d, p.Options(), result, f.account.json)
	}
	stop := follow(cmd.ErrOrStderr(), f.options.Monitor)
	result, err := p.Publish(ctx, cfg)
	stop()
	if result != nil { // with --keep-going, there may be errors too
		err = errors.Join(err, printResult(cmd.OutOrStdout(), result, time.Since(started), f.account.json))
	}
	return err
}

// complete checks the flags and sets the options that follow from them.
func (f *publishFlags) complete() error {
	o := &f.options
	if o.Workers < 1 || o.Rate <= 0 || o.Timeout <= 0 {
		return cli.Usagef("--workers, --rate and --timeout must be greater than zero")
	}
	o.Regions = f.account.regions()
	o.Share = list(f.shareList)
	o.Method = ami.Method(f.method)
	o.VolumeType = types.VolumeType(f.volumeType)
	o.Architecture = disk.Architecture(f.arch)
	if f.registerFile != "" {
		if err := readRegister(f.registerFile, &o.Register); err != nil {
			return err
		}
	}
	if f.description != "" {
		o.Register.Description = &f.description
	}
	return setFirmware(&o.Register, f.bootMode, f.uefiData)
}

// setFirmware sets the boot mode and the file of UefiData, if they are not empty.
// UefiData turns Secure Boot on, so that an instance must not boot under BIOS, and
// a TPM records what it booted.
func setFirmware(register *ec2.RegisterImageInput, bootMode, uefiData string) error {
	if bootMode != "" {
		register.BootMode = types.BootModeValues(bootMode)
	}
	if uefiData == "" {
		return nil
	}
	data, err := os.ReadFile(uefiData)
	if err != nil {
		return &ami.Error{Class: ami.ClassUsage, Err: err}
	}
	text := strings.TrimSpace(string(data))
	if _, err := efivars.DecodeAWS(text); err != nil {
		return usage("--uefi-data %s: %w", uefiData, err)
	}
	if bootMode != "" && bootMode != string(types.BootModeValuesUefi) {
		return usage("--uefi-data requires --boot-mode uefi, not %s", bootMode)
	}
	register.UefiData, register.BootMode, register.TpmSupport = &text, types.BootModeValuesUefi, types.TpmSupportValuesV20
	return nil
}

// setKey sets the KMS key of one region or of all.
func (f *publishFlags) setKey(text string) error {
	o := &f.options
	if region, key, found := strings.Cut(text, "="); found {
		if o.KMSKeys == nil {
			o.KMSKeys = map[string]string{}
		}
		o.KMSKeys[region] = key
		return nil
	}
	if o.KMSKey != "" {
		return errors.New("one key for all regions, or REGION=ARN for each")
	}
	o.KMSKey = text
	return nil
}

// open opens the disk that an argument names. One in a registry is for an
// architecture of EC2, unless that is "".
func open(cmd *cobra.Command, path, arch string) (d *disk.Disk, err error) {
	ctx := cmd.Context()
	switch {
	case artifact.IsReference(path):
		return openArtifact(cmd, path, arch)
	case path == "-":
		d, err = disk.Spool(ctx, os.Stdin, "")
	case filepath.Ext(path) == ".map":
		d, err = disk.OpenMap(path)
	default:
		d, err = disk.Open(ctx, path)
	}
	if err != nil && ctx.Err() == nil {
		err = &ami.Error{Class: ami.ClassDisk, Err: err}
	}
	return d, err
}

// openArtifact opens a raw disk in a registry. It prints what a tag stands for.
func openArtifact(cmd *cobra.Command, text, arch string) (*disk.Disk, error) {
	ref, err := artifact.ParseReference(text)
	if err != nil {
		return nil, &ami.Error{Class: ami.ClassUsage, Err: err}
	}
	choice := artifact.Choice{Format: "raw"}
	switch disk.Architecture(arch) {
	case disk.AMD64:
		choice.Architecture = "amd64"
	case disk.ARM64:
		choice.Architecture = "arm64"
	}
	a, err := artifact.Open(cmd.Context(), ref, choice)
	if err != nil {
		return nil, err
	}
	if !ref.Pinned() {
		fmt.Fprintf(cmd.ErrOrStderr(), "slipway-publish: publishing %s\n", a.Reference)
	}
	return a.Disk(), nil
}

// readRegister reads fields of RegisterImage, by their names in the API. Fields
// that have a flag are rejected.
func readRegister(path string, register *ec2.RegisterImageInput) error {
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
			return usage("%s: the field %s is not supported here: use --name, --dry-run and --tag", path, ours)
		}
	}
	text, err := json.Marshal(fields)
	if err != nil {
		return usage("%s: %w", path, err)
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(register); err != nil {
		return usage("%s: %w; use the field names of RegisterImage in the EC2 API", path, err)
	}
	return nil
}

func usage(format string, args ...any) error {
	return &ami.Error{Class: ami.ClassUsage, Err: fmt.Errorf(format, args...)}
}
