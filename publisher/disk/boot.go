package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
)

// Architecture is a processor architecture, as EC2 calls it.
type Architecture string

// Architectures that can be told from a disk.
const (
	AMD64 Architecture = "x86_64"
	ARM64 Architecture = "arm64"
)

// Boot is how a disk can be booted.
type Boot struct {
	BIOS     bool           // boot code and something for it to load
	UEFI     []Architecture // architectures of EFI/BOOT/BOOT*.EFI on the ESP
	Warnings []string
}

// Mode returns EC2's boot mode for the architecture: "legacy-bios", "uefi" or
// "uefi-preferred", or "" if there is no way to boot.
func (b Boot) Mode(machine Architecture) string {
	uefi := false
	for _, m := range b.UEFI {
		uefi = uefi || m == machine
	}
	bios := b.BIOS && machine == AMD64
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

// Sizes and offsets of the UEFI Specification 2.10, chapter 5.
const (
	sector        = 512
	gptHeaderSize = 92
	maxEntries    = 1024
)

// Partition types: MBR, and GUIDs in the byte order of the disk.
const (
	typeProtective = 0xee
	typeESP        = 0xef
)

var (
	guidESP      = []byte{0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b}
	guidBIOSBoot = []byte("Hah!IdontNeedEFI")
)

// other formats that a disk may be in by mistake.
var formats = []struct {
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

// Boot looks at partition table, boot code and EFI system partition. The error
// says what makes the disk useless: it is none, or part of it is missing.
func (d *Disk) Boot() (Boot, error) {
	first := make([]byte, 2*sector)
	if n, err := d.ReadAt(first, 0); err != nil && err != io.EOF {
		return Boot{}, err
	} else if n < len(first) {
		return Boot{}, fmt.Errorf("%s is not a disk image: it has only %d bytes", d.Name, n)
	}
	for _, f := range formats {
		if bytes.HasPrefix(first, f.magic) {
			return Boot{}, fmt.Errorf("%s is %s, not a raw disk; unpack or convert it first, or build with --target raw", d.Name, f.what)
		}
	}
	if first[510] != 0x55 || first[511] != 0xaa {
		return Boot{}, fmt.Errorf("%s is not a disk image: it has no partition table; build one with --target raw", d.Name)
	}
	code := !isZero(first[:440])
	if bytes.Equal(first[sector:sector+8], []byte("EFI PART")) {
		return d.bootGPT(first[sector:], code)
	}
	return d.bootMBR(first[:sector], code)
}

type partition struct {
	first, end int64 // bytes
	esp        bool
	bios       bool // something for the boot code of the first sector
	other      bool // neither EFI system partition nor made for boot code alone
}

func (d *Disk) bootMBR(table []byte, code bool) (Boot, error) {
	var partitions []partition
	for i := range 4 {
		entry := table[446+16*i:][:16]
		first := int64(binary.LittleEndian.Uint32(entry[8:])) * sector
		size := int64(binary.LittleEndian.Uint32(entry[12:])) * sector
		if entry[4] == typeProtective {
			return Boot{}, fmt.Errorf("%s is not a whole disk: its GUID partition table is missing; build it again", d.Name)
		}
		if size > 0 {
			partitions = append(partitions, partition{first, first + size, entry[4] == typeESP, entry[0] == 0x80, entry[4] != typeESP})
		}
	}
	return d.boot(partitions, code)
}

func (d *Disk) bootGPT(header []byte, code bool) (Boot, error) {
	broken := func(what string) (Boot, error) {
		return Boot{}, fmt.Errorf("%s has a broken partition table: %s; build it again", d.Name, what)
	}
	size := binary.LittleEndian.Uint32(header[12:])
	if size < gptHeaderSize || size > sector {
		return broken("its header has a wrong size")
	}
	checked := bytes.Clone(header[:size])
	clear(checked[16:20]) // the checksum itself
	if crc32.ChecksumIEEE(checked) != binary.LittleEndian.Uint32(header[16:]) {
		return broken("its header has a wrong checksum")
	}
	backup := binary.LittleEndian.Uint64(header[32:])
	if backup >= uint64(d.Size/sector) {
		return Boot{}, fmt.Errorf("%s is truncated: it has %d bytes, and its partition table ends at %d; build or copy it again", d.Name, d.Size, (backup+1)*sector)
	}
	at := binary.LittleEndian.Uint64(header[72:])
	count, length := binary.LittleEndian.Uint32(header[80:]), binary.LittleEndian.Uint32(header[84:])
	if at >= uint64(d.Size/sector) || count > maxEntries || length < 128 || length > 4096 {
		return broken("it has impossible entries")
	}
	entries := make([]byte, count*length)
	if _, err := d.ReadAt(entries, int64(at)*sector); err != nil {
		return Boot{}, fmt.Errorf("%s: read the partition table: %w", d.Name, err)
	}
	if crc32.ChecksumIEEE(entries) != binary.LittleEndian.Uint32(header[88:]) {
		return broken("its entries have a wrong checksum")
	}
	var partitions []partition
	for i := range count {
		entry := entries[i*length:][:length]
		if isZero(entry[:16]) {
			continue
		}
		p := partition{
			first: int64(binary.LittleEndian.Uint64(entry[32:])) * sector,
			end:   int64(binary.LittleEndian.Uint64(entry[40:])+1) * sector,
			esp:   bytes.Equal(entry[:16], guidESP),
			// attribute 2 is "legacy BIOS bootable"
			bios: bytes.Equal(entry[:16], guidBIOSBoot) || entry[48]&4 != 0,
		}
		p.other = !p.esp && !bytes.Equal(entry[:16], guidBIOSBoot)
		if p.first < 0 || p.end > d.Size || p.end <= p.first {
			return broken(fmt.Sprintf("partition %d reaches behind the end of the disk", i+1))
		}
		partitions = append(partitions, p)
	}
	boot, err := d.boot(partitions, code)
	if err != nil {
		return boot, err
	}
	gibibytes := func(bytes int64) int64 { return (bytes + 1<<30 - 1) >> 30 }
	if used := int64(backup+1) * sector; gibibytes(used) < gibibytes(d.Size) {
		boot.Warnings = append(boot.Warnings, fmt.Sprintf("it has %d bytes, but its partition table ends at %d: a volume of %d GiB would be enough instead of %d; cut it there with truncate",
			d.Size, used, gibibytes(used), gibibytes(d.Size)))
	} else if whole := gibibytes(d.Size) << 30; whole != d.Size {
		boot.Warnings = append(boot.Warnings, fmt.Sprintf("the volume will have %d GiB, so the backup of the partition table is not at its end; it boots, and --build-arg SIZE=%dG puts it there", whole>>30, whole>>30))
	}
	return boot, nil
}

func (d *Disk) boot(partitions []partition, code bool) (Boot, error) {
	boot := Boot{Warnings: slices.Clone(d.warnings)}
	for _, p := range partitions {
		boot.BIOS = boot.BIOS || code && p.bios
		if !p.esp {
			continue
		}
		esp, err := openFAT(io.NewSectionReader(d, p.first, p.end-p.first))
		if err != nil {
			boot.Warnings = append(boot.Warnings, fmt.Sprintf("the EFI system partition cannot be read: %v", err))
			continue
		}
		machines, err := loaders(esp)
		if err != nil {
			boot.Warnings = append(boot.Warnings, fmt.Sprintf("the EFI system partition cannot be read: %v", err))
		}
		boot.UEFI = append(boot.UEFI, machines...)
		if !slices.ContainsFunc(partitions, func(p partition) bool { return p.other }) {
			boot.Warnings = append(boot.Warnings, missingDrivers(esp)...)
		}
	}
	return boot, nil
}

// Names that the firmware looks for (UEFI 2.10, 3.5.1.1), as FAT stores them in
// 8.3 form, and the machine that their PE header must have (PE format, 3.3).
var loaderNames = []struct {
	short   string
	machine Architecture
	pe      uint16
}{
	{"BOOTX64 EFI", AMD64, 0x8664},
	{"BOOTAA64EFI", ARM64, 0xaa64},
}

// loaders finds boot loaders on an EFI system partition.
func loaders(fs *fatReader) ([]Architecture, error) {
	dir, err := fs.lookup(fs.root, "EFI        ", true)
	if err == nil {
		dir, err = fs.lookup(dir, "BOOT       ", true)
	}
	if errors.Is(err, errNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var machines []Architecture
	for _, l := range loaderNames {
		file, err := fs.lookup(dir, l.short, false)
		if errors.Is(err, errNotFound) {
			continue
		}
		if err != nil {
			return machines, err
		}
		head := make([]byte, sector)
		if _, err := fs.r.ReadAt(head, fs.offset(file)); err != nil {
			return machines, err
		}
		if pe := binary.LittleEndian.Uint32(head[60:]); string(head[:2]) != "MZ" || pe > sector-6 ||
			string(head[pe:pe+4]) != "PE\x00\x00" || binary.LittleEndian.Uint16(head[pe+4:]) != l.pe {
			return machines, fmt.Errorf("%s.%s is not a program for %s", l.short[:8], l.short[8:], l.machine)
		}
		machines = append(machines, l.machine)
	}
	return machines, nil
}
