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
	"github.com/slipway-build/slipway/internal/pemfile"
)

// signFlags are the flags of slipway sign.
type signFlags struct{ key, cert, command, kms, pkcs11 string }

func newSignCommand() *cobra.Command {
	var f signFlags
	cmd := &cobra.Command{
		Use:   "sign [flags] DISK|UKI",
		Short: "Sign a disk for Secure Boot in place",
		Long: `Sign the unified kernel image on a raw disk, or in a file, in place. The build must
have reserved room for the signature: --build-arg SIGN=later. The signature replaces
those that the program has.

The key is in a file, in AWS KMS (--kms, which runs the AWS CLI), in an HSM or a
token (--pkcs11, which runs OpenSC's pkcs11-tool), or wherever a command finds it:
--command gets the message to sign on standard input and prints its signature,
RSASSA-PKCS1-v1_5 with SHA-256.

The PIN of a token is in the file that pin-source in the URI names, or in the
environment variable ` + pinVariable + `.`,
		Example: `  slipway sign --key keys/db.key --cert keys/db.crt out/aws-efi.img
  slipway sign --kms arn:aws:kms:us-east-1:123456789012:key/… --cert db.crt out/aws-efi.img
  slipway sign --pkcs11 "pkcs11:token=boot;object=db?module-path=/usr/lib/libhsm.so" \
    --cert db.crt out/aws-efi.img
  slipway sign --cert db.crt out/aws-efi.img --command \
    "ssh signer openssl dgst -sha256 -sign db.key"`,
		Args: cobra.ExactArgs(1),
	}
	flags := cmd.Flags()
	flags.StringVar(&f.cert, "cert", "", "`file` with the certificate of the key")
	flags.StringVar(&f.key, "key", "", "`file` with the private key in PEM")
	flags.StringVar(&f.kms, "kms", "", "`ARN` of a key in AWS KMS for signatures by RSA")
	flags.StringVar(&f.pkcs11, "pkcs11", "", "`URI` of a key in an HSM or a token (RFC 7512)")
	flags.StringVar(&f.command, "command", "", "shell `command` that signs")
	cmd.MarkFlagsOneRequired("key", "kms", "pkcs11", "command")
	cmd.MarkFlagsMutuallyExclusive("key", "kms", "pkcs11", "command")
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
	c, err := pemfile.Certificate(certificate)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	s := &messageSigner{public: c.PublicKey}
	switch {
	case f.pkcs11 != "":
		key, err := parsePKCS11(f.pkcs11)
		if err != nil {
			return nil, err
		}
		s.sign = func(message []byte) ([]byte, error) { return key.sign(cmd.Context(), message) }
	case f.kms != "":
		s.sign = func(message []byte) ([]byte, error) {
			out, err := runSigner(cmd, message, "aws", "kms", "sign", "--key-id", f.kms, "--message", "fileb:///dev/stdin", "--message-type", "RAW",
				"--signing-algorithm", "RSASSA_PKCS1_V1_5_SHA_256", "--query", "Signature", "--output", "text")
			if err != nil {
				return nil, err
			}
			return base64.StdEncoding.DecodeString(strings.TrimSpace(string(out)))
		}
	default:
		s.sign = func(message []byte) ([]byte, error) { return runSigner(cmd, message, "sh", "-c", f.command) }
	}
	return uki.NewSigner(c, s)
}

// runSigner runs a command that reads the message from standard input and writes
// the signature to standard output.
func runSigner(cmd *cobra.Command, message []byte, name string, args ...string) ([]byte, error) {
	c := exec.CommandContext(cmd.Context(), name, args...)
	c.Stdin, c.Stderr = bytes.NewReader(message), cmd.ErrOrStderr()
	out, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return out, nil
}

// A messageSigner is a key outside of this program. It implements
// crypto.MessageSigner.
type messageSigner struct {
	public crypto.PublicKey
	sign   func(message []byte) ([]byte, error)
}

// Public implements crypto.Signer.
func (s *messageSigner) Public() crypto.PublicKey { return s.public }

// Sign implements crypto.Signer. It fails, because devices sign messages.
func (s *messageSigner) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.ErrUnsupported
}

// SignMessage implements crypto.MessageSigner.
func (s *messageSigner) SignMessage(_ io.Reader, message []byte, _ crypto.SignerOpts) ([]byte, error) {
	return s.sign(message)
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
