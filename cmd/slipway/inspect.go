package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/slipway-build/slipway/cmd/internal/cli"
	"github.com/slipway-build/slipway/exporter"
	"github.com/slipway-build/slipway/exporter/tree"
	"github.com/slipway-build/slipway/internal/image"
	"github.com/slipway-build/slipway/internal/image/report"
	"github.com/slipway-build/slipway/publisher/artifact"
)

func newInspectCommand() *cobra.Command {
	var asJSON, packages, list bool
	var extract, html, keys, output string
	cmd := &cobra.Command{
		Use:   "inspect [flags] IMAGE [PATH]",
		Short: "Show what is in a disk or another image",
		Long: `Show what is in an image: partitions, boot loaders, kernel, command line,
components with their sizes, containers and packages, signatures, whether dm-verity
accepts the root file system, and the registers of a TPM after a boot.

IMAGE is a file of any format that slipway build writes, a directory with the files
of one machine, their common prefix, a disk in a registry (oci://…), or an AMI or
a snapshot (ami-…, snap-…), which slipway-publish reads through the EBS direct API.`,
		Example: `  slipway inspect out/aws.raw
  slipway inspect --tree out/aws.raw etc
  slipway inspect --extract containers/services/sshd/config.json out/aws.raw
  slipway inspect --html aws.html out/aws.raw`,
		Args: cobra.RangeArgs(1, 2),
	}
	flags := cmd.Flags()
	flags.BoolVar(&asJSON, "json", false, "print JSON")
	flags.BoolVar(&packages, "packages", false, "list all packages")
	flags.BoolVar(&list, "tree", false, "list the files of the root file system, below PATH if it is given")
	flags.StringVar(&extract, "extract", "", "write the file at `path` to --output, or a directory as a tar archive")
	flags.StringVarP(&output, "output", "o", "-", "`file` for --extract; - is standard output")
	flags.StringVar(&keys, "keys", "", "`folder` of slipway keys new whose keys the firmware trusts, for the registers (default: Secure Boot is off)")
	flags.StringVar(&html, "html", "", "write the report as one HTML page to `file`")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 1 && !list {
			return cli.Usagef("PATH needs --tree")
		}
		i, err := openImage(cmd, args[0])
		if err != nil {
			return err
		}
		defer i.Close()
		switch {
		case list:
			return listTree(cmd.OutOrStdout(), i, strings.Join(args[1:], ""))
		case extract != "":
			return writeTo(output, cmd.OutOrStdout(), func(w io.Writer) error { return extractPath(w, i, extract) })
		}
		trusted, err := trustedKeys(keys)
		if err != nil {
			return err
		}
		r := report.New(i)
		r.Verify(i, trusted)
		switch {
		case html != "":
			return writeTo(html, cmd.OutOrStdout(), r.WriteHTML)
		case asJSON:
			return printJSON(cmd.OutOrStdout(), r)
		}
		return r.WriteText(cmd.OutOrStdout(), packages)
	}
	return cmd
}

func newSizeCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "size [flags] IMAGE",
		Short:   "Show what takes the space in an image, and what it could do without",
		Example: `  slipway size out/aws.raw`,
		Args:    cobra.ExactArgs(1),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		i, err := image.Open(args[0])
		if err != nil {
			return err
		}
		defer i.Close()
		sizes, err := report.NewSizes(i)
		switch {
		case err != nil:
			return err
		case asJSON:
			return printJSON(cmd.OutOrStdout(), sizes)
		}
		return sizes.WriteText(cmd.OutOrStdout())
	}
	return cmd
}

func newDiffCommand() *cobra.Command {
	var asJSON bool
	var html string
	cmd := &cobra.Command{
		Use:   "diff [flags] OLD NEW",
		Short: "Compare two images",
		Long: `Compare two images by kernel, command line, containers, packages, components, files
and blocks of 512 KiB. Exit status, as of diff: 0 they are the same; 1 they differ;
2 trouble.`,
		Example: `  slipway diff old/aws.raw out/aws.raw
  slipway diff --json old/aws.raw out/aws.raw`,
		Args: cobra.ExactArgs(2),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().StringVar(&html, "html", "", "write the differences as one HTML page to `file`")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		d, err := compare(cmd, args[0], args[1])
		if err != nil {
			return trouble(cmd, err)
		}
		switch {
		case html != "":
			err = writeTo(html, cmd.OutOrStdout(), d.WriteHTML)
		case asJSON:
			err = printJSON(cmd.OutOrStdout(), d)
		default:
			err = d.WriteText(cmd.OutOrStdout())
		}
		if err != nil {
			return trouble(cmd, err)
		}
		if !d.Same {
			return cli.ExitStatus(statusDiffer)
		}
		return nil
	}
	return cmd
}

// Exit statuses of slipway diff, as of diff(1).
const (
	statusDiffer  = 1
	statusTrouble = 2
)

// trouble prints an error and returns the exit status for it.
func trouble(cmd *cobra.Command, err error) error {
	fmt.Fprintf(cmd.ErrOrStderr(), "%s: %v\n", cmd.Root().Name(), err)
	return cli.ExitStatus(statusTrouble)
}

func compare(cmd *cobra.Command, oldName, newName string) (*report.Diff, error) {
	a, err := openImage(cmd, oldName)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	b, err := openImage(cmd, newName)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	return report.Compare(a, b)
}

// openImage opens an image in files, in a registry or on AWS. Of several disks under one
// reference, it opens the raw one for this machine's architecture.
func openImage(cmd *cobra.Command, name string) (*image.Image, error) {
	if amazonID.MatchString(name) {
		return openAMI(cmd, name)
	}
	if !artifact.IsReference(name) {
		return image.Open(name)
	}
	ref, err := artifact.ParseReference(name)
	if err != nil {
		return nil, cli.Usagef("%w", err)
	}
	a, err := artifact.Open(cmd.Context(), ref, artifact.Choice{Preferred: artifact.Preference{Architecture: runtime.GOARCH, Format: "raw"}})
	if err != nil {
		return nil, err
	}
	return image.OpenReader(a.Name, a, a.Size)
}

// amazonID matches the ID of an AMI or of an EBS snapshot.
var amazonID = regexp.MustCompile(`^(ami|snap)-[0-9a-f]{8,17}$`)

// openAMI opens the disk of an AMI or a snapshot. slipway-publish reads it into a
// temporary file, so that this program needs no client of AWS.
func openAMI(cmd *cobra.Command, id string) (*image.Image, error) {
	program, err := cli.FindProgram("slipway-publish")
	if err != nil {
		return nil, fmt.Errorf("%s: reading it needs the program slipway-publish: %w", id, err)
	}
	dir, err := os.MkdirTemp("", "slipway-inspect-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, id+".raw")
	save := exec.CommandContext(cmd.Context(), program, "aws", "save", id, file)
	save.Cancel = func() error { return save.Process.Signal(os.Interrupt) }
	save.Stderr = cmd.ErrOrStderr()
	if err := save.Run(); err != nil {
		return nil, cmp.Or(context.Cause(cmd.Context()), fmt.Errorf("%s cannot be read: %w", id, err))
	}
	disk, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	info, err := disk.Stat()
	if err != nil {
		return nil, errors.Join(err, disk.Close())
	}
	return image.OpenReader(id, disk, info.Size())
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// writeTo writes to a file, which appears only when it is complete, or to stdout
// for "-".
func writeTo(name string, stdout io.Writer, write func(io.Writer) error) error {
	if name == "-" {
		return write(stdout)
	}
	f, err := os.CreateTemp(path.Dir(name), ".slipway-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails after the rename
	if err := errors.Join(write(f), f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

// below returns the entries of a path and what is in it.
func below(root []tree.Entry, name string) ([]tree.Entry, error) {
	name = path.Clean(strings.TrimLeft(name, "/"))
	var found []tree.Entry
	for _, e := range root {
		if name == "." || e.Path == name || strings.HasPrefix(e.Path, name+"/") {
			found = append(found, e)
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("the image has no %q", name)
	}
	return found, nil
}

func listTree(w io.Writer, i *image.Image, name string) error {
	entries, err := below(i.Root, name)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if _, err := fmt.Fprintln(w, report.Listing(e)); err != nil {
			return err
		}
	}
	return nil
}

func extractPath(w io.Writer, i *image.Image, name string) error {
	entries, err := below(i.Root, name)
	if err != nil {
		return err
	}
	if len(entries) == 1 && entries[0].Type == tree.File {
		_, err := io.Copy(w, io.NewSectionReader(entries[0].ReaderAt(), 0, entries[0].Size))
		return err
	}
	return tree.WriteTar(w, entries, time.Unix(exporter.Epoch, 0))
}
