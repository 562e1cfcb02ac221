package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	exporterdisk "github.com/slipway-build/slipway/exporter/disk"
	"github.com/slipway-build/slipway/exporter/fat"
	"github.com/slipway-build/slipway/exporter/gpt"
	"github.com/slipway-build/slipway/exporter/mbr"
	"github.com/slipway-build/slipway/exporter/uki"
)

// Architecture is a processor architecture, with the name that EC2 has for it.
type Architecture string

// Architectures that Boot recognizes.
const (
	AMD64 Architecture = "x86_64"
	ARM64 Architecture = "arm64"
)

// Boot describes how a disk can be booted.
type Boot struct {
	BIOS     bool           // there are boot code and a partition for it to load
	UEFI     []Architecture // of EFI/BOOT/BOOT*.EFI on EFI system partitions
	Warnings []string
}

// Mode returns EC2's boot mode for the architecture: "legacy-bios", "uefi" or
// "uefi-preferred", or "" if the disk does not boot on it.
func (b Boot) Mode(architecture Architecture) string {
	uefi := slices.Contains(b.UEFI, architecture)
	bios := b.BIOS && architecture == AMD64
	switch {
	case uefi && bios:
		return "uefi-preferred"
	case uefi:
		return "uefi"
	case bios:
		return "legacy-bios"
	}
	return ""
}

// notRaw are the first bytes of other formats that users pass for a raw disk.
var notRaw = []struct {
	magic []byte
	what  string
}{
	{[]byte("QFI\xfb"), "a qcow2 image"},
	{[]byte("KDMV"), "a VMDK image"},
	{[]byte("# Disk DescriptorFile"), "a VMDK image"},
	{[]byte("conectix"), "a VHD image"},
	{[]byte("vhdxfile"), "a VHDX image"},
	{[]byte("\x1f\x8b"), "compressed by gzip"},
	{[]byte("\x28\xb5\x2f\xfd"), "compressed by zstd"},
	{[]byte("\xfd7zXZ"), "compressed by xz"},
}

// Boot reads the partition table, the boot code and the EFI system partitions.
// It returns an error if the file is not a raw disk or the disk is incomplete.
func (d *Disk) Boot() (Boot, error) {
	first := make([]byte, 2*mbr.Size)
	if n, err := d.ReadAt(first, 0); err != nil && err != io.EOF {
		return Boot{}, err
	} else if n < len(first) {
		return Boot{}, fmt.Errorf("%s is not a disk image: it has only %d bytes", d.Name, n)
	}
	for _, f := range notRaw {
		if bytes.HasPrefix(first, f.magic) {
			return Boot{}, fmt.Errorf("%s is %s, not a raw disk; unpack or convert it first, or build with --target raw", d.Name, f.what)
		}
	}
	table, err := exporterdisk.ReadPartitions(d)
	switch {
	case errors.Is(err, mbr.ErrFormat):
		return Boot{}, fmt.Errorf("%s is not a disk image: it has no partition table; build one with --target raw", d.Name)
	case errors.Is(err, gpt.ErrFormat):
		return Boot{}, fmt.Errorf("%s: %w; build it again", d.Name, err)
	case err != nil:
		return Boot{}, fmt.Errorf("%s: %w", d.Name, err)
	case table.GPT.Sectors > 0:
		return d.bootGPT(table)
	}
	return d.bootMBR(table)
}

func (d *Disk) bootMBR(table exporterdisk.PartitionTable) (Boot, error) {
	for _, p := range table.MBR.Partitions {
		if p.Type == mbr.TypeGPT {
			return Boot{}, fmt.Errorf("%s is not a whole disk: its GUID partition table is missing; build it again", d.Name)
		}
	}
	return d.boot(table)
}

func (d *Disk) bootGPT(table exporterdisk.PartitionTable) (Boot, error) {
	used := int64(table.GPT.Sectors) * gpt.SectorSize
	if used > d.Size {
		return Boot{}, fmt.Errorf("%s is truncated: it has %d bytes, and its partition table ends at %d; build or copy it again", d.Name, d.Size, used)
	}
	boot, err := d.boot(table)
	if err != nil {
		return Boot{}, err
	}
	gibibytes := func(bytes int64) int64 { return (bytes + 1<<30 - 1) >> 30 }
	if gibibytes(used) < gibibytes(d.Size) {
		boot.Warnings = append(boot.Warnings, fmt.Sprintf("it has %d bytes, but its partition table ends at %d: a volume of %d GiB would be enough instead of %d; cut it there with truncate",
			d.Size, used, gibibytes(used), gibibytes(d.Size)))
	} else if whole := gibibytes(d.Size) << 30; whole != d.Size {
		boot.Warnings = append(boot.Warnings, fmt.Sprintf("the volume will have %d GiB, so the backup of the partition table is not at its end; it boots, and --build-arg SIZE=%dG puts it there", whole>>30, whole>>30))
	}
	return boot, nil
}

func (d *Disk) boot(table exporterdisk.PartitionTable) (Boot, error) {
	boot := Boot{Warnings: slices.Clone(d.warnings)}
	boot.BIOS = !isZero(table.MBR.BootCode) && slices.ContainsFunc(table.Partitions, func(p exporterdisk.Partition) bool { return p.Legacy })
	mismatch := ""
	for _, p := range table.Partitions {
		if !p.ESP {
			continue
		}
		unreadable := func(err error) {
			boot.Warnings = append(boot.Warnings, fmt.Sprintf("the EFI system partition cannot be read: %v", err))
		}
		esp, err := fat.Open(io.NewSectionReader(d, p.Start, p.Size))
		if err != nil {
			unreadable(err)
			continue
		}
		found, err := loaders(esp)
		if err != nil {
			unreadable(err)
		}
		for _, m := range mismatches(esp, found, boot.BIOS) {
			mismatch = m.String()
			boot.Warnings = append(boot.Warnings, mismatch)
			if m.loader == grub {
				boot.BIOS = false
			} else {
				found = slices.DeleteFunc(found, func(a Architecture) bool { return a == m.architecture })
			}
		}
		boot.UEFI = append(boot.UEFI, found...)
		if !slices.ContainsFunc(table.Partitions, other) {
			boot.Warnings = append(boot.Warnings, missingDrivers(esp)...)
		}
	}
	if mismatch != "" && !boot.BIOS && len(boot.UEFI) == 0 {
		return Boot{}, fmt.Errorf("%s cannot boot: %s; build it again, with all images for one platform", d.Name, mismatch)
	}
	return boot, nil
}

// loaders returns the architectures for which an EFI system partition has a boot
// loader.
func loaders(esp *fat.FS) ([]Architecture, error) {
	var found []Architecture
	for _, architecture := range exporterdisk.Architectures {
		path := exporterdisk.LoaderPath(architecture)
		program, err := readProgram(esp, path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return found, err
		}
		if program.Architecture != architecture {
			return found, fmt.Errorf("%s is not a program for %s", path, architectures[architecture])
		}
		found = append(found, architectures[architecture])
	}
	return found, nil
}

func readProgram(esp *fat.FS, path string) (uki.Program, error) {
	content, err := esp.Content(path)
	if err != nil {
		return uki.Program{}, err
	}
	program, err := uki.Read(content, content.Size())
	if err != nil {
		return uki.Program{}, fmt.Errorf("%s: %w", path, err)
	}
	return program, nil
}
