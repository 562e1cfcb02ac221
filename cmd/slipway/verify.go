package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/slipway-build/slipway/cmd/internal/cli"
	"github.com/slipway-build/slipway/exporter/fat"
	"github.com/slipway-build/slipway/exporter/uki"
	"github.com/slipway-build/slipway/frontend"
	"github.com/slipway-build/slipway/internal/client"
	"github.com/slipway-build/slipway/internal/image"
	"github.com/slipway-build/slipway/internal/image/report"
	"github.com/slipway-build/slipway/internal/statement"
	"github.com/slipway-build/slipway/publisher/artifact"
	"github.com/slipway-build/slipway/publisher/disk"
)

// maxKey limits a file with a key, in bytes.
const maxKey = 64 << 10

// verifyFlags are the flags of slipway verify.
type verifyFlags struct{ key, lock, statement, keys string }

func newVerifyCommand() *cobra.Command {
	var f verifyFlags
	cmd := &cobra.Command{
		Use:   "verify [flags] DISK|oci://REGISTRY/REPOSITORY[:TAG][@DIGEST] [-- BUILD-FLAGS]",
		Short: "Verify what a disk was built from, and who signed it",
		Long: `With --lock, build a disk again from its YAML and lock, and compare the bytes. The YAML
is beside the lock: aws.yml for aws.lock.yml. What follows -- goes to slipway build.
For a disk that slipway sign signed, pass -- --build-arg SIGN=later: its signatures
are checked against the disk and left out of the comparison, so no key is needed.

With --key, verify that the owner of a key signed disks in a registry, with slipway
push --sign-key or cosign sign --key. Prints the reference with the digest that was
signed, for other commands.`,
		Example: `  slipway verify --lock aws.lock.yml out/aws.raw -- --size 1G
  slipway verify --lock aws.lock.yml --statement aws.intoto.json out/aws.raw
  slipway verify --key cosign.pub oci://registry.example.com/machines/aws:v1
  slipway run "$(slipway verify --key cosign.pub oci://registry.example.com/machines/aws:v1)"`,
	}
	flags := cmd.Flags()
	flags.StringVar(&f.key, "key", "", "`file` with the public key in PEM")
	flags.StringVar(&f.lock, "lock", "", "lock `file` of the machine, beside its YAML")
	flags.StringVar(&f.statement, "statement", "", "write an in-toto statement about the verified disk to `file`")
	flags.StringVar(&f.keys, "keys", "", keysUsage)
	cmd.MarkFlagsOneRequired("key", "lock")
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		dash := cmd.ArgsLenAtDash()
		switch {
		case dash < 0 && len(args) != 1, dash >= 0 && dash != 1:
			return cli.Usagef("requires one disk, or one reference: oci://REGISTRY/REPOSITORY:TAG")
		case f.key != "" && !artifact.IsReference(args[0]):
			return cli.Usagef("--key verifies disks in registries: oci://REGISTRY/REPOSITORY:TAG")
		case f.lock == "" && (dash >= 0 || f.statement != "" || f.keys != ""):
			return cli.Usagef("--statement, --keys and flags of slipway build need --lock")
		}
		return nil
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0], args[1:]) }
	return cmd
}

// keysUsage describes the flag for the keys of firmware in predictions.
const keysUsage = "`folder` of slipway keys new whose keys the firmware trusts, for the measurements (default: Secure Boot is off)"

func (f *verifyFlags) run(cmd *cobra.Command, name string, buildFlags []string) error {
	if f.key != "" {
		verified, err := f.verifySignature(cmd.Context(), name)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintln(cmd.OutOrStdout(), verified); err != nil {
			return err
		}
		name = verified.String()
	}
	if f.lock == "" {
		return nil
	}
	return f.verifyBuild(cmd, name, buildFlags)
}

// verifySignature returns the reference with the digest that the owner of the key
// signed.
func (f *verifyFlags) verifySignature(ctx context.Context, name string) (artifact.Reference, error) {
	ref, err := artifact.ParseReference(name)
	if err != nil {
		return ref, cli.Usagef("%w", err)
	}
	text, err := readLimited(f.key, maxKey)
	if err != nil {
		return ref, err
	}
	key, err := artifact.ParsePublicKey(text)
	if err != nil {
		return ref, fmt.Errorf("--key %s: %w", f.key, err)
	}
	return artifact.Verify(ctx, ref, key)
}

// A subject is the file of a disk to verify.
type subject struct {
	io.ReaderAt
	name, format, architecture string
	size                       int64 // bytes
	close                      func() error
}

// openSubject opens a file, or a disk in a registry.
func openSubject(ctx context.Context, name string) (*subject, error) {
	if artifact.IsReference(name) {
		ref, err := artifact.ParseReference(name)
		if err != nil {
			return nil, cli.Usagef("%w", err)
		}
		a, err := artifact.Open(ctx, ref, artifact.Choice{Preferred: artifact.Preference{Architecture: runtime.GOARCH, Format: "raw"}})
		if err != nil {
			return nil, err
		}
		return &subject{a, a.Name, a.Format, a.Architecture, a.Size, func() error { return nil }}, nil
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", name)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	s := &subject{file, filepath.Base(name), formatOf(name), "", info.Size(), file.Close}
	if i, err := image.OpenBoot(name, file, s.size); err == nil && i.Kernel != nil {
		s.architecture = i.Kernel.Architecture
	}
	return s, nil
}

// verifyBuild builds a disk again and compares the bytes.
func (f *verifyFlags) verifyBuild(cmd *cobra.Command, name string, buildFlags []string) error {
	yaml, err := machineOf(f.lock)
	if err != nil {
		return err
	}
	build, err := lockedBuild(f.lock, yaml)
	if err != nil {
		return err
	}
	build.Arguments = buildFlags
	s, err := openSubject(cmd.Context(), name)
	if err != nil {
		return err
	}
	defer s.close()
	dir, err := os.MkdirTemp("", "slipway-verify-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	rebuilt, err := s.rebuild(cmd, yaml, dir, buildFlags)
	if err != nil {
		return err
	}
	defer rebuilt.Close()
	signatures, err := s.copySignatures(rebuilt)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	sum, at, err := firstDifference(cmd.Context(), s, rebuilt)
	if err != nil {
		return err
	}
	if at >= 0 {
		if err := s.explain(cmd.OutOrStdout(), rebuilt, at); err != nil {
			return err
		}
		return fmt.Errorf("%s is not what %s and %s build", name, yaml, f.lock)
	}
	out := cmd.OutOrStdout()
	fmt.Fprintf(out, "%s is what %s and %s build: sha256:%x\n", name, yaml, f.lock, sum)
	for _, signature := range signatures {
		fmt.Fprintf(out, "signed by %q, which the build does not determine\n", signature.Certificate.Subject)
	}
	if f.statement == "" {
		return nil
	}
	trusted, err := trustedKeys(f.keys)
	if err != nil {
		return err
	}
	build.Measured = measured(s.name, s.architecture, s, s.size, trusted)
	content, err := statement.New([]statement.Subject{statement.NewSubject(s.name, sum)}, *build)
	if err != nil {
		return err
	}
	return writeTo(f.statement, out, func(w io.Writer) error {
		_, err := w.Write(content)
		return err
	})
}

// machineOf returns the machine YAML that a lock belongs to.
func machineOf(lock string) (string, error) {
	base, ok := strings.CutSuffix(lock, frontend.LockName(""))
	if !ok {
		return "", cli.Usagef("--lock %s: the name of a lock ends in %s", lock, frontend.LockName(""))
	}
	for _, extension := range []string{".yml", ".yaml"} {
		if fileExists(base + extension) {
			return base + extension, nil
		}
	}
	return "", fmt.Errorf("--lock %s: there is no machine YAML %s.yml beside it", lock, base)
}

// lockedBuild reads the lock, and the YAML if it is not "", for a statement.
func lockedBuild(lock, yaml string) (*statement.Build, error) {
	content, err := os.ReadFile(lock)
	if err != nil {
		return nil, err
	}
	b := &statement.Build{Lock: &statement.File{Name: filepath.Base(lock), Content: content}}
	if b.Images, err = frontend.ParseLock(lock, content); err != nil || yaml == "" {
		return b, err
	}
	if content, err = os.ReadFile(yaml); err != nil {
		return nil, err
	}
	b.YAML = &statement.File{Name: filepath.Base(yaml), Content: content}
	return b, nil
}

// rebuild builds the disk of a YAML into dir, with flags of slipway build, and opens
// it for writing.
func (s *subject) rebuild(cmd *cobra.Command, yaml, dir string, flags []string) (*os.File, error) {
	build := &cobra.Command{Use: "build"}
	build.SetContext(cmd.Context())
	build.SetErr(cmd.ErrOrStderr())
	f := newBuildFlags(build)
	if err := build.ParseFlags(flags); err != nil {
		return nil, cli.Usagef("flags of slipway build: %w", err)
	}
	folder := build.Flags().Args()
	if len(folder) > 1 || build.Flags().Changed("output") || build.Flags().Changed("tag") || f.file != "" {
		return nil, cli.Usagef("only flags of slipway build that change the disk, and the folder of the build context, can follow --")
	}
	f.Outputs = []string{dir}
	switch {
	case f.Target == "" && s.format == "":
		return nil, cli.Usagef("%s: the format is not known from the file name: add -- --format NAME", s.name)
	case f.Target == "":
		f.Target = s.format
	}
	if f.Platforms == nil && s.architecture != "" {
		f.Platforms = []string{"linux/" + s.architecture}
	}
	b, progress, err := f.connect(build, append([]string{yaml}, folder...))
	if err != nil {
		return nil, err
	}
	defer b.Close()
	files, err := client.Build(cmd.Context(), b, f.Options, progress)
	if err := f.explain(build, progress, err); err != nil {
		return nil, fmt.Errorf("build %s: %w", yaml, err)
	}
	var found []string
	for _, file := range files {
		if filepath.Ext(file.Path) == filepath.Ext(s.name) {
			found = append(found, file.Path)
		}
	}
	if len(found) != 1 {
		return nil, fmt.Errorf("build %s: it made %d files like %s instead of one", yaml, len(found), s.name)
	}
	return os.OpenFile(found[0], os.O_RDWR, 0)
}

// copySignatures copies the signatures of a raw disk or a unified kernel image to a
// rebuilt one that has room for them, and returns them. Signatures are not part of
// a program: they cover it.
func (s *subject) copySignatures(rebuilt *os.File) (all []uki.Signature, err error) {
	info, err := rebuilt.Stat()
	if err != nil || info.Size() != s.size {
		return nil, err
	}
	magic := make([]byte, 2)
	if _, err := rebuilt.ReadAt(magic, 0); err != nil {
		return nil, err
	}
	if string(magic) == "MZ" {
		return uki.CopySignatures(rebuilt, s, s.size)
	}
	if i, err := image.OpenBoot(rebuilt.Name(), rebuilt, s.size); err != nil || i.Kind != "raw disk" {
		return nil, nil // firstDifference compares it as it is
	}
	err = eachProgram(rebuilt, func(p programFile) error {
		esp, err := fat.Open(io.NewSectionReader(s, p.partition.Offset, p.partition.Size))
		if err != nil {
			return nil // it is another disk
		}
		program, err := esp.Content(p.path)
		if errors.Is(err, fs.ErrNotExist) || err == nil && program.Size() != p.Size() {
			return nil
		}
		if err != nil {
			return err
		}
		signatures, err := uki.CopySignatures(p, program, p.Size())
		all = append(all, signatures...)
		return err
	})
	return all, err
}

// firstDifference returns the SHA-256 of a subject, and the offset of the first byte
// that differs from another file, or -1.
func firstDifference(ctx context.Context, s *subject, other *os.File) (sum []byte, at int64, err error) {
	info, err := other.Stat()
	if err != nil {
		return nil, 0, err
	}
	h := sha256.New()
	p, q := make([]byte, disk.BlockSize), make([]byte, disk.BlockSize)
	for offset := int64(0); offset < s.size; offset += disk.BlockSize {
		if err := ctx.Err(); err != nil {
			return nil, 0, err
		}
		n := min(s.size-offset, disk.BlockSize)
		if err := readFull(s, p[:n], offset, h); err != nil {
			return nil, 0, fmt.Errorf("%s: %w", s.name, err)
		}
		m := max(0, min(info.Size()-offset, n))
		if err := readFull(other, q[:m], offset, io.Discard); err != nil {
			return nil, 0, err
		}
		if m < n || !bytes.Equal(p[:n], q[:n]) {
			for i := range n {
				if i >= m || p[i] != q[i] {
					return nil, offset + i, nil
				}
			}
		}
	}
	if info.Size() > s.size {
		return nil, s.size, nil
	}
	return h.Sum(nil), -1, nil
}

func readFull(r io.ReaderAt, p []byte, at int64, to io.Writer) error {
	if _, err := io.ReadFull(io.NewSectionReader(r, at, int64(len(p))), p); err != nil && len(p) > 0 {
		return err
	}
	_, err := to.Write(p)
	return err
}

// explain prints the first differences from a rebuilt disk.
func (s *subject) explain(w io.Writer, rebuilt *os.File, at int64) error {
	info, err := rebuilt.Stat()
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "--- %s\n+++ build\n", s.name)
	a, errA := image.OpenReader(s.name, s, s.size)
	b, errB := image.OpenReader("build", rebuilt, info.Size())
	if err := errors.Join(errA, errB); err != nil {
		fmt.Fprintf(w, "  %v\n", err)
	} else {
		defer a.Close()
		defer b.Close()
		d, err := report.Compare(a, b)
		if err != nil {
			return err
		}
		const files = 5
		if err := d.WriteFirst(w, files); err != nil {
			return err
		}
	}
	place := disk.New(s.name, s.size, nil, nil, s).Place(at).String()
	if place != "" {
		place = ": " + place
	}
	_, err = fmt.Fprintf(w, "  the first byte that differs is %d%s\n", at, place)
	return err
}
