// Command slipway-exporter writes output formats. It runs inside the build, in an
// empty root filesystem.
//
// Usage:
//
//	slipway-exporter write [flags] --format FORMAT --name NAME --out DIR SEGMENT…
//
// A SEGMENT is an output directory of slipway-packer, or NAME=DIR to call it NAME
// in messages. The first holds the directories of the machine. Later segments
// overwrite files of earlier ones. Formats that contain an initramfs require cpio
// archives; formats that contain files, for example tar, require tar archives.
//
// The program ignores the environment. The build passes SOURCE_DATE_EPOCH as
// --epoch.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"github.com/slipway-build/slipway/cmd/internal/command"
	"github.com/slipway-build/slipway/exporter"
	"github.com/slipway-build/slipway/exporter/efivars"
	"github.com/slipway-build/slipway/exporter/eif"
	"github.com/slipway-build/slipway/exporter/format"
	"github.com/slipway-build/slipway/exporter/measure"
	"github.com/slipway-build/slipway/exporter/segment"
	"github.com/slipway-build/slipway/exporter/uki"
)

func main() {
	// Writers stream, so frequent garbage collection costs little and halves the
	// resident memory.
	debug.SetGCPercent(40)
	command.Main(program, []command.Command{
		{Name: "write", Run: write},
	})
}

const program = "slipway-exporter"

func write(args []string, report io.Writer) error {
	flags := command.NewFlags("write")
	var in format.Input
	name := flags.String("format", "", "output `format`: "+strings.Join(format.Names(), ", "))
	flags.StringVar(&in.Name, "name", "", "`prefix` of the output files")
	flags.StringVar(&in.Kernel, "kernel", "", "kernel `file`; empty for none")
	flags.StringVar(&in.Ucode, "ucode", "", "microcode `file`, if it exists; empty for none")
	cmdline := flags.String("cmdline", "", "`file` with the kernel command line; empty for none")
	starts := flags.String("starts", "", "JSON `file` with what containers need to start; empty for none")
	flags.StringVar(&in.Architecture, "arch", "amd64", "architecture of the machine")
	flags.Int64Var(&in.Size, "size", 0, "size of a disk in `bytes`; 0 for the smallest")
	flags.BoolVar(&in.Map, "map", false, "also write the map of a disk")
	flags.Int64Var(&in.Reserve, "reserve", 0, "`bytes` to leave for additions after the build")
	flags.StringVar(&in.Loaders, "loaders", "", "`directory` with the boot loaders, for disks")
	flags.StringVar(&in.Role, "role", "", "`ARN` of the role of the instance that an enclave runs on; empty if unknown")
	flags.StringVar(&in.Instance, "instance", "", "`ID` of that instance; empty if unknown")
	key := flags.String("sign-key", "", "`file` with the private key that signs for Secure Boot or an enclave image, in PEM; empty for no signatures")
	later := flags.Bool("sign-later", false, "reserve room for a signature for Secure Boot")
	flags.BoolVar(&in.PCRs, "pcrs", false, "also write the registers of a TPM after a boot")
	uefiData := flags.String("uefi-data", "", "`file` with the keys of the firmware for --pcrs, as EC2's UefiData, if it exists; empty for firmware without Secure Boot")
	certificate := flags.String("sign-cert", "", "`file` with the certificate of the key, in PEM")
	compression := flags.String("compression", "zstd", "compression of formats that compress: zstd[:1-22], gzip[:1-9] or none")
	epoch := flags.Int64("epoch", exporter.Epoch, "time in formats that store one, in `seconds` since 1970")
	out := flags.String("out", "", "`directory` for the output files")
	flags.Positional = true
	if err := flags.Parse(args, "format", "name", "out"); err != nil {
		return err
	}
	in.Segments = segments(flags)
	var err error
	if in.Compression, err = segment.ParseCompression(*compression); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	in.Time = time.Unix(*epoch, 0)
	if *cmdline != "" {
		text, err := os.ReadFile(*cmdline)
		if err != nil {
			return fmt.Errorf("kernel command line: %w", err)
		}
		in.Cmdline = string(text)
	}
	if *key != "" {
		if err := readSigner(&in, *name, *key, *certificate); err != nil {
			return err
		}
	}
	if *uefiData != "" {
		if in.Keys, err = readKeys(*uefiData); err != nil {
			return err
		}
	}
	if *starts != "" {
		text, err := os.ReadFile(*starts)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(text, &in.Starts); err != nil {
			return fmt.Errorf("%s: %w", *starts, err)
		}
	}
	if *later {
		in.Signer = new(uki.Signer)
	}
	files, err := format.Write(*name, in, *out, warn)
	if err != nil {
		return err
	}
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil {
			return err
		}
		fmt.Fprintf(report, "%12d %s\n", info.Size(), filepath.Base(file))
	}
	return nil
}

// readSigner reads the signer for a format.
func readSigner(in *format.Input, name, key, certificate string) error {
	k, err := os.ReadFile(key)
	if err != nil {
		return fmt.Errorf("signing key: %w", err)
	}
	c, err := os.ReadFile(certificate)
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	if f, _ := format.Lookup(name); f.Options.Has(format.Enclave) {
		in.EnclaveSigner, err = eif.ParseSigner(k, c)
	} else {
		in.Signer, err = uki.ParseSigner(k, c)
	}
	return err
}

// readKeys reads the keys of the firmware. It returns nil if the file does not exist.
func readKeys(name string) (*measure.Keys, error) {
	text, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("keys of the firmware: %w", err)
	}
	variables, err := efivars.DecodeAWS(string(text))
	if err != nil {
		return nil, fmt.Errorf("keys of the firmware: %w", err)
	}
	return measure.KeysOf(variables), nil
}

// segments parses the arguments after the flags.
func segments(flags *command.Flags) []segment.Dir {
	var dirs []segment.Dir
	for _, arg := range flags.Args() {
		dirs = append(dirs, segment.ParseDir(arg))
	}
	return dirs
}

func warn(message string) {
	fmt.Fprintln(os.Stderr, program+": warning:", message)
}
