package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/slipway-build/slipway/exporter/fat"
	"github.com/slipway-build/slipway/exporter/gpt"
	"github.com/slipway-build/slipway/exporter/iso9660"
	"github.com/slipway-build/slipway/exporter/sparse"
	"github.com/slipway-build/slipway/exporter/tree"
)

// Files on a CD. The kernel and the initramfs have other paths on its EFI system
// partition, but the same sectors: both file systems refer to them.
const (
	cdKernel  = "boot/" + kernelPath
	cdInitrd  = "boot/" + initrdPath
	cdConfig  = "boot/grub/grub.cfg"
	cdProgram = "boot/grub/eltorito.img"

	cdPrefix = "BOOT_IMAGE=/" + cdKernel + " " // GRUB prepends it to the command line

	// CDLabel is the label of the volume.
	CDLabel = "SLIPWAY"
)

// A CD is how a CD boots.
type CD struct {
	BIOS bool // with GRUB, which reads the ISO 9660 file system
	UEFI bool // with systemd-boot, which reads an EFI system partition, or with a signed UKI
	// Disk reports whether a copy on a disk or USB stick boots too. The CD has a
	// partition table then, as raw disks have.
	Disk bool
}

// plain reports whether the CD contains the kernel and the initramfs as files. A
// signed CD for UEFI only has them in its unified kernel image.
func (cd CD) plain(c Contents) bool { return c.Signer == nil || cd.BIOS }

// NewCD lays out a CD with a tree, which may be empty, and with what boots it. The
// layout is that of package iso9660. Its tail has, each at a multiple of 1 MiB:
//
//	the rest of GRUB (core.img), to boot from disk
//	an EFI system partition as on raw disks, with a copy of GRUB's configuration
//	the backup of the partition table
//
// The time, the IDs and the errors are as for New.
func NewCD(cd CD, c Contents, root []tree.Entry, l Loaders, t time.Time) (Disk, error) {
	if cd.Disk && !cd.UEFI {
		return Disk{}, errors.New("a CD that boots from disk must support UEFI")
	}
	prefix := systemdBootPrefix
	if cd.BIOS {
		prefix = cdPrefix // the longer one
	}
	if err := checkCmdline(c.Cmdline, prefix); err != nil {
		return Disk{}, err
	}
	initrd := sparse.Concat(c.Initrd...)
	var boot []tree.Entry
	plain := cd.plain(c)
	if plain {
		boot = append(boot, tree.NewDir("boot"), imageEntry(cdKernel, c.Kernel))
	}
	if plain && initrd.Size > 0 {
		boot = append(boot, imageEntry(cdInitrd, initrd))
	}
	options := iso9660.Options{Label: CDLabel, Time: t}
	d := Disk{BIOSCmdline: c.Cmdline}
	var words []string
	if cd.BIOS {
		if err := checkBIOS(c); err != nil {
			return Disk{}, err
		}
		var err error
		if words, err = grubWords(c.Cmdline); err != nil {
			return Disk{}, err
		}
		d.BIOSCmdline = grubResult(words)
		boot = append(boot, tree.NewDir("boot/grub"), tree.NewFile(cdProgram, 0o644, string(l.GRUBCD)),
			tree.NewFile(cdConfig, 0o644, string(grubConfig("/boot", words, initrd.Size > 0, c.Reserve))))
		options.BIOS = cdProgram
	}

	var esp partition
	if cd.UEFI {
		var err error
		if esp, err = newPartition(cd, c, initrd, words, l, t); err != nil {
			return Disk{}, err
		}
		options.UEFI, options.Tail = true, esp.size
		if cd.Disk {
			options.Tail += mebibyte // for the backup of the partition table
		}
		if cd.Disk && cd.BIOS {
			options.UEFIOffset = mebibyte
			options.Tail += mebibyte
		}
		options.InTail = map[string]int64{}
		if plain {
			options.InTail[cdKernel] = options.UEFIOffset + esp.volume.FileOffset(kernelPath)
		}
		if plain && initrd.Size > 0 {
			options.InTail[cdInitrd] = options.UEFIOffset + esp.volume.FileOffset(initrdPath)
		}
	}

	entries, err := tree.Merge([]tree.Part{{Name: "the machine", Entries: root}, {Name: "the boot loader", Entries: boot}})
	if err != nil {
		return Disk{}, err
	}
	volume, err := iso9660.New(entries, options)
	if err != nil {
		return Disk{}, err
	}
	files, err := volume.Image()
	if err != nil {
		return Disk{}, err
	}
	runs := files.Runs
	if cd.UEFI {
		more, err := cd.tail(volume, esp, options.UEFIOffset, l)
		if err != nil {
			return Disk{}, err
		}
		runs = append(runs, more...)
	}
	d.Content, err = sparse.New(volume.Size(), runs, nil)
	return d, err
}

// tail returns the runs of the tail and of the system area.
func (cd CD) tail(volume *iso9660.Volume, esp partition, offset int64, l Loaders) ([]sparse.Run, error) {
	start := volume.Tail() + offset
	id, err := contentID(esp.files)
	if err != nil {
		return nil, err
	}
	if err := esp.place(start / gpt.SectorSize); err != nil {
		return nil, err
	}
	image, err := esp.volume.Image(binary.LittleEndian.Uint32(id[:]))
	if err != nil {
		return nil, err
	}
	runs := image.At(start)
	if !cd.Disk {
		return runs, nil
	}
	table := gpt.Table{ID: gpt.Derive("CD", id[:]), Sectors: uint64(volume.Size() / gpt.SectorSize)}
	espFirst := uint64(start / gpt.SectorSize)
	if cd.BIOS {
		first := uint64(volume.Tail() / gpt.SectorSize)
		bootSector := bytes.Clone(l.GRUBBoot)
		binary.LittleEndian.PutUint64(bootSector[bootKernelSector:], first)
		core := bytes.Clone(l.GRUBCore)
		binary.LittleEndian.PutUint64(core[coreFirstBlock:], first+1)
		runs = append(runs, sparse.Bytes(core).At(volume.Tail())...)
		table.BootCode = bootSector[:gpt.BootCodeSize]
		table.Partitions = []gpt.Partition{
			{Type: gpt.TypeBIOSBoot, ID: gpt.Derive("BIOS boot", id[:]), First: first, Last: espFirst - 1, Name: "BIOS boot"},
		}
	}
	table.Partitions = append(table.Partitions, gpt.Partition{
		Type: gpt.TypeESP, ID: gpt.Derive("EFI system", id[:]),
		First: espFirst, Last: espFirst + uint64(esp.size/gpt.SectorSize) - 1, Name: "EFI system",
	})
	tables, err := table.Encode()
	return append(runs, tables.Runs...), err
}

// partition is the EFI system partition of a CD.
type partition struct {
	files  []fat.File
	size   int64 // bytes, a multiple of 1 MiB
	time   time.Time
	volume *fat.Volume
}

func newPartition(cd CD, c Contents, initrd sparse.Content, words []string, l Loaders, t time.Time) (partition, error) {
	// In slots, kernel and initramfs are contiguous and start at sectors of the
	// CD.
	whole := func(i sparse.Content) []fat.Part {
		return []fat.Part{{Content: i, Slot: sparse.RoundUp(i.Size, fat.SlotAlignment)}}
	}
	p := partition{time: t}
	if c.Signer == nil {
		p.files = append(p.files,
			file("EFI/BOOT/"+l.Program, l.SystemdBoot),
			file("loader/loader.conf", []byte("timeout 0\ndefault slipway.conf\n")),
			file(SystemdBootEntry, systemdBootEntry(c.Cmdline, initrd.Size > 0, c.Reserve)))
	} else {
		image, err := NewUKI(c, l.Stub, Packed)
		if err != nil {
			return p, err
		}
		p.files = append(p.files, fat.File{Path: "EFI/BOOT/" + l.Program, Parts: whole(image)})
	}
	plain := cd.plain(c)
	if plain {
		p.files = append(p.files, fat.File{Path: kernelPath, Parts: whole(c.Kernel)})
	}
	if cd.Disk && cd.BIOS {
		p.files = append(p.files, file("grub/grub.cfg", grubConfig("", words, initrd.Size > 0, c.Reserve)))
	}
	if plain && initrd.Size > 0 {
		p.files = append(p.files, fat.File{Path: initrdPath, Parts: whole(initrd)})
	}
	for _, f := range p.files {
		p.size += f.Size() / mebibyte * mebibyte
	}
	for {
		p.size += mebibyte
		if err := p.place(alignment); !errors.Is(err, fat.ErrTooSmall) {
			return p, err
		}
	}
}

// place lays out the partition for an offset on the disk in sectors of 512 bytes. The
// offset does not change the places of files in the partition.
func (p *partition) place(sector int64) (err error) {
	p.volume, err = fat.New(p.size, p.files, fat.Options{Label: "SLIPWAY", Time: p.time, Offset: uint32(sector)})
	if err != nil {
		return fmt.Errorf("EFI system partition: %w", err)
	}
	return nil
}

// imageEntry returns the entry of a file.
func imageEntry(path string, image sparse.Content) tree.Entry {
	return tree.Entry{Path: path, Type: tree.File, Mode: 0o644, Size: image.Size, Open: func() (tree.Content, error) {
		return imageContent{io.NewSectionReader(image, 0, image.Size)}, nil
	}}
}

type imageContent struct{ *io.SectionReader }

func (imageContent) Close() error { return nil }
