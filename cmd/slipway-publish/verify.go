package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/slipway-build/slipway/cmd/internal/cli"
	"github.com/slipway-build/slipway/publisher/ami"
	"github.com/slipway-build/slipway/publisher/disk"
)

// verifyFlags are the flags of slipway-publish aws verify.
type verifyFlags struct {
	account *accountFlags
	options ami.Options

	arch, bootMode, registerFile, uefiData, rebuild string
}

func newVerifyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify [flags] AMI|SNAPSHOT {DISK|MAP|oci://… | --rebuild YAML [-- BUILD-FLAGS]}",
		Short: "Prove that an AMI is a disk",
		Long: "Compare an AMI or a snapshot with a disk or its map, block by block, and the AMI's attributes with what a publish sets.\n" +
			"The exit status is 1 if they differ.",
		Example: `  slipway-publish aws verify ami-0123456789abcdef0 out/web.raw
  slipway-publish aws verify ami-0123456789abcdef0 --rebuild web.yml -- --size 1G`,
	}
	f := new(verifyFlags)
	f.options.Monitor = new(ami.Monitor)
	o, flags := &f.options, cmd.Flags()
	flags.SortFlags = false // the most used first
	flags.StringVar(&f.rebuild, "rebuild", "", "build the disk from the `YAML` and its lock first; what follows -- goes to slipway build")
	flags.StringVar(&f.arch, "arch", "", "the --arch of the publish")
	flags.StringVar(&f.bootMode, "boot-mode", "", "the --boot-mode of the publish")
	flags.StringVar(&f.uefiData, "uefi-data", "", "the --uefi-data `file` of the publish")
	flags.StringVar(&f.registerFile, "register", "", "the YAML `file` with other fields of the publish")
	flags.IntVar(&o.Workers, "workers", 64, "maximum `number` of blocks to read at the same time")
	flags.Float64Var(&o.Rate, "rate", 950, "maximum number of `blocks` per second")
	flags.DurationVar(&o.Timeout, "timeout", 20*time.Second, "`limit` of one attempt of a request")
	f.account = newAccountFlags(cmd)
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		switch dash := cmd.ArgsLenAtDash(); {
		case f.rebuild == "" && (len(args) != 2 || dash >= 0):
			return cli.Usagef("requires an AMI or a snapshot, and a DISK, its MAP (NAME.raw.map), oci://REGISTRY/REPOSITORY:TAG or --rebuild YAML")
		case f.rebuild != "" && (len(args) == 0 || dash < 0 && len(args) != 1 || dash >= 0 && dash != 1):
			return cli.Usagef("--rebuild requires only an AMI or a snapshot, and flags of slipway build after --")
		}
		return nil
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0], args[1:]) }
	return cmd
}

// run verifies an AMI or a snapshot. The other arguments are a file or, for a
// rebuild, flags of slipway build.
func (f *verifyFlags) run(cmd *cobra.Command, id string, args []string) error {
	o := &f.options
	if o.Workers < 1 || o.Rate <= 0 || o.Timeout <= 0 {
		return cli.Usagef("--workers, --rate and --timeout must be greater than zero")
	}
	o.Regions = f.account.regions()
	o.Architecture = disk.Architecture(f.arch)
	if f.registerFile != "" {
		if err := readRegister(f.registerFile, &o.Register); err != nil {
			return err
		}
	}
	if err := setFirmware(&o.Register, f.bootMode, f.uefiData); err != nil {
		return err
	}
	ctx := cmd.Context()
	cfg, err := f.account.load(ctx)
	if err != nil {
		return err
	}
	var path string
	if f.rebuild == "" {
		path = args[0]
	} else {
		dir, err := os.MkdirTemp("", "slipway-verify-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		if path, err = rebuild(ctx, f.rebuild, dir, args, cmd.ErrOrStderr()); err != nil {
			return err
		}
	}
	d, err := open(cmd, path, f.arch)
	if err != nil {
		return err
	}
	defer d.Close()
	stop := follow(cmd.ErrOrStderr(), o.Monitor)
	result, err := ami.Verify(ctx, cfg, id, d, *o)
	stop()
	if err != nil {
		return err
	}
	if err := printVerification(cmd.OutOrStdout(), result, f.account.json); err != nil {
		return err
	}
	if !result.Match {
		return fmt.Errorf("%s is not %s", id, d.Name)
	}
	return nil
}

// rebuild builds the disk of a YAML into dir and returns its path.
func rebuild(ctx context.Context, yaml, dir string, flags []string, progress io.Writer) (string, error) {
	program, err := cli.FindProgram("slipway")
	if err != nil {
		return "", fmt.Errorf("--rebuild needs the program slipway: %w", err)
	}
	args := append([]string{"build", "--format", "raw", "--output", dir}, flags...)
	cmd := exec.CommandContext(ctx, program, append(args, yaml)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // slipway cleans up
	cmd.WaitDelay = time.Minute
	cmd.Stdout, cmd.Stderr = progress, progress
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		return "", fmt.Errorf("build %s: %s: %w", yaml, program, err)
	}
	found, err := filepath.Glob(filepath.Join(dir, "*.raw"))
	if err != nil {
		return "", err
	}
	if len(found) != 1 {
		return "", fmt.Errorf("build %s: it made %d raw disks instead of one: choose one platform with -- --platform, and no other format", yaml, len(found))
	}
	return found[0], nil
}

func printVerification(w io.Writer, v *ami.Verification, asJSON bool) error {
	if asJSON {
		return printJSON(w, v)
	}
	subject := v.Snapshot
	if v.Image != "" {
		subject = fmt.Sprintf("%s (%s)", v.Image, v.Snapshot)
	}
	for _, note := range v.Notes {
		fmt.Fprintf(w, "%s: %s\n", subject, note)
	}
	if v.Match {
		_, err := fmt.Fprintf(w, "%s is %s: %d blocks match, %s\n", subject, v.Disk, v.Blocks, v.Content)
		return err
	}
	fmt.Fprintf(w, "%s is not %s:\n", subject, v.Disk)
	for _, a := range v.Attributes {
		fmt.Fprintf(w, "  %s is %q, want %q\n", a.Name, a.Got, a.Want)
	}
	for _, b := range v.Differences {
		fmt.Fprintf(w, "  block %d is %s: ", b.Index, b.Kind)
		switch b.Bytes {
		case 0: // of a map
			fmt.Fprintf(w, "in the 512 KiB at %d\n", b.Offset)
		case 1:
			fmt.Fprintf(w, "byte %d differs: %v\n", b.Offset, b.Place)
		default:
			fmt.Fprintf(w, "%d bytes differ, the first is %d: %v\n", b.Bytes, b.Offset, b.Place)
		}
	}
	if more := v.Different - len(v.Differences); more > 0 {
		fmt.Fprintf(w, "  %d more blocks differ\n", more)
	}
	return nil
}
