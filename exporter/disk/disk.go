// Package disk writes raw disks that boot under BIOS and UEFI.
//
// Layout, in sectors of 512 bytes:
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
package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/slipway-build/slipway/exporter/fat"
	"github.com/slipway-build/slipway/exporter/gpt"
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

// Blob is a file to put on the disk.
type Blob struct {
	Size int64 // bytes
	Open func() (io.ReadCloser, error)
}

// Contents are what a machine boots.
type Contents struct {
	Kernel  Blob
	Initrd  Blob
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

// Raw is a disk laid out for writing.
type Raw struct {
	loaders     Loaders
	biosCmdline string
	size        int64 // bytes
	espLast     int64 // sector
	esp         *fat.Volume
}

// New lays out a disk of size bytes, or of the smallest multiple of 1 MiB if
// size is 0. The time stands on the files of the EFI system partition. It
// fails if the size is too small, saying by how much, and if a boot loader
// cannot pass on the command line as it is.
func New(c Contents, l Loaders, size int64, t time.Time) (*Raw, error) {
	if size < 0 || size%gpt.SectorSize != 0 {
		return nil, fmt.Errorf("the size of a disk is a multiple of %d bytes, not %d", gpt.SectorSize, size)
	}
	if err := checkCmdline(c.Cmdline); err != nil {
		return nil, err
	}
	words, err := grubWords(c.Cmdline)
	if err != nil {
		return nil, err
	}
	r := &Raw{loaders: l, biosCmdline: grubResult(words)}
	files := []fat.File{ // small ones first
		file("EFI/BOOT/BOOTX64.EFI", l.SystemdBoot),
		file("loader/loader.conf", []byte("timeout 0\ndefault slipway.conf\n")),
		file("loader/entries/slipway.conf", systemdBootEntry(c.Cmdline)),
		file("grub/grub.cfg", grubConfig(words)),
		{Path: kernelPath, Size: c.Kernel.Size, Open: c.Kernel.Open},
		{Path: initrdPath, Size: c.Initrd.Size, Open: c.Initrd.Open},
	}
	if size > 0 {
		if err := r.layOut(size, files, t); !errors.Is(err, fat.ErrTooSmall) {
			return r, err
		}
	}
	smallest := int64(espFirst * gpt.SectorSize)
	for _, f := range files {
		smallest += f.Size / mebibyte * mebibyte
	}
	for ; ; smallest += mebibyte {
		err := r.layOut(smallest, files, t)
		switch {
		case errors.Is(err, fat.ErrTooSmall):
			continue
		case err != nil:
			return nil, err
		case size == 0:
			return r, nil
		}
		return nil, fmt.Errorf("SIZE %s is too small by %s: kernel, initrd and boot loaders need %s",
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

// layOut gives the disk a size and divides it.
func (r *Raw) layOut(size int64, files []fat.File, t time.Time) error {
	espEnd := (size/gpt.SectorSize - gpt.BackupSectors) / alignment * alignment
	espSectors := espEnd - espFirst
	if espSectors <= 0 {
		return fat.ErrTooSmall
	}
	esp, err := fat.New(espSectors*gpt.SectorSize, files, fat.Options{Label: "SLIPWAY", Time: t, Offset: espFirst})
	if err != nil {
		return fmt.Errorf("EFI system partition: %w", err)
	}
	r.size, r.espLast, r.esp = size, espEnd-1, esp
	return nil
}

func file(path string, content []byte) fat.File {
	return fat.File{Path: path, Size: int64(len(content)), Open: func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(content)), nil
	}}
}

// Size of the disk in bytes.
func (r *Raw) Size() int64 {
	return r.size
}

// BIOSCmdline is the kernel command line that the machine gets under BIOS. Its
// parameters are those of the contents, but the quotes may stand elsewhere.
// Under UEFI the command line is exact. Both loaders put a word of their own
// before it.
func (r *Raw) BIOSCmdline() string {
	return r.biosCmdline
}

// Write writes the disk to w, which must read as zeros where nothing was
// written: what is empty on the disk stays a hole in a file. A file must have
// the disk's size before.
//
// All ids derive from the contents of the EFI system partition.
func (r *Raw) Write(w io.WriterAt) error {
	content, err := r.esp.Write(offsetWriter{w, espFirst * gpt.SectorSize})
	if err != nil {
		return fmt.Errorf("EFI system partition: %w", err)
	}
	boot := bytes.Clone(r.loaders.GRUBBoot)
	binary.LittleEndian.PutUint64(boot[bootKernelSector:], biosFirst)
	core := bytes.Clone(r.loaders.GRUBCore)
	binary.LittleEndian.PutUint64(core[coreFirstBlock:], biosFirst+1)
	if _, err := w.WriteAt(core, biosFirst*gpt.SectorSize); err != nil {
		return err
	}
	return gpt.Table{
		ID:       gpt.Derive("disk", content[:]),
		Sectors:  uint64(r.size / gpt.SectorSize),
		BootCode: boot[:gpt.BootCodeSize],
		Partitions: []gpt.Partition{
			{Type: gpt.TypeBIOSBoot, ID: gpt.Derive("BIOS boot", content[:]), First: biosFirst, Last: espFirst - 1, Name: "BIOS boot"},
			{Type: gpt.TypeESP, ID: gpt.Derive("EFI system", content[:]), First: espFirst, Last: uint64(r.espLast), Name: "EFI system"},
		},
	}.Write(w)
}

// offsetWriter writes to a part of a file.
type offsetWriter struct {
	w      io.WriterAt
	offset int64
}

func (o offsetWriter) WriteAt(p []byte, at int64) (int, error) {
	return o.w.WriteAt(p, o.offset+at)
}

func sectors(size int64) int64 {
	return (size + gpt.SectorSize - 1) / gpt.SectorSize
}
