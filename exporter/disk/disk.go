// Package disk lays out bootable disks, CDs and unified kernel images.
//
// Layout of a disk for BIOS and UEFI, in sectors of 512 bytes:
//
//	0        protective MBR with GRUB's first sector (boot.img)
//	1–33     partition table (package gpt)
//	2048     partition 1, BIOS boot: the rest of GRUB (core.img)
//	4096     partition 2, EFI system partition, up to the last full 1 MiB:
//	         EFI/BOOT/BOOTX64.EFI, systemd-boot
//	         loader/loader.conf, loader/entries/slipway.conf, its configuration
//	         grub/grub.cfg, GRUB's configuration
//	         kernel, initrd.img, for both boot loaders
//	last 33  backup of the partition table
//
// Under BIOS, boot.img loads the first sector of core.img, which loads the rest.
// Both contain the sector number of what they load (GRUB 2.06,
// include/grub/i386/pc/boot.h and grub/offsets.h). Under UEFI, the firmware finds
// systemd-boot by its path (UEFI 2.10, section 3.5.1.1). systemd-boot reads entries
// in the format of UAPI.1 Boot Loader Specification.
//
// A disk for BIOS only has the same layout without systemd-boot and its
// configuration. A disk for UEFI only has no GRUB, and its EFI system partition
// starts at sector 2048. With a UKI, that partition contains EFI/BOOT/BOOTX64.EFI
// only, which is the UKI.
//
// A signed disk has a UKI in place of systemd-boot and its configuration. If it
// also boots under BIOS, it contains the kernel and the initramfs twice.
//
// The kernel and the segments of the initramfs are in slots at multiples of 512 KiB,
// with some room to grow. Two versions of a machine therefore differ only in the
// blocks of EBS with changed components, and in a few with tables and IDs.
package disk

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/slipway-build/slipway/exporter/fat"
	"github.com/slipway-build/slipway/exporter/gpt"
	"github.com/slipway-build/slipway/exporter/sparse"
	"github.com/slipway-build/slipway/exporter/uki"
	"github.com/slipway-build/slipway/internal/kernel"
)

const (
	mebibyte  = 1 << 20
	alignment = mebibyte / gpt.SectorSize // of partitions, in sectors

	biosFirst   = alignment
	biosSectors = alignment
)

// Files on the EFI system partition.
const (
	kernelPath = "kernel"
	initrdPath = "initrd.img"

	// SystemdBootEntry is the entry that systemd-boot starts.
	SystemdBootEntry = "loader/entries/slipway.conf"
)

// Contents are what a machine boots.
type Contents struct {
	Kernel  sparse.Content
	Initrd  []sparse.Content // in parts, as segment.Initrd returns them
	Cmdline string
	// Signer signs what UEFI starts, which is then a unified kernel image on any
	// disk: Secure Boot does not verify the entries and initramfs files of
	// systemd-boot. It is nil for a disk without signatures.
	Signer *uki.Signer
	// Reserve is how many bytes each place reserves, see [Contents.ReserveInitrd].
	Reserve int64
}

// Boot is the way in which a disk boots.
type BootMethod string

// Boot methods.
const (
	Hybrid BootMethod = "BIOS or UEFI" // with GRUB or systemd-boot
	BIOS   BootMethod = "BIOS"         // with GRUB
	UEFI   BootMethod = "UEFI"         // with systemd-boot
	UKI    BootMethod = "UKI"          // UEFI without a boot loader
)

// Loaders are the boot loaders for one architecture. loaders.sh collects them.
type Loaders struct {
	GRUBBoot    []byte // boot.img, one sector; GRUB is for amd64 only
	GRUBCore    []byte // core.img
	GRUBCD      []byte // eltorito.img, for CDs
	SystemdBoot []byte
	Stub        []byte // of UKIs

	// Program is the file name that UEFI firmware looks for in EFI/BOOT.
	Program string
}

// Offsets in GRUB's images in bytes.
const (
	bootKernelSector = 0x5c  // boot.img: first sector of core.img, 8 bytes
	coreFirstBlock   = 0x1f4 // core.img: sector of its second part, 8 bytes
	coreBlockLength  = 0x1fc // core.img: number of sectors from there, 2 bytes
)

// suffixes are the ends of program names for UEFI (UEFI 2.10, section 3.5.1.1), by
// architecture.
var suffixes = map[string]string{"amd64": "x64", "arm64": "aa64"}

func loaderName(suffix string) string { return "BOOT" + strings.ToUpper(suffix) + ".EFI" }

// Architectures are those with boot loaders, named as in GOARCH.
var Architectures = []string{"amd64", "arm64"}

// LoaderPath returns where UEFI firmware looks for a boot loader on a disk, for
// one of Architectures.
func LoaderPath(architecture string) string {
	return "EFI/BOOT/" + loaderName(suffixes[architecture])
}

// ReadLoaders reads the boot loaders for an architecture, named as in GOARCH, from
// the directory that loaders.sh creates. It fails if a file is missing or is not
// what its name says, and for an architecture without boot loaders.
func ReadLoaders(dir, architecture string) (Loaders, error) {
	suffix, ok := suffixes[architecture]
	if !ok {
		return Loaders{}, fmt.Errorf("there is no boot loader for %s: use kernel+initrd", architecture)
	}
	l := Loaders{Program: loaderName(suffix)}
	files := map[string]*[]byte{"systemd-boot" + suffix + ".efi": &l.SystemdBoot, "linux" + suffix + ".efi.stub": &l.Stub}
	if architecture == "amd64" {
		files["boot.img"], files["core.img"], files["eltorito.img"] = &l.GRUBBoot, &l.GRUBCore, &l.GRUBCD
	}
	for name, data := range files {
		var err error
		if *data, err = os.ReadFile(filepath.Join(dir, name)); err != nil {
			return Loaders{}, fmt.Errorf("boot loaders: %w", err)
		}
	}
	if architecture != "amd64" {
		return l, nil
	}
	if len(l.GRUBBoot) != gpt.SectorSize || !strings.HasSuffix(string(l.GRUBBoot), "\x55\xaa") {
		return Loaders{}, fmt.Errorf("boot loaders: boot.img in %s is not a boot sector of GRUB", dir)
	}
	if len(l.GRUBCore) <= gpt.SectorSize ||
		int64(binary.LittleEndian.Uint16(l.GRUBCore[coreBlockLength:])) != sectors(int64(len(l.GRUBCore)))-1 {
		return Loaders{}, fmt.Errorf("boot loaders: core.img in %s is not a core image of GRUB for BIOS", dir)
	}
	if len(l.GRUBCore) > biosSectors*gpt.SectorSize {
		return Loaders{}, fmt.Errorf("boot loaders: core.img in %s is larger than the BIOS boot partition", dir)
	}
	return l, nil
}

// A Disk is a disk or CD laid out for writing.
type Disk struct {
	sparse.Content
	// ID depends on the contents only.
	ID [sha256.Size]byte
	// BIOSCmdline is the kernel command line under BIOS, if the disk boots there.
	// It has the same parameters as Contents.Cmdline, but the quotes may be in
	// other places. Under UEFI the command line is exact. Boot loaders prepend one
	// more word.
	BIOSCmdline string
}

// New lays out a disk of size bytes, or of the smallest multiple of 1 MiB if size is
// 0. The time is that of all files. New reads the contents, because all IDs on the
// disk depend on them.
//
// It fails if the contents do not fit, and if the boot loader cannot pass on the
// command line or load the initramfs.
func New(boot BootMethod, c Contents, l Loaders, size int64, t time.Time) (Disk, error) {
	if size%gpt.SectorSize != 0 || size < 0 {
		return Disk{}, fmt.Errorf("the size of a disk must be a multiple of %d bytes, not %d", gpt.SectorSize, size)
	}
	b := builder{boot: boot, loaders: l, time: t, espFirst: alignment}
	if b.bios() {
		b.espFirst = biosFirst + biosSectors
	}
	cmdline, err := b.contents(c)
	if err != nil {
		return Disk{}, err
	}
	if err := b.fit(size); err != nil {
		return Disk{}, err
	}
	id, err := contentID(b.placed)
	if err != nil {
		return Disk{}, err
	}
	image, err := b.image(id)
	return Disk{Content: image, ID: id, BIOSCmdline: cmdline}, err
}

// builder lays out one disk.
type builder struct {
	boot     BootMethod
	loaders  Loaders
	time     time.Time
	espFirst int64 // sector
	// files returns the files of the EFI system partition.
	files func(Fit) ([]fat.File, error)

	// extras are partitions after the EFI system partition, in order.
	extras []extra

	placed  []fat.File // set by divide, as the next fields
	size    int64      // bytes
	espLast int64      // sector
	esp     *fat.Volume
}

// extra is a partition with its content.
type extra struct {
	partition gpt.Partition
	content   sparse.Content
}

func (b *builder) bios() bool { return b.boot == Hybrid || b.boot == BIOS }

// contents sets the files. It returns the command line under BIOS.
func (b *builder) contents(c Contents) (biosCmdline string, err error) {
	program := "EFI/BOOT/" + b.loaders.Program
	unified := func(fit Fit) (fat.File, error) {
		image, err := NewUKI(c, b.loaders.Stub, fit)
		// The slot is for the alignment only.
		return fat.File{Path: program, Parts: []fat.Part{{Content: image, Slot: image.Size}}}, err
	}
	signed := c.Signer != nil && b.boot != BIOS
	if b.boot == UKI || signed && b.boot == UEFI {
		if err := checkCmdline(c.Cmdline, ""); err != nil {
			return "", err
		}
		b.files = func(fit Fit) ([]fat.File, error) {
			image, err := unified(fit)
			return []fat.File{image}, err
		}
		return "", nil
	}
	var small []fat.File
	if !signed && (b.boot == Hybrid || b.boot == UEFI) {
		if err := checkCmdline(c.Cmdline, systemdBootPrefix); err != nil {
			return "", err
		}
		small = append(small,
			file(program, b.loaders.SystemdBoot),
			file("loader/loader.conf", []byte("timeout 0\ndefault slipway.conf\n")),
			file(SystemdBootEntry, systemdBootEntry(c.Cmdline, true, c.Reserve)))
	}
	if b.bios() {
		if err := checkCmdline(c.Cmdline, grubPrefix); err != nil {
			return "", err
		}
		if err := checkBIOS(c); err != nil {
			return "", err
		}
		words, err := grubWords(c.Cmdline)
		if err != nil {
			return "", err
		}
		small = append(small, file("grub/grub.cfg", grubConfig("", words, true, c.Reserve)))
		biosCmdline = grubResult(words)
	}
	b.files = func(fit Fit) ([]fat.File, error) {
		files := append(slices.Clone(small), fat.File{Path: kernelPath, Parts: fit.parts(c.Kernel)}, fat.File{Path: initrdPath, Parts: fit.parts(c.Initrd...)})
		if !signed {
			return files, nil
		}
		image, err := unified(fit)
		return append(files, image), err
	}
	return biosCmdline, nil
}

// checkBIOS returns an error if GRUB cannot load the initramfs below the highest
// address that the kernel allows, and above the kernel (Linux,
// Documentation/arch/x86/boot.rst; GRUB 2.06, grub-core/loader/i386/linux.c).
func checkBIOS(c Contents) error {
	h, err := kernel.ReadHeader(c.Kernel, c.Kernel.Size)
	if errors.Is(err, kernel.ErrFormat) {
		return nil
	}
	if err != nil {
		return err
	}
	if h.X86 == nil || h.X86.InitSize == 0 {
		return nil // the kernel does not say how much memory it needs
	}
	const reserved = 64 << 10 // by GRUB, below the limit
	kernelEnd := int64(h.X86.PrefAddress) + int64(h.X86.InitSize)
	limit := int64(h.X86.InitrdAddrMax) - reserved - kernelEnd
	if size := sparse.Concat(c.Initrd...).Size; size > limit {
		return fmt.Errorf("the initrd has %d bytes, but under BIOS Linux accepts at most %d: use a format for UEFI", size, limit)
	}
	return nil
}

// NewUKI returns a unified kernel image with systemd's stub, signed if c has a
// signer. It fails if the command line is not valid UTF-8 or too long, and where
// uki.New and uki.Sign do.
func NewUKI(c Contents, stub []byte, fit Fit) (sparse.Content, error) {
	if err := checkCmdline(c.Cmdline, ""); err != nil {
		return sparse.Content{}, err
	}
	// If the section were empty, the stub would use the command line from the
	// firmware.
	cmdline := cmp.Or(c.Cmdline, " ")
	release := "ID=slipway\nNAME=Slipway\nPRETTY_NAME=Slipway\n"
	if c.Reserve > 0 {
		area := cmdlineArea(c.Reserve)
		release += fmt.Sprintf("%s\"%s\"\n", ukiReserveMark, marks{len(c.Cmdline), area, c.Reserve})
		cmdline = c.Cmdline + strings.Repeat(" ", area)
	}
	sections := []uki.Section{
		{Name: ".osrel", Content: sparse.Bytes([]byte(release))},
		{Name: ".cmdline", Content: sparse.Bytes([]byte(cmdline))},
	}
	uname, err := kernel.Release(c.Kernel, c.Kernel.Size)
	if err != nil && !errors.Is(err, kernel.ErrFormat) {
		return sparse.Content{}, err
	}
	if uname != "" {
		sections = append(sections, uki.Section{Name: ".uname", Content: sparse.Bytes([]byte(uname))})
	}
	linux, initrd := uki.Section{Name: ".linux", Content: c.Kernel}, uki.Section{Name: ".initrd", Content: sparse.Concat(c.Initrd...)}
	if fit == Roomy {
		// The kernel skips the zeros between segments.
		linux.Align, initrd.Align = fat.SlotAlignment, fat.SlotAlignment
		var parts []sparse.Content
		for _, p := range c.Initrd {
			p.Size = slot(p.Size)
			parts = append(parts, p)
		}
		initrd.Content = sparse.Concat(parts...)
	}
	if last := len(initrd.Content.Runs) - 1; last >= 0 {
		initrd.Content.Size = sparse.RoundUp(initrd.Content.Runs[last].End(), 4)
	}
	image, err := uki.New(stub, append(sections, linux, initrd))
	if err != nil || c.Signer == nil {
		return image, err
	}
	return uki.Sign(image, c.Signer)
}

// A Fit is how close together the components of a disk are.
type Fit string

// With Roomy, each component has a slot in which it can grow. With Packed, it has as
// little room as possible.
const (
	Roomy  Fit = "roomy"
	Packed Fit = "packed"
)

// parts returns the parts of a file with these contents.
func (f Fit) parts(images ...sparse.Content) []fat.Part {
	var parts []fat.Part
	for n, i := range images {
		p := fat.Part{Content: i}
		if n < len(images)-1 {
			p.Content = i.Pad(fat.PartAlignment)
		}
		if f == Roomy {
			p.Slot = slot(i.Size)
		}
		parts = append(parts, p)
	}
	return parts
}

// slot returns the room for a component of a size, in bytes. It grows in steps of an
// eighth to a quarter of the size, and 4 MiB at most, so that two versions of a
// component mostly have the same slot.
func slot(size int64) int64 {
	step := int64(1) << bits.Len64(uint64(size)) / 8
	return sparse.RoundUp(size, min(max(fat.SlotAlignment, step), 4*mebibyte))
}

// fit chooses the size of the disk and divides it. If a disk of the given size is too
// small for slots, it packs the components.
func (b *builder) fit(size int64) error {
	best := Roomy
	if size > 0 {
		best = Packed
		for _, f := range []Fit{Roomy, Packed} {
			files, err := b.files(f)
			if err != nil {
				return err
			}
			if err := b.divide(size, files); !errors.Is(err, fat.ErrTooSmall) {
				return err
			}
		}
	}
	files, err := b.files(best)
	if err != nil {
		return err
	}
	smallest := b.espFirst * gpt.SectorSize
	for _, f := range files {
		smallest += f.Size() / mebibyte * mebibyte
	}
	for ; ; smallest += mebibyte {
		err := b.divide(smallest, files)
		switch {
		case errors.Is(err, fat.ErrTooSmall):
			continue
		case err != nil:
			return err
		case size == 0:
			return nil
		}
		return tooSmall(size, smallest, "kernel, initrd and boot loaders")
	}
}

func tooSmall(size, smallest int64, contents string) error {
	return fmt.Errorf("SIZE %s is too small by %s: %s need %s",
		inMebibytes(size), inMebibytes(smallest-size), contents, inMebibytes(smallest))
}

// inMebibytes returns a size as users write it, if it is a whole number of MiB.
func inMebibytes(size int64) string {
	if size%mebibyte != 0 {
		return fmt.Sprintf("%d bytes", size)
	}
	return fmt.Sprintf("%dM", size/mebibyte)
}

// divide sets the size of the disk and the places of the files.
func (b *builder) divide(size int64, files []fat.File) error {
	espEnd := (size/gpt.SectorSize - gpt.BackupSectors) / alignment * alignment
	espSectors := espEnd - b.espFirst
	if espSectors <= 0 {
		return fat.ErrTooSmall
	}
	if last := int64(fat.MaxSize / mebibyte); espSectors*gpt.SectorSize > fat.MaxSize {
		return fmt.Errorf("SIZE %s is too large: the file system, FAT32, supports at most %dM", inMebibytes(size), last)
	}
	esp, err := fat.New(espSectors*gpt.SectorSize, files, fat.Options{Label: "SLIPWAY", Time: b.time, Offset: uint32(b.espFirst)})
	if err != nil {
		return fmt.Errorf("EFI system partition: %w", err)
	}
	b.placed, b.size, b.espLast, b.esp = files, size, espEnd-1, esp
	return nil
}

func file(path string, content []byte) fat.File {
	return fat.File{Path: path, Parts: []fat.Part{{Content: sparse.Bytes(content)}}}
}

// image returns the content of the disk: boot loaders, partition table and files.
func (b *builder) image(id [sha256.Size]byte) (sparse.Content, error) {
	esp, err := b.esp.Image(binary.LittleEndian.Uint32(id[:]))
	if err != nil {
		return sparse.Content{}, err
	}
	table := gpt.Table{ID: gpt.Derive("disk", id[:]), Sectors: uint64(b.size / gpt.SectorSize)}
	var runs []sparse.Run
	start := int64(gpt.FirstUsable) // first free sector
	var free []sparse.Range
	between := func(from, to int64) {
		free = append(free, sparse.Range{Offset: from * gpt.SectorSize, Size: (to - from) * gpt.SectorSize})
	}
	if b.bios() {
		boot := bytes.Clone(b.loaders.GRUBBoot)
		binary.LittleEndian.PutUint64(boot[bootKernelSector:], biosFirst)
		table.BootCode = boot[:gpt.BootCodeSize]
		core := bytes.Clone(b.loaders.GRUBCore)
		binary.LittleEndian.PutUint64(core[coreFirstBlock:], biosFirst+1)
		runs = append(runs, sparse.Bytes(core).At(biosFirst*gpt.SectorSize)...)
		between(start, biosFirst)
		start = biosFirst + sectors(int64(len(core)))
		table.Partitions = append(table.Partitions, gpt.Partition{Type: gpt.TypeBIOSBoot, ID: gpt.Derive("BIOS boot", id[:]),
			First: biosFirst, Last: biosFirst + biosSectors - 1, Name: "BIOS boot"})
	}
	system := gpt.Partition{Type: gpt.TypeESP, ID: gpt.Derive("EFI system", id[:]), First: uint64(b.espFirst), Last: uint64(b.espLast), Name: "EFI system"}
	if b.boot == BIOS {
		system.Type, system.Name = gpt.TypeData, "boot"
	}
	table.Partitions = append(table.Partitions, system)
	between(start, b.espFirst)
	start = b.espLast + 1
	for _, e := range b.extras {
		table.Partitions = append(table.Partitions, e.partition)
		runs = append(runs, e.content.At(int64(e.partition.First)*gpt.SectorSize)...)
		between(start, int64(e.partition.First))
		start = int64(e.partition.Last) + 1
	}
	between(start, b.size/gpt.SectorSize-gpt.BackupSectors)
	tables, err := table.Encode()
	if err != nil {
		return sparse.Content{}, err
	}
	for _, f := range esp.Free {
		free = append(free, sparse.Range{Offset: b.espFirst*gpt.SectorSize + f.Offset, Size: f.Size})
	}
	return sparse.New(b.size, slices.Concat(runs, tables.Runs, esp.At(b.espFirst*gpt.SectorSize)), free)
}

// contentID returns the SHA-256 of the paths of files, and of the sizes and hashes of
// their parts.
func contentID(files []fat.File) ([sha256.Size]byte, error) {
	var parts []sparse.Content
	for _, f := range files {
		for _, p := range f.Parts {
			parts = append(parts, p.Content)
		}
	}
	sums, err := sparse.Hash(parts)
	if err != nil {
		return [sha256.Size]byte{}, err
	}
	var b bytes.Buffer
	for _, f := range files {
		fmt.Fprintf(&b, "%q\n", f.Path)
		for _, p := range f.Parts {
			fmt.Fprintf(&b, "%d %016x\n", p.Content.Size, sums[0])
			sums = sums[1:]
		}
	}
	return sha256.Sum256(b.Bytes()), nil
}

func sectors(size int64) int64 {
	return (size + gpt.SectorSize - 1) / gpt.SectorSize
}
