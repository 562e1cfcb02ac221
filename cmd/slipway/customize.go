package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"github.com/containerd/continuity"
	"github.com/spf13/cobra"

	"github.com/slipway-build/slipway/cmd/internal/cli"
	"github.com/slipway-build/slipway/exporter/disk"
	"github.com/slipway-build/slipway/exporter/diskmap"
)

func newCustomizeCommand() *cobra.Command {
	var cmdline, userData string
	var restore bool
	cmd := &cobra.Command{
		Use:   "customize [flags] IMAGE",
		Short: "Fill the reserved room of an image",
		Long: `Fill the room that RESERVE leaves in a raw disk, a CD or a unified kernel image,
in place: additions to the kernel command line, and user data for the package
metadata. What was filled before is replaced. Signed images are refused.`,
		Example: `  slipway build --format raw --build-arg RESERVE=4K aws.yml
  slipway customize --cmdline 'worker=m-17' --user-data m-17.json aws.raw
  slipway customize --restore aws.raw`,
		Args: cobra.ExactArgs(1),
	}
	flags := cmd.Flags()
	flags.StringVar(&cmdline, "cmdline", "", "`text` to add to the kernel command line; empty to remove an earlier one")
	flags.StringVar(&userData, "user-data", "", "`file` with the user data, - for standard input; an empty one removes earlier data")
	flags.BoolVar(&restore, "restore", false, "restore the image as the build wrote it")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		hasCmdline, hasData := flags.Changed("cmdline"), flags.Changed("user-data")
		if restore == (hasCmdline || hasData) {
			return cli.Usagef("requires --cmdline, --user-data or both, or else --restore")
		}
		var data []byte
		if hasData {
			var err error
			if data, err = readUserData(cmd.InOrStdin(), userData); err != nil {
				return err
			}
		}
		return customize(cmd.OutOrStdout(), args[0], func(r *disk.Reserved, image disk.ImageFile) error {
			if hasCmdline || restore {
				if err := r.SetCmdline(image, cmdline); err != nil {
					return err
				}
			}
			if hasData || restore {
				return r.SetUserData(image, data)
			}
			return nil
		})
	}
	return cmd
}

// readUserData reads user data, which no image can hold if it is larger than
// disk.MaxReserve.
func readUserData(stdin io.Reader, name string) ([]byte, error) {
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		stdin = f
	}
	return io.ReadAll(io.LimitReader(stdin, disk.MaxReserve+1))
}

// customize changes an image, and the map beside it, and prints the digest.
func customize(w io.Writer, name string, change func(*disk.Reserved, disk.ImageFile) error) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	reserved, err := disk.FindReserved(f, info.Size())
	if err == nil {
		err = change(reserved, f)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := updateMap(name+".map", f, info.Size(), reserved.Changed()); err != nil {
		return err
	}
	hash := sha256.New()
	if _, err := io.Copy(hash, io.NewSectionReader(f, 0, info.Size())); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "sha256:%x  %s\n", hash.Sum(nil), name)
	return err
}

// updateMap updates the digests in the map of a disk, if there is one.
func updateMap(name string, image io.ReaderAt, size int64, changed []disk.Area) error {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	m, err := diskmap.Read(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if m.Size != size {
		return fmt.Errorf("%s is the map of a disk of %d bytes, not %d: remove it", name, m.Size, size)
	}
	for i, d := range m.Digests {
		start := int64(d.Block) * diskmap.BlockSize
		if !slices.ContainsFunc(changed, func(a disk.Area) bool { return a.Offset < start+diskmap.BlockSize && start < a.Offset+a.Size }) {
			continue
		}
		block := make([]byte, diskmap.BlockSize)
		if _, err := image.ReadAt(block, start); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		sum := sha256.Sum256(block)
		m.Digests[i].SHA256 = hex.EncodeToString(sum[:])
	}
	var text bytes.Buffer
	if err := m.Write(&text); err != nil {
		return err
	}
	return continuity.AtomicWriteFile(name, text.Bytes(), 0o644)
}
