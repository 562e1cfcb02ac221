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
// Kernel and segments of the initrd stand in slots at multiples of 512 KiB, with
// some room to grow: between two versions of a machine, only those blocks of EBS
// differ whose component has changed, and a few that hold tables and ids.
package disk

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/slipway-build/slipway/exporter/fat"
	"github.com/slipway-build/slipway/exporter/gpt"
	"github.com/slipway-build/slipway/exporter/sparse"
)

const (
	mebibyte  = 1 << 20
	alignment = mebibyte / gpt.SectorSize // of partitions, in sectors

	biosFirst = alignment
	espFirst  = biosFirst + alignment
)

// Files on the EFI system partition.
const (
	kernelPath = "kernel"
	initrdPath = "initrd.img"
)

// Contents are what a machine boots.
type Contents struct {
	Kernel  sparse.Image
	Initrd  []sparse.Image // in parts, as segment.Initrd gives them
	Cmdline string
}

// Loaders are the boot loaders, as loaders.sh collects them.
type Loaders struct {
	GRUBBoot    []byte // one sector
	GRUBCore    []byte
	SystemdBoot []byte // for x86_64
}

// Where the loaders' images hold what is read or patched here, in bytes.
const (
	bootKernelSector = 0x5c  // boot.img: first sector of core.img, 8 bytes
	coreFirstBlock   = 0x1f4 // core.img: sector of its second part, 8 bytes,
	coreBlockLength  = 0x1fc // and the number of sectors, 2 bytes
)

// ReadLoaders reads the directory that loaders.sh makes.
func ReadLoaders(dir string) (Loaders, error) {
	var l Loaders
	for name, data := range map[string]*[]byte{"boot.img": &l.GRUBBoot, "core.img": &l.GRUBCore, "systemd-bootx64.efi": &l.SystemdBoot} {
		var err error
		if *data, err = os.ReadFile(filepath.Join(dir, name)); err != nil {
			return Loaders{}, fmt.Errorf("boot loaders: %w", err)
		}
	}
	if len(l.GRUBBoot) != gpt.SectorSize || !strings.HasSuffix(string(l.GRUBBoot), "\x55\xaa") {
		return Loaders{}, fmt.Errorf("boot loaders: boot.img in %s is no boot sector of GRUB", dir)
	}
	if len(l.GRUBCore) <= gpt.SectorSize ||
		int64(binary.LittleEndian.Uint16(l.GRUBCore[coreBlockLength:])) != sectors(int64(len(l.GRUBCore)))-1 {
		return Loaders{}, fmt.Errorf("boot loaders: core.img in %s is no core image of GRUB for a BIOS", dir)
	}
	if len(l.GRUBCore) > (espFirst-biosFirst)*gpt.SectorSize {
		return Loaders{}, fmt.Errorf("boot loaders: core.img in %s is larger than the BIOS boot partition", dir)
	}
	return l, nil
}

// Disk is a disk laid out for writing.
type Disk struct {
	sparse.Image
	// BIOSCmdline is the kernel command line that the machine gets under BIOS.
	// Its parameters are those of the contents, but the quotes may stand
	// elsewhere. Under UEFI the command line is exact. Both loaders put a word
	// of their own before it.
	BIOSCmdline string
}

// New lays out a disk of size bytes, or of the smallest multiple of 1 MiB if
// size is 0. The time stands on all files.
//
// All ids derive from the contents, which are read for that.
func New(c Contents, l Loaders, size int64, t time.Time) (Disk, error) {
	if size%gpt.SectorSize != 0 || size < 0 {
		return Disk{}, fmt.Errorf("the size of a disk is a multiple of %d bytes, not %d", gpt.SectorSize, size)
	}
	if err := checkCmdline(c.Cmdline); err != nil {
		return Disk{}, err
	}
	words, err := grubWords(c.Cmdline)
	if err != nil {
		return Disk{}, err
	}
	r := layout{loaders: l, time: t, files: func(fit fit) []fat.File {
		return []fat.File{ // small ones first
			file("EFI/BOOT/BOOTX64.EFI", l.SystemdBoot),
			file("loader/loader.conf", []byte("timeout 0\ndefault slipway.conf\n")),
			file("loader/entries/slipway.conf", systemdBootEntry(c.Cmdline)),
			file("grub/grub.cfg", grubConfig(words)),
			{Path: kernelPath, Parts: fit(c.Kernel)},
			{Path: initrdPath, Parts: fit(c.Initrd...)},
		}
	}}
	if err := r.fit(size); err != nil {
		return Disk{}, err
	}
	image, err := r.image()
	return Disk{Image: image, BIOSCmdline: grubResult(words)}, err
}

// layout is a disk in the making.
type layout struct {
	loaders Loaders
	time    time.Time
	// files gives the files of the EFI system partition.
	files func(fit) []fat.File

	placed  []fat.File // by fit
	size    int64      // bytes
	espLast int64      // sector
	esp     *fat.Volume
}

// fit makes parts of a file out of images.
type fit func(...sparse.Image) []fat.Part

// roomy gives each image a slot that it can grow in.
func roomy(images ...sparse.Image) []fat.Part {
	parts := packed(images...)
	for i := range parts {
		parts[i].Slot = slot(parts[i].Content.Size)
	}
	return parts
}

// packed leaves as little room as possible between images.
func packed(images ...sparse.Image) []fat.Part {
	var parts []fat.Part
	for _, i := range images {
		parts = append(parts, fat.Part{Content: i.Pad(fat.PartAlignment)})
	}
	if last := len(images) - 1; last >= 0 {
		parts[last].Content = images[last]
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
	if size > 0 {
		for _, f := range []fit{roomy, packed} {
			if err := r.divide(size, r.files(f)); !errors.Is(err, fat.ErrTooSmall) {
				return err
			}
		}
	}
	fit := roomy
	if size > 0 {
		fit = packed
	}
	files := r.files(fit)
	smallest := int64(espFirst * gpt.SectorSize)
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
	espSectors := espEnd - espFirst
	if espSectors <= 0 {
		return fat.ErrTooSmall
	}
	esp, err := fat.New(espSectors*gpt.SectorSize, files, fat.Options{Label: "SLIPWAY", Time: r.time, Offset: espFirst})
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
func (r *layout) image() (sparse.Image, error) {
	id, err := contentID(r.placed)
	if err != nil {
		return sparse.Image{}, err
	}
	esp, err := r.esp.Image(binary.LittleEndian.Uint32(id[:]))
	if err != nil {
		return sparse.Image{}, err
	}
	boot := bytes.Clone(r.loaders.GRUBBoot)
	binary.LittleEndian.PutUint64(boot[bootKernelSector:], biosFirst)
	core := bytes.Clone(r.loaders.GRUBCore)
	binary.LittleEndian.PutUint64(core[coreFirstBlock:], biosFirst+1)
	table, err := gpt.Table{
		ID:       gpt.Derive("disk", id[:]),
		Sectors:  uint64(r.size / gpt.SectorSize),
		BootCode: boot[:gpt.BootCodeSize],
		Partitions: []gpt.Partition{
			{Type: gpt.TypeBIOSBoot, ID: gpt.Derive("BIOS boot", id[:]), First: biosFirst, Last: espFirst - 1, Name: "BIOS boot"},
			{Type: gpt.TypeESP, ID: gpt.Derive("EFI system", id[:]), First: espFirst, Last: uint64(r.espLast), Name: "EFI system"},
		},
	}.Image()
	if err != nil {
		return sparse.Image{}, err
	}

	const espStart = espFirst * gpt.SectorSize
	runs := append(table.Runs, sparse.Bytes(core).At(biosFirst*gpt.SectorSize)...)
	runs = append(runs, esp.At(espStart)...)
	between := func(from, to int64) sparse.Range { return sparse.Range{Offset: from, Size: to - from} }
	free := []sparse.Range{
		between(gpt.FirstUsable*gpt.SectorSize, biosFirst*gpt.SectorSize),
		between(biosFirst*gpt.SectorSize+sparse.RoundUp(int64(len(core)), gpt.SectorSize), espStart),
		between((r.espLast+1)*gpt.SectorSize, r.size-gpt.BackupSectors*gpt.SectorSize),
	}
	for _, f := range esp.Free {
		free = append(free, sparse.Range{Offset: espStart + f.Offset, Size: f.Size})
	}
	return sparse.New(r.size, runs, free)
}

// contentID tells the contents of a disk apart: it is the SHA-256 of the paths
// of files, and sizes and hashes of their parts.
func contentID(files []fat.File) ([sha256.Size]byte, error) {
	var parts []sparse.Image
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
