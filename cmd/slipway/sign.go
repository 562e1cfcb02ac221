package main

import (
	"bytes"
	"crypto"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"

	"github.com/slipway-build/slipway/cmd/internal/cli"
	"github.com/slipway-build/slipway/exporter/disk"
	"github.com/slipway-build/slipway/exporter/fat"
	"github.com/slipway-build/slipway/exporter/gpt"
	"github.com/slipway-build/slipway/exporter/sparse"
	"github.com/slipway-build/slipway/exporter/uki"
)

// signFlags are the flags of slipway sign.
type signFlags struct{ key, cert, command, kms string }

func newSignCommand() *cobra.Command {
	var f signFlags
	cmd := &cobra.Command{
		Use:   "sign [flags] DISK|UKI",
		Short: "Sign a disk for Secure Boot in place",
		Long: `Sign the unified kernel image on a raw disk, or in a file, in place. The build must
have reserved room for the signature: --build-arg SIGN=later. The signature replaces
those that the program has.

The key is in a file, in AWS KMS (--kms, which runs the AWS CLI), or wherever a
command finds it: --command gets the message to sign on standard input and prints
its signature, RSASSA-PKCS1-v1_5 with SHA-256.`,
		Example: `  slipway sign --key keys/db.key --cert keys/db.crt out/aws-efi.img
  slipway sign --kms arn:aws:kms:us-east-1:123456789012:key/… --cert db.crt out/aws-efi.img
  slipway sign --cert db.crt out/aws-efi.img --command \
    "pkcs11-tool --sign --mechanism SHA256-RSA-PKCS --label db"`,
		Args: cobra.ExactArgs(1),
	}
	flags := cmd.Flags()
	flags.StringVar(&f.cert, "cert", "", "`file` with the certificate of the key")
	flags.StringVar(&f.key, "key", "", "`file` with the private key in PEM")
	flags.StringVar(&f.kms, "kms", "", "`ARN` of a key in AWS KMS for signatures by RSA")
	flags.StringVar(&f.command, "command", "", "shell `command` that signs")
	cmd.MarkFlagsOneRequired("key", "kms", "command")
	cmd.MarkFlagsMutuallyExclusive("key", "kms", "command")
	if err := cmd.MarkFlagRequired("cert"); err != nil {
		panic(err) // the flag does not exist
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		signer, err := f.signer(cmd)
		if err != nil {
			return err
		}
		return signFile(args[0], signer)
	}
	return cmd
}

func (f *signFlags) signer(cmd *cobra.Command) (*uki.Signer, error) {
	certificate, err := os.ReadFile(f.cert)
	if err != nil {
		return nil, err
	}
	if f.key != "" {
		key, err := os.ReadFile(f.key)
		if err != nil {
			return nil, err
		}
		return uki.ParseSigner(key, certificate)
	}
	c, err := uki.ParseCertificate(certificate)
	if err != nil {
		return nil, err
	}
	s := &commandSigner{cmd: cmd, public: c.PublicKey, args: []string{"sh", "-c", f.command}}
	if f.kms != "" {
		s.args = []string{"aws", "kms", "sign", "--key-id", f.kms, "--message", "fileb:///dev/stdin", "--message-type", "RAW",
			"--signing-algorithm", "RSASSA_PKCS1_V1_5_SHA_256", "--query", "Signature", "--output", "text"}
		s.base64 = true
	}
	return uki.NewSigner(c, s)
}

// A commandSigner signs by a command that reads the message from standard input
// and writes the signature to standard output. It implements crypto.MessageSigner.
type commandSigner struct {
	cmd    *cobra.Command
	public crypto.PublicKey
	args   []string
	base64 bool // the command encodes the signature
}

// Public implements crypto.Signer.
func (s *commandSigner) Public() crypto.PublicKey { return s.public }

// Sign implements crypto.Signer. It fails, because devices sign messages.
func (s *commandSigner) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.ErrUnsupported
}

// SignMessage implements crypto.MessageSigner.
func (s *commandSigner) SignMessage(_ io.Reader, message []byte, _ crypto.SignerOpts) ([]byte, error) {
	c := exec.CommandContext(s.cmd.Context(), s.args[0], s.args[1:]...)
	c.Stdin, c.Stderr = bytes.NewReader(message), s.cmd.ErrOrStderr()
	out, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.args[0], err)
	}
	if s.base64 {
		return base64.StdEncoding.DecodeString(strings.TrimSpace(string(out)))
	}
	return out, nil
}

// signFile signs a disk or a unified kernel image, and updates the map of the disk
// if there is one.
func signFile(name string, s *uki.Signer) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	magic := make([]byte, 2)
	if _, err := f.ReadAt(magic, 0); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if string(magic) == "MZ" {
		err = uki.SignFile(f, info.Size(), s)
	} else {
		err = signDisk(f, s)
	}
	if errors.Is(err, uki.ErrNoRoom) {
		err = fmt.Errorf("%w: build with --build-arg SIGN=later", err)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return updateMap(name+".map", f, info.Size(), []disk.Area{{Size: info.Size()}})
}

// programPaths are what UEFI firmware starts from a disk (UEFI 2.10, section
// 3.5.1.1).
var programPaths = []string{"EFI/BOOT/BOOTX64.EFI", "EFI/BOOT/BOOTAA64.EFI"}

func signDisk(f *os.File, s *uki.Signer) error {
	signed := false
	err := eachProgram(f, func(program programFile) error {
		signed = true
		return uki.SignFile(program, program.Size(), s)
	})
	if err == nil && !signed {
		err = cli.Usagef("no EFI system partition has a program to sign")
	}
	return err
}

// eachProgram calls do with the programs that UEFI firmware starts from a raw disk.
func eachProgram(f *os.File, do func(programFile) error) error {
	table, err := gpt.Read(f)
	if err != nil {
		return fmt.Errorf("it is neither a raw disk nor a unified kernel image: %w", err)
	}
	for _, p := range table.Partitions {
		if p.Type != gpt.TypeESP {
			continue
		}
		partition := sparse.Range{Offset: int64(p.First) * gpt.SectorSize, Size: int64(p.Last-p.First+1) * gpt.SectorSize}
		esp, err := fat.Open(io.NewSectionReader(f, partition.Offset, partition.Size))
		if err != nil {
			return err
		}
		for _, path := range programPaths {
			content, err := esp.Content(path)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return err
			}
			if err := do(programFile{content, esp, io.NewOffsetWriter(f, partition.Offset), path, partition}); err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
		}
	}
	return nil
}

// programFile is a program in an EFI system partition.
type programFile struct {
	*io.SectionReader
	esp       *fat.FS
	volume    io.WriterAt
	path      string
	partition sparse.Range // of the disk
}

// WriteAt implements io.WriterAt.
func (p programFile) WriteAt(b []byte, offset int64) (int, error) {
	if err := p.esp.Overwrite(p.volume, p.path, b, offset); err != nil {
		return 0, err
	}
	return len(b), nil
}
