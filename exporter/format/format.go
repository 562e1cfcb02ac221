// Package format holds the table of output formats and writes them.
//
// Each format is declared in one file, next to the code that writes it, and
// adds itself to the table with register. Nothing else lists formats: targets of
// the frontend, the build graph, slipway-exporter, the documentation and the
// tests read the table with [All] and [Lookup]. To add a format, add a file.
//
// Programs that only read the table, such as the frontend, do not contain the
// writers. A format refers to its writer by an interface with an unexported
// method that only [Write] calls, so the linker drops the writers of programs
// that never call Write.
package format

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/slipway-build/slipway/exporter/segment"
)

// Version is the version of the output of all formats. It changes when any
// format encodes the same machine differently than before.
const Version = 3

// Default is the name of the format that a build writes if the user names none.
const Default = "kernel+initrd"

// Format is one kind of output.
type Format struct {
	Name        string // as in --target
	Description string // one line

	// Suffixes are the names of the output files without the prefix that the
	// user chooses. A format may omit files that would be empty.
	Suffixes []string

	// Segments is the form of the segments that the format is made of:
	// segment.CPIO for an initramfs, segment.Tar for other root filesystems.
	Segments segment.Archive

	// Firmware is what the format boots under. Such a format needs a kernel and
	// boot loaders. It is 0 for formats that something else boots.
	Firmware Firmware

	// Options are the user's choices that apply to the format.
	Options Option

	// Container reports whether the output is a container image. The only
	// output file is a tar archive with the files of the image.
	Container bool

	writer writer
}

// Firmware is a set of kinds of firmware.
type Firmware uint8

// The kinds of firmware.
const (
	BIOS Firmware = 1 << iota
	UEFI
)

// firmware is what machines of an architecture have.
var firmware = map[string]Firmware{"amd64": BIOS | UEFI, "arm64": UEFI}

// Option is a set of choices that users have.
type Option uint8

// The choices.
const (
	Size        Option = 1 << iota // of the disk
	Map                            // write a map of the disk, see package diskmap
	Compression                    // of the root filesystem; that of segments is always the user's choice
	Reserve                        // leave room for additions after the build, see disk.Reserved
	PCRs                           // write what a TPM measures, see package measure
	Enclave                        // role and instance of the parent of an enclave
)

// Has reports whether o contains all of others.
func (o Option) Has(others Option) bool { return o&others == others }

// Has reports whether f contains all of others.
func (f Firmware) Has(others Firmware) bool { return f&others == others }

// Files returns the names of the output files for a prefix.
func (f Format) Files(prefix string) []string {
	var names []string
	for _, suffix := range f.Suffixes {
		names = append(names, prefix+suffix)
	}
	return names
}

// FirmwareOn returns the firmware that the format boots under on machines of an
// architecture (a GOARCH).
func (f Format) FirmwareOn(architecture string) Firmware {
	return f.Firmware & firmware[architecture]
}

// Check returns an error if the format does not exist for machines of an
// architecture (a GOARCH).
func (f Format) Check(architecture string) error {
	switch {
	case f.Firmware == 0 || f.FirmwareOn(architecture) != 0:
		return nil
	case f.Firmware == BIOS:
		return fmt.Errorf("%s needs a BIOS, which %s machines do not have: use a format for UEFI, for example raw or raw-efi", f.Name, architecture)
	}
	return fmt.Errorf("%s needs a boot loader, and there is none for %s: use kernel+initrd", f.Name, architecture)
}

// CheckSign returns an error if the format has nothing that the firmware of
// machines of an architecture (a GOARCH) verifies, and is no enclave image.
func (f Format) CheckSign(architecture string) error {
	if f.FirmwareOn(architecture).Has(UEFI) || f.Options.Has(Enclave) {
		return nil
	}
	return fmt.Errorf("%s cannot be signed: only UEFI and enclaves verify signatures: use a format for UEFI, for example raw-efi", f.Name)
}

// table has all formats in the order of registration.
var table []Format

// register adds formats to the table. Only init functions of this package call
// it, so the table is constant as soon as a program can see it.
func register(formats ...Format) {
	table = append(table, formats...)
}

// All returns all formats: the default, then the others by name.
func All() []Format {
	return slices.SortedFunc(slices.Values(table), func(a, b Format) int {
		if (a.Name == Default) != (b.Name == Default) {
			if a.Name == Default {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.Name, b.Name)
	})
}

// Names returns the names of all formats in the order of [All].
func Names() []string {
	var names []string
	for _, f := range All() {
		names = append(names, f.Name)
	}
	return names
}

// Lookup returns the format with a name.
func Lookup(name string) (Format, bool) {
	for _, f := range table {
		if f.Name == name {
			return f, true
		}
	}
	return Format{}, false
}
