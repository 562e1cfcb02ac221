package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/slipway-build/slipway/cmd/internal/cli"
	"github.com/slipway-build/slipway/exporter/format"
	"github.com/slipway-build/slipway/frontend"
	"github.com/slipway-build/slipway/internal/client"
	graph "github.com/slipway-build/slipway/llb"
	"github.com/slipway-build/slipway/publisher/artifact"
)

func newBuildCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "build [flags] YAML [CONTEXT]",
		Short: "Build a machine",
		Long:  "Build a machine. If YAML is -, it comes from standard input and the files are called machine.",
		Example: `  slipway build aws.yml
  slipway build --format raw --size 100M -o out aws.yml`,
	}
	f := newBuildFlags(cmd)
	push := cmd.Flags().String("push", "", "store the disks in a registry too, with SBOM and provenance: `oci://REGISTRY/REPOSITORY:TAG`")
	p := newPushFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *push == "" {
			if p.key != "" || p.keys != "" {
				return cli.Usagef("--sign-key and --keys need --push")
			}
			_, err := build(cmd, f, args)
			return err
		}
		ref, err := artifact.ParseReference(*push)
		if err != nil {
			return cli.Usagef("--push: %w", err)
		}
		files, err := build(cmd, f, args)
		if err != nil {
			return err
		}
		return p.pushBuilt(cmd, f, files, ref)
	}
	return cmd
}

// attestations are the files in which BuildKit writes the attestations of a
// build.
var attestations = []string{"sbom.spdx.json", "provenance.json"}

// pushBuilt stores the disks of a build in a registry, with its attestations.
func (p *pushFlags) pushBuilt(cmd *cobra.Command, f *builderFlags, files []client.File, ref artifact.Reference) error {
	var disks []string
	for _, file := range files {
		if formatOf(file.Path) != "" {
			disks = append(disks, file.Path)
		} else if slices.Contains(attestations, filepath.Base(file.Path)) {
			p.attach = append(p.attach, file.Path)
		} else if strings.HasSuffix(file.Path, format.PCRsSuffix) {
			p.pcrs = append(p.pcrs, file.Path)
		}
	}
	if disks == nil {
		return cli.Usagef("--push: the build made no disk: choose one with --format, for example raw")
	}
	if lock := frontend.LockName(f.File); fileExists(lock) {
		p.lock, p.yaml = lock, f.File
	}
	if len(f.Platforms) == 1 {
		p.architecture = strings.TrimPrefix(f.Platforms[0], "linux/")
	}
	return p.push(cmd, disks, ref)
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// newBuildFlags adds the flags of build to a command.
func newBuildFlags(cmd *cobra.Command) *builderFlags {
	f := newBuilderFlags(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.Target, "format", "", "`name` of the output format (default: kernel+initrd)")
	flags.StringVarP(&f.file, "file", "f", "", "machine `YAML`; the only argument is the folder of the build context then")
	flags.StringVar(&f.Target, "target", "", "the same as --format, as in docker buildx")
	flags.Func("name", "`name` of the files (default: that of the YAML)", func(name string) error {
		f.BuildArgs["NAME"] = name
		return nil
	})
	flags.StringArrayVarP(&f.tags, "tag", "t", nil, "`name` of the image of the format docker; may be repeated")
	flags.Func("size", "`size` of a disk, for example 100M (default: the smallest that fits)", func(size string) error {
		f.BuildArgs["SIZE"] = size
		return nil
	})
	flags.StringArrayVarP(&f.Outputs, "output", "o", []string{"."}, "`destination` of the files: a folder, - or type=TYPE,KEY=VALUE; may be repeated")
	flags.StringArrayVar(&f.Secrets, "secret", nil, "secret for the machine: `id=ID,src=FILE` or id=ID,env=NAME")
	secureBootVar(cmd, f)
	uefiDataVar(cmd, f)
	flags.StringArrayVar(&f.SSH, "ssh", nil, "SSH agent for package folders: `ID[=SOCKET|KEY]`")
	flags.StringArrayVar(&f.CacheFrom, "cache-from", nil, "cache to read: `type=TYPE,KEY=VALUE`")
	flags.StringArrayVar(&f.CacheTo, "cache-to", nil, "cache to write: `type=TYPE,KEY=VALUE`")
	flags.BoolVar(&f.NoCache, "no-cache", false, "run every step again")
	flags.StringSliceVar(&f.NoCacheFilter, "no-cache-filter", nil, "comma-separated `components` whose steps run again")
	attestationVar(flags, f.Attests, "sbom", "list the machine's software; --sbom=generator=IMAGE chooses the scanner")
	attestationVar(flags, f.Attests, "provenance", "record the origin of the result; --provenance=mode=max records everything")
	return f
}

// build builds a machine and prints the files that it made.
func build(cmd *cobra.Command, f *builderFlags, args []string) ([]client.File, error) {
	args = f.arguments(args)
	b, progress, end, err := f.start(cmd, args)
	if err != nil {
		return nil, err
	}
	defer end()
	files, err := client.Build(cmd.Context(), b, f.Options, progress)
	if err := f.explain(cmd, progress, err); err != nil {
		return nil, err
	}
	for _, file := range files {
		fmt.Fprintf(cmd.OutOrStdout(), "%s\t%s\n", file.Path, units.HumanSize(float64(file.Size)))
		if filepath.Ext(file.Path) == ".raw" {
			name := strings.TrimSuffix(filepath.Base(file.Path), ".raw")
			fmt.Fprintf(cmd.ErrOrStderr(), "\nto make an AMI of it: slipway-publish aws --name %s %s\n", name, file.Path)
		}
	}
	return files, nil
}

// secureBootVar defines the flags that sign a machine for Secure Boot.
func secureBootVar(cmd *cobra.Command, f *builderFlags) {
	secret := func(id string) func(string) error {
		return func(file string) error {
			f.Secrets = append(f.Secrets, "id="+id+",src="+file)
			f.BuildArgs["SIGN"] = "true"
			return nil
		}
	}
	cmd.Flags().Func("secure-boot-key", "sign the machine for Secure Boot with the private key in `file`", secret(graph.SignKey))
	cmd.Flags().Func("secure-boot-cert", "`file` with the certificate for --secure-boot-key", secret(graph.SignCertificate))
	cmd.MarkFlagsRequiredTogether("secure-boot-key", "secure-boot-cert")
}

// uefiDataVar defines the flag that predicts the measurements of a signed machine.
func uefiDataVar(cmd *cobra.Command, f *builderFlags) {
	usage := "also write NAME.pcrs.json, the registers of a TPM after firmware with the keys in `file`, the uefi-data of slipway keys new, has booted the signed machine"
	cmd.Flags().Func("uefi-data", usage, func(file string) error {
		f.Secrets = append(f.Secrets, "id="+graph.UEFIData+",src="+file)
		f.BuildArgs["PCRS"] = "true"
		return nil
	})
}

// attestationVar defines a flag that takes true, false or the attributes of an
// attestation.
func attestationVar(flags *pflag.FlagSet, attests map[string]string, kind, usage string) {
	flags.BoolFunc(kind, usage, func(text string) error {
		switch on, err := strconv.ParseBool(text); {
		case err == nil && on:
			attests[kind] = ""
		case err == nil:
			delete(attests, kind)
		case !strings.Contains(text, "="):
			return errors.New("write it as true, false or KEY=VALUE")
		default:
			attests[kind] = text
		}
		return nil
	})
}
