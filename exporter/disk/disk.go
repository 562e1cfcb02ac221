// Package disk lays out disks that boot.
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
//	         kernel, initrd.img, which both loaders read
//	last 33  backup of the partition table
//
// Under BIOS, boot.img loads the first sector of core.img, which loads the
// rest; each knows its successor by a sector number (GRUB 2.06,
// include/grub/i386/pc/boot.h and grub/offsets.h). Under UEFI, the firmware
// finds systemd-boot by its name (UEFI 2.10, 3.5.1.1), which reads its entries
// as the Boot Loader Specification of the UAPI group describes.
//
// A disk for BIOS alone has the same without systemd-boot and its
// configuration. A disk for UEFI alone has no GRUB, and the EFI system partition
// from sector 2048 on; with a UKI, that holds nothing but EFI/BOOT/BOOTX64.EFI,
// the UKI itself.
//
// Kernel and segments of the initrd stand in slots at multiples of 512 KiB, with
// some room to grow: between two versions of a machine, only those blocks of EBS
// differ whose component has changed, and a few that hold tables and ids.
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
)

// Contents are what a machine boots.
type Contents struct {
	Kernel  sparse.Content
	Initrd  []sparse.Content // in parts, as segment.Initrd gives them
	Cmdline string
}

// Boot is the way in which a disk boots.
type BootMethod string

// Ways to boot.
const (
	Hybrid BootMethod = "BIOS or UEFI" // by GRUB or systemd-boot
	BIOS   BootMethod = "BIOS"         // by GRUB
	UEFI   BootMethod = "UEFI"         // by systemd-boot
	UKI    BootMethod = "UKI"          // by UEFI, without a boot loader
)

// Loaders are the boot loaders for one architecture, as loaders.sh collects
// them.
type Loaders struct {
	GRUBBoot    []byte // one sector; only for amd64, as the next
	GRUBCore    []byte
	GRUBCD      []byte // for CDs
	SystemdBoot []byte
	Stub        []byte // of UKIs

	// Program is the name under which UEFI looks for what it starts.
	Program string
}

// Where the loaders' images hold what is read or patched here, in bytes.
const (
	bootKernelSector = 0x5c  // boot.img: first sector of core.img, 8 bytes
	coreFirstBlock   = 0x1f4 // core.img: sector of its second part, 8 bytes,
	coreBlockLength  = 0x1fc // and the number of sectors, 2 bytes
)

// suffixes of programs for UEFI (UEFI 2.10, 3.5.1.1), by architecture.
var suffixes = map[string]string{"amd64": "x64", "arm64": "aa64"}

// ReadLoaders reads those for an architecture, as GOARCH spells it, from the
// directory that loaders.sh makes.
func ReadLoaders(dir, architecture string) (Loaders, error) {
	suffix, ok := suffixes[architecture]
	if !ok {
		return Loaders{}, fmt.Errorf("there is no boot loader for %s: use kernel+initrd", architecture)
	}
	l := Loaders{Program: "BOOT" + strings.ToUpper(suffix) + ".EFI"}
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
		return Loaders{}, fmt.Errorf("boot loaders: boot.img in %s is no boot sector of GRUB", dir)
	}
	if len(l.GRUBCore) <= gpt.SectorSize ||
		int64(binary.LittleEndian.Uint16(l.GRUBCore[coreBlockLength:])) != sectors(int64(len(l.GRUBCore)))-1 {
		return Loaders{}, fmt.Errorf("boot loaders: core.img in %s is no core image of GRUB for a BIOS", dir)
	}
	if len(l.GRUBCore) > biosSectors*gpt.SectorSize {
		return Loaders{}, fmt.Errorf("boot loaders: core.img in %s is larger than the BIOS boot partition", dir)
	}
	return l, nil
}

// Disk is a disk laid out for writing.
type Disk struct {
	sparse.Content
	// ID tells the contents of disks apart.
	ID [sha256.Size]byte
	// BIOSCmdline is the kernel command line that the machine gets under BIOS, if
	// the disk boots so. Its parameters are those of the contents, but the
	// quotes may stand elsewhere. Under UEFI the command line is exact. Boot
	// loaders put a word of their own before it.
	BIOSCmdline string
}

// New lays out a disk of size bytes, or of the smallest multiple of 1 MiB if
// size is 0. The time stands on all files.
//
// All ids derive from the contents, which are read for that.
func New(boot BootMethod, c Contents, l Loaders, size int64, t time.Time) (Disk, error) {
	if size%gpt.SectorSize != 0 || size < 0 {
		return Disk{}, fmt.Errorf("the size of a disk is a multiple of %d bytes, not %d", gpt.SectorSize, size)
	}
	r := layout{boot: boot, loaders: l, time: t, espFirst: alignment}
	if r.bios() {
		r.espFirst = biosFirst + biosSectors
	}
	cmdline, err := r.contents(c)
	if err != nil {
		return Disk{}, err
	}
	if err := r.fit(size); err != nil {
		return Disk{}, err
	}
	id, err := contentID(r.placed)
	if err != nil {
		return Disk{}, err
	}
	image, err := r.image(id)
	return Disk{Content: image, ID: id, BIOSCmdline: cmdline}, err
}

// layout is a disk in the making.
type layout struct {
	boot     BootMethod
	loaders  Loaders
	time     time.Time
	espFirst int64 // sector
	// files gives the files of the EFI system partition.
	files func(Fit) ([]fat.File, error)

	placed  []fat.File // by fit
	size    int64      // bytes
	espLast int64      // sector
	esp     *fat.Volume
}

func (r *layout) bios() bool { return r.boot == Hybrid || r.boot == BIOS }

// contents says which files there are. It returns the command line under BIOS.
func (r *layout) contents(c Contents) (biosCmdline string, err error) {
	program := "EFI/BOOT/" + r.loaders.Program
	if r.boot == UKI {
		if err := checkCmdline(c.Cmdline, ""); err != nil {
			return "", err
		}
		r.files = func(fit Fit) ([]fat.File, error) {
			image, err := NewUKI(c, r.loaders.Stub, fit)
			// The slot is for the alignment alone: nothing follows.
			return []fat.File{{Path: program, Parts: []fat.Part{{Content: image, Slot: image.Size}}}}, err
		}
		return "", nil
	}
	var small []fat.File
	if r.boot == Hybrid || r.boot == UEFI {
		if err := checkCmdline(c.Cmdline, systemdBootPrefix); err != nil {
			return "", err
		}
		small = append(small,
			file(program, r.loaders.SystemdBoot),
			file("loader/loader.conf", []byte("timeout 0\ndefault slipway.conf\n")),
			file("loader/entries/slipway.conf", systemdBootEntry(c.Cmdline, true)))
	}
	if r.bios() {
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
		small = append(small, file("grub/grub.cfg", grubConfig("", words, true)))
		biosCmdline = grubResult(words)
	}
	r.files = func(fit Fit) ([]fat.File, error) {
		return append(slices.Clone(small), fat.File{Path: kernelPath, Parts: fit.parts(c.Kernel)}, fat.File{Path: initrdPath, Parts: fit.parts(c.Initrd...)}), nil
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
		return fmt.Errorf("the initrd has %d bytes, but under BIOS the kernel accepts at most %d: use a format for UEFI", size, limit)
	}
	return nil
}

// NewUKI makes a unified kernel image. Its stub is of systemd.
func NewUKI(c Contents, stub []byte, fit Fit) (sparse.Content, error) {
	if err := checkCmdline(c.Cmdline, ""); err != nil {
		return sparse.Content{}, err
	}
	// Without a command line of its own, the stub would take what the
	// firmware has for it.
	cmdline := cmp.Or(c.Cmdline, " ")
	sections := []uki.Section{
		{Name: ".osrel", Content: sparse.Bytes([]byte("ID=slipway\nNAME=Slipway\nPRETTY_NAME=Slipway\n"))},
		{Name: ".cmdline", Content: sparse.Bytes([]byte(cmdline))},
	}
	release, err := kernel.Release(c.Kernel, c.Kernel.Size)
	if err != nil && !errors.Is(err, kernel.ErrFormat) {
		return sparse.Content{}, err
	}
	if release != "" {
		sections = append(sections, uki.Section{Name: ".uname", Content: sparse.Bytes([]byte(release))})
	}
	linux, initrd := uki.Section{Name: ".linux", Content: c.Kernel}, uki.Section{Name: ".initrd", Content: sparse.Concat(c.Initrd...)}
	if fit == Roomy {
		// Between segments the kernel skips zeros.
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
	return uki.New(stub, append(sections, linux, initrd))
}

// Fit says how close components stand to each other.
type Fit string

// Roomy gives each a slot that it can grow in, Packed as little room as possible.
const (
	Roomy  Fit = "roomy"
	Packed Fit = "packed"
)

// parts makes parts of a file out of images.
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

// slot is the room for a component of a size, in bytes. It grows in steps, which
// are an eighth to a quarter of the size and 4 MiB at most: between two versions
// of a component, it is mostly the same.
func slot(size int64) int64 {
	step := int64(1) << bits.Len64(uint64(size)) / 8
	return sparse.RoundUp(size, min(max(fat.SlotAlignment, step), 4*mebibyte))
}

// fit gives the disk a size and divides it. Where components cannot have room to
// grow on a disk of the size that the user wants, they have none.
func (r *layout) fit(size int64) error {
	best := Roomy
	if size > 0 {
		best = Packed
		for _, f := range []Fit{Roomy, Packed} {
			files, err := r.files(f)
			if err != nil {
				return err
			}
			if err := r.divide(size, files); !errors.Is(err, fat.ErrTooSmall) {
				return err
			}
		}
	}
	files, err := r.files(best)
	if err != nil {
		return err
	}
	smallest := r.espFirst * gpt.SectorSize
	for _, f := range files {
		smallest += f.Size() / mebibyte * mebibyte
	}
	for ; ; smallest += mebibyte {
		err := r.divide(smallest, files)
		switch {
		case errors.Is(err, fat.ErrTooSmall):
			continue
		case err != nil:
			return err
		case size == 0:
			return nil
		}
		return fmt.Errorf("SIZE %s is too small by %s: kernel, initrd and boot loaders need %s",
			inMebibytes(size), inMebibytes(smallest-size), inMebibytes(smallest))
	}
}

// inMebibytes writes a size as users give it, where it is a whole number of MiB.
func inMebibytes(size int64) string {
	if size%mebibyte != 0 {
		return fmt.Sprintf("%d bytes", size)
	}
	return fmt.Sprintf("%dM", size/mebibyte)
}

// divide gives the disk a size and the files their places.
func (r *layout) divide(size int64, files []fat.File) error {
	espEnd := (size/gpt.SectorSize - gpt.BackupSectors) / alignment * alignment
	espSectors := espEnd - r.espFirst
	if espSectors <= 0 {
		return fat.ErrTooSmall
	}
	if last := int64(fat.MaxSize / mebibyte); espSectors*gpt.SectorSize > fat.MaxSize {
		return fmt.Errorf("SIZE %s is too large: the file system, FAT32, has %dM at most", inMebibytes(size), last)
	}
	esp, err := fat.New(espSectors*gpt.SectorSize, files, fat.Options{Label: "SLIPWAY", Time: r.time, Offset: uint32(r.espFirst)})
	if err != nil {
		return fmt.Errorf("EFI system partition: %w", err)
	}
	r.placed, r.size, r.espLast, r.esp = files, size, espEnd-1, esp
	return nil
}

func file(path string, content []byte) fat.File {
	return fat.File{Path: path, Parts: []fat.Part{{Content: sparse.Bytes(content)}}}
}

// image puts loaders, table and files together.
func (r *layout) image(id [sha256.Size]byte) (sparse.Content, error) {
	esp, err := r.esp.Image(binary.LittleEndian.Uint32(id[:]))
	if err != nil {
		return sparse.Content{}, err
	}
	table := gpt.Table{ID: gpt.Derive("disk", id[:]), Sectors: uint64(r.size / gpt.SectorSize)}
	var runs []sparse.Run
	start := int64(gpt.FirstUsable) // of what is free
	var free []sparse.Range
	between := func(from, to int64) {
		free = append(free, sparse.Range{Offset: from * gpt.SectorSize, Size: (to - from) * gpt.SectorSize})
	}
	if r.bios() {
		boot := bytes.Clone(r.loaders.GRUBBoot)
		binary.LittleEndian.PutUint64(boot[bootKernelSector:], biosFirst)
		table.BootCode = boot[:gpt.BootCodeSize]
		core := bytes.Clone(r.loaders.GRUBCore)
		binary.LittleEndian.PutUint64(core[coreFirstBlock:], biosFirst+1)
		runs = append(runs, sparse.Bytes(core).At(biosFirst*gpt.SectorSize)...)
		between(start, biosFirst)
		start = biosFirst + sectors(int64(len(core)))
		table.Partitions = append(table.Partitions, gpt.Partition{Type: gpt.TypeBIOSBoot, ID: gpt.Derive("BIOS boot", id[:]),
			First: biosFirst, Last: biosFirst + biosSectors - 1, Name: "BIOS boot"})
	}
	system := gpt.Partition{Type: gpt.TypeESP, ID: gpt.Derive("EFI system", id[:]), First: uint64(r.espFirst), Last: uint64(r.espLast), Name: "EFI system"}
	if r.boot == BIOS {
		system.Type, system.Name = gpt.TypeData, "boot"
	}
	table.Partitions = append(table.Partitions, system)
	tables, err := table.Encode()
	if err != nil {
		return sparse.Content{}, err
	}
	between(start, r.espFirst)
	for _, f := range esp.Free {
		free = append(free, sparse.Range{Offset: r.espFirst*gpt.SectorSize + f.Offset, Size: f.Size})
	}
	between(r.espLast+1, r.size/gpt.SectorSize-gpt.BackupSectors)
	return sparse.New(r.size, slices.Concat(runs, tables.Runs, esp.At(r.espFirst*gpt.SectorSize)), free)
}

// contentID tells the contents of a disk apart: it is the SHA-256 of the paths
// of files, and sizes and hashes of their parts.
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
