package image

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/slipway-build/slipway/exporter/disk"
	"github.com/slipway-build/slipway/exporter/eif"
	"github.com/slipway-build/slipway/exporter/fat"
	"github.com/slipway-build/slipway/exporter/iso9660"
	"github.com/slipway-build/slipway/exporter/mbr"
	"github.com/slipway-build/slipway/exporter/tree"
	"github.com/slipway-build/slipway/exporter/uki"
)

// Limits for disks from strangers.
const (
	maxPartitions = 128
	maxFiles      = 10_000 // of an EFI system partition
)

// readDisk reads the partition table, and the file systems of the partitions that
// can have a boot loader.
func (i *Image) readDisk(r io.ReaderAt, size int64) error {
	table, err := disk.ReadPartitions(r)
	if err != nil {
		return err
	}
	for _, p := range table.Partitions {
		i.addPartition(Partition{Number: p.Number, Name: p.Name, Type: p.Type, Start: p.Start, Size: p.Size, esp: p.ESP, root: p.Root, rootVerity: p.RootVerity})
	}
	biosCode := slices.ContainsFunc(table.MBR.BootCode, func(b byte) bool { return b != 0 })
	// The root first: the initramfs of such a disk only leads to it.
	i.readVerity(r, size)
	for n := range i.Partitions {
		p := &i.Partitions[n]
		if p.Start > size-p.Size {
			i.warn("partition %d ends after the end of the disk", p.Number)
			continue
		}
		if err := i.readPartition(p, io.NewSectionReader(r, p.Start, p.Size), biosCode); err != nil {
			return err
		}
	}
	return nil
}

func (i *Image) addPartition(p Partition) {
	if len(i.Partitions) < maxPartitions {
		i.Partitions = append(i.Partitions, p)
	}
}

// fileSystems are file systems that are recognized, but not read, by their magic
// numbers.
var fileSystems = []struct {
	at    int64
	magic string
	name  string
}{
	{1080, "\x53\xef", "ext4"}, {0, "XFSB", "XFS"}, {65600, "_BHRfS_M", "Btrfs"}, {0, "LUKS\xba\xbe", "LUKS"},
	{0, "hsqs", "SquashFS"}, {erofsMagicAt, "\xe2\xe1\xf5\xe0", "EROFS"}, {4086, "SWAPSPACE2", "swap"},
}

func (i *Image) readPartition(p *Partition, r *io.SectionReader, biosCode bool) error {
	for _, f := range fileSystems {
		b := make([]byte, len(f.magic))
		if _, err := r.ReadAt(b, f.at); err == nil && string(b) == f.magic {
			p.FileSystem = f.name
			return nil
		}
	}
	volume, err := fat.Open(r)
	if err != nil {
		if p.esp {
			i.warn("partition %d: %v", p.Number, err)
		}
		return nil
	}
	p.FileSystem = "FAT"
	if p.Free, err = volume.Free(); err != nil {
		i.warn("partition %d: %v", p.Number, err)
	}
	err = fs.WalkDir(volume, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			i.warn("partition %d: %v", p.Number, err)
		case d.IsDir():
		case len(p.Files) >= maxFiles:
			return fmt.Errorf("partition %d has more than %d files", p.Number, maxFiles)
		default:
			if info, err := d.Info(); err == nil {
				p.Files = append(p.Files, File{name, info.Size()})
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return i.readBoot(volume, biosCode)
}

// A volume is a file system with boot loaders.
type volume interface {
	fs.FS
	Content(name string) (*io.SectionReader, error)
}

// readBoot reads the boot loaders on a volume, and what they start first.
func (i *Image) readBoot(v volume, biosCode bool) error {
	var initrds []archive
	for _, architecture := range disk.Architectures {
		name := disk.LoaderPath(architecture)
		content, err := v.Content(name)
		if err != nil {
			continue // there is none for this architecture
		}
		program, err := uki.Read(content, content.Size())
		if err != nil {
			i.warn("%q: %v", name, err)
			continue
		}
		l := Loader{Firmware: "UEFI", Name: "program", Path: name, Architecture: program.Architecture}
		l.Signers, l.Signed = i.signers(name, content, content.Size())
		if _, unified := program.Section(".linux"); unified {
			i.Loaders = append(i.Loaders, l)
			if err := i.readUnified(name, program); err != nil {
				return err
			}
			continue
		}
		entry, text, err := firstEntry(v)
		if err != nil {
			i.warn("%v", err)
		}
		if entry != "" {
			l.Name, l.Entry = "systemd-boot", entry
			more := i.start(v, &l, disk.ParseBootEntry(text))
			initrds = firstOf(initrds, more)
		}
		i.Loaders = append(i.Loaders, l)
	}
	for _, name := range []string{"grub/grub.cfg", "boot/grub/grub.cfg"} {
		content, err := v.Content(name)
		if err != nil || !biosCode {
			continue
		}
		text, err := readText(content, content.Size())
		if err != nil {
			return err
		}
		l := Loader{Firmware: "BIOS", Name: "GRUB", Architecture: "amd64", Entry: name}
		more := i.start(v, &l, disk.ParseGRUB(text))
		initrds = firstOf(initrds, more)
		i.Loaders = append(i.Loaders, l)
		break
	}
	if len(initrds) == 0 || i.Root != nil {
		return nil
	}
	return i.readInitramfs(initrds)
}

// signers returns who signed a program, and reports whether there is a signature. It
// warns of signatures that do not cover the program.
func (i *Image) signers(name string, r io.ReaderAt, size int64) (signers []Signer, signed bool) {
	signatures, err := uki.Signatures(r, size)
	if err != nil {
		i.warn("%q: %v", name, err)
	}
	for _, s := range signatures {
		signers = append(signers, Signer{s.Certificate.Subject.String(), fmt.Sprintf("%x", sha256.Sum256(s.Certificate.Raw))})
	}
	return signers, err != nil || len(signers) > 0
}

// firstOf returns the first list that is not empty.
func firstOf(a, b []archive) []archive {
	if len(a) > 0 {
		return a
	}
	return b
}

// firstEntry returns the name and the text of the first entry of systemd-boot.
func firstEntry(v volume) (name, text string, err error) {
	const dir = "loader/entries"
	files, err := fs.ReadDir(v, dir)
	if errors.Is(err, fs.ErrNotExist) {
		return "", "", nil
	}
	if err != nil {
		return "", "", err
	}
	for _, f := range files {
		if f.IsDir() || !strings.EqualFold(path.Ext(f.Name()), ".conf") {
			continue
		}
		name = path.Join(dir, f.Name())
		content, err := v.Content(name)
		if err != nil {
			return "", "", err
		}
		text, err = readText(content, content.Size())
		return name, text, err
	}
	return "", "", nil
}

// start opens the kernel and the initramfs files of an entry.
func (i *Image) start(v volume, l *Loader, e disk.BootEntry) []archive {
	l.Cmdline = e.Cmdline
	if i.Cmdline == "" {
		i.Cmdline = e.Cmdline
	}
	if content, err := v.Content(e.Kernel); err != nil {
		i.warn("%s: kernel: %v", l.Entry, err)
	} else {
		i.setKernel(e.Kernel, content, content.Size())
	}
	var initrds []archive
	for _, name := range e.Initrds {
		content, err := v.Content(name)
		if err != nil {
			i.warn("%s: initramfs: %v", l.Entry, err)
			continue
		}
		initrds = append(initrds, archive{name, content, content.Size()})
	}
	return initrds
}

// readUKI reads a unified kernel image.
func (i *Image) readUKI(name string, r io.ReaderAt, size int64) error {
	program, err := uki.Read(r, size)
	if err != nil {
		return err
	}
	l := Loader{Firmware: "UEFI", Path: name, Architecture: program.Architecture}
	l.Signers, l.Signed = i.signers(name, r, size)
	i.Loaders = append(i.Loaders, l)
	return i.readUnified(name, program)
}

// readUnified reads the sections of a unified kernel image, whose loader is the
// last one.
func (i *Image) readUnified(name string, program uki.Program) error {
	l := &i.Loaders[len(i.Loaders)-1]
	l.Name = "unified kernel image"
	if section, ok := program.Section(".cmdline"); ok {
		text, err := readText(section, section.Size)
		if err != nil {
			return err
		}
		l.Cmdline = strings.TrimSpace(strings.TrimRight(text, "\x00"))
		i.Cmdline = cmp.Or(i.Cmdline, l.Cmdline)
	}
	if section, ok := program.Section(".linux"); ok {
		i.setKernel(name+" .linux", section, section.Size)
	}
	if section, ok := program.Section(".initrd"); ok && i.Root == nil {
		return i.readInitramfs([]archive{{name + " .initrd", section, section.Size}})
	}
	return nil
}

// readEIF reads an image for AWS Nitro Enclaves.
func (i *Image) readEIF(in input) error {
	image, measured, err := eif.Read(in.r, in.size)
	if err != nil {
		return err
	}
	i.Kind, i.Cmdline, i.Enclave = "enclave image", image.Cmdline, &measured
	i.setKernel(in.name+" kernel", image.Kernel, image.Kernel.Size)
	var ramdisks []archive
	for n, r := range image.Ramdisks {
		ramdisks = append(ramdisks, archive{fmt.Sprintf("%s ramdisk %d", in.name, n+1), r, r.Size})
	}
	return i.readInitramfs(ramdisks)
}

// readISO reads an ISO 9660 file system and the partitions on it.
func (i *Image) readISO(in input) error {
	entries, err := iso9660.Read(in.r, in.size)
	if err != nil {
		return err
	}
	if in.suffix != "" {
		// It is the root file system of kernel+iso, or a CD of the same machine.
		if _, err := tree.Find(entries, "boot/kernel"); err != nil {
			i.Kind, i.RootKind, i.Root = "ISO 9660", "ISO 9660", entries
		}
		return nil
	}
	i.Kind = "ISO"
	v := treeVolume{tree.NewFS(entries)}
	root := slices.DeleteFunc(slices.Clone(entries), func(e tree.Entry) bool {
		return e.Path == "boot" || strings.HasPrefix(e.Path, "boot/") || strings.HasPrefix(e.Path, "EFI/") || e.Path == "EFI"
	})
	if len(root) > 1 {
		i.RootKind, i.Root = "ISO 9660", root
	}
	if err := i.readBoot(v, true); err != nil {
		return err
	}
	switch err := i.readDisk(in.r, in.size); {
	case err == nil:
	case !errors.Is(err, mbr.ErrFormat):
		return err
	default:
		return i.readElTorito(in)
	}
	return nil
}

// readElTorito reads the EFI system partition of a CD without a partition table.
func (i *Image) readElTorito(in input) error {
	at, err := iso9660.UEFIImage(in.r, in.size)
	if err != nil || at == 0 {
		return err
	}
	p := Partition{Type: "El Torito image for UEFI", Start: at, Size: in.size - at}
	if err := i.readPartition(&p, io.NewSectionReader(in.r, at, in.size-at), false); err != nil {
		return err
	}
	i.addPartition(p)
	return nil
}

// treeVolume is a tree with boot loaders.
type treeVolume struct{ *tree.FS }

// Content returns the content of a file.
func (v treeVolume) Content(name string) (*io.SectionReader, error) {
	e, err := v.Lookup(name)
	if err != nil {
		return nil, err
	}
	if e.Type != tree.File {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	return io.NewSectionReader(e.ReaderAt(), 0, e.Size), nil
}
