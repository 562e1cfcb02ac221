package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/slipway-build/slipway/exporter/eif"
	"github.com/slipway-build/slipway/exporter/erofs"
	"github.com/slipway-build/slipway/exporter/iso9660"
	"github.com/slipway-build/slipway/exporter/qcow2"
	"github.com/slipway-build/slipway/exporter/sparse"
	"github.com/slipway-build/slipway/exporter/squashfs"
	"github.com/slipway-build/slipway/exporter/tree"
	"github.com/slipway-build/slipway/exporter/uki"
	"github.com/slipway-build/slipway/exporter/vhd"
	"github.com/slipway-build/slipway/exporter/vmdk"
	"github.com/slipway-build/slipway/internal/kernel"
)

// kind is what a file is by its first bytes.
type kind int

const (
	kindUnknown kind = iota
	kindDisk
	kindQCOW2
	kindVHD
	kindVMDK
	kindGCP
	kindISO
	kindUKI
	kindKernel
	kindInitramfs
	kindSquashFS
	kindEROFS
	kindTar
	kindEIF
)

// Offsets and texts that tell formats apart.
const (
	isoMagicAt   = 16*iso9660.SectorSize + 1
	erofsMagicAt = 1024
	tarMagicAt   = 257
)

// sniff finds out what a file of size bytes is.
func sniff(r io.ReaderAt, size int64) (kind, error) {
	read := func(at int64, n int) []byte {
		b := make([]byte, n)
		got, _ := r.ReadAt(b, at)
		return b[:got]
	}
	if _, err := r.ReadAt(make([]byte, 1), 0); err != nil {
		if errors.Is(err, io.EOF) {
			return kindUnknown, errors.New("the file is empty")
		}
		return kindUnknown, err
	}
	head := read(0, 512)
	has := func(prefix string) bool { return bytes.HasPrefix(head, []byte(prefix)) }
	switch {
	case has("QFI\xfb"):
		return kindQCOW2, nil
	case eif.Is(r):
		return kindEIF, nil
	case has("KDMV"):
		return kindVMDK, nil
	case has("conectix"), size >= 512 && string(read(size-512, 8)) == "conectix":
		return kindVHD, nil
	case has("hsqs"):
		return kindSquashFS, nil
	case string(read(isoMagicAt, 5)) == "CD001":
		return kindISO, nil
	case len(read(erofsMagicAt, 4)) == 4 && binary.LittleEndian.Uint32(read(erofsMagicAt, 4)) == 0xe0f5e1e2:
		return kindEROFS, nil
	case has("07070"), has("\x28\xb5\x2f\xfd"):
		return kindInitramfs, nil
	case has("\x1f\x8b"):
		return sniffGzip(r, size), nil
	case len(head) > tarMagicAt+5 && string(head[tarMagicAt:tarMagicAt+5]) == "ustar":
		return kindTar, nil
	}
	if has("MZ") {
		if program, err := uki.Read(r, size); err == nil {
			if _, unified := program.Section(".linux"); unified {
				return kindUKI, nil
			}
		}
	}
	if _, err := kernel.ReadHeader(r, size); err == nil {
		return kindKernel, nil
	}
	if len(head) == 512 && head[510] == 0x55 && head[511] == 0xaa {
		return kindDisk, nil
	}
	return kindUnknown, ErrUnknown
}

// sniffGzip tells a compressed disk in a tar archive, a kernel and an initramfs
// apart.
func sniffGzip(r io.ReaderAt, size int64) kind {
	z, err := gzip.NewReader(io.NewSectionReader(r, 0, size))
	if err != nil {
		return kindInitramfs
	}
	head := make([]byte, 512)
	n, _ := io.ReadFull(z, head)
	switch {
	case n > tarMagicAt+5 && string(head[tarMagicAt:tarMagicAt+5]) == "ustar":
		return kindGCP
	case n > 4 && string(head[:5]) == "07070":
		return kindInitramfs
	}
	if _, err := kernel.ReadHeader(r, size); err == nil {
		return kindKernel
	}
	return kindInitramfs
}

// readFile reads an image in one file.
func (i *Image) readFile(k kind, in input) error {
	var err error
	root := func(kind string, read func(io.ReaderAt, int64) ([]tree.Entry, error)) error {
		if i.Kind == "" || i.Kernel != nil {
			i.Kind = kind
		}
		i.RootKind = kind
		i.Root, err = read(in.r, in.size)
		return err
	}
	container := func(kind string, read func(io.ReaderAt, int64) (sparse.Content, error)) error {
		disk, err := read(in.r, in.size)
		if err != nil {
			return err
		}
		i.Kind, i.Size, i.blocks = kind+" disk", disk.Size, disk
		return i.readDisk(disk, disk.Size)
	}
	switch k {
	case kindDisk:
		i.Kind = "raw disk"
		return i.readDisk(in.r, in.size)
	case kindQCOW2:
		return container("qcow2", qcow2.Read)
	case kindVHD:
		return container("VHD", vhd.Read)
	case kindVMDK:
		return container("VMDK", vmdk.Read)
	case kindGCP:
		disk, err := i.unpackDisk(in)
		if err != nil {
			return err
		}
		i.Kind, i.Size, i.blocks = "disk for Google Compute Engine", disk.Size, disk
		return i.readDisk(disk, disk.Size)
	case kindISO:
		return i.readISO(in)
	case kindUKI:
		i.Kind = "unified kernel image"
		return i.readUKI(in.name, in.r, in.size)
	case kindSquashFS:
		return root("SquashFS", squashfs.Read)
	case kindEROFS:
		return root("EROFS", erofs.Read)
	case kindTar:
		return i.readTar(in)
	case kindEIF:
		return i.readEIF(in)
	case kindKernel:
		i.setKernel(in.name, in.r, in.size)
		return nil
	}
	return ErrUnknown
}

// unpackDisk unpacks the disk in an archive for Google Compute Engine to a
// temporary file.
func (i *Image) unpackDisk(in input) (sparse.Content, error) {
	z, err := gzip.NewReader(io.NewSectionReader(in.r, 0, in.size))
	if err != nil {
		return sparse.Content{}, err
	}
	archive := tar.NewReader(z)
	header, err := archive.Next()
	if err != nil {
		return sparse.Content{}, fmt.Errorf("tar archive: %w", err)
	}
	if header.Name != "disk.raw" {
		return sparse.Content{}, fmt.Errorf("the compressed archive starts with %q, not with disk.raw: %w", header.Name, ErrUnknown)
	}
	s, err := i.temporary()
	if err != nil {
		return sparse.Content{}, err
	}
	at, err := s.add(archive, header.Size)
	if err != nil {
		return sparse.Content{}, fmt.Errorf("disk.raw: %w", err)
	}
	return sparse.Content{Size: header.Size, Runs: []sparse.Run{{Size: header.Size, Data: io.NewSectionReader(s.file, at, header.Size)}}}, nil
}

// readTar reads a root file system, or a container image with one, in a tar
// archive.
func (i *Image) readTar(in input) error {
	entries, err := tree.ReadTar(in.r, in.size)
	if err != nil {
		return err
	}
	f := tree.NewFS(entries)
	for _, name := range []string{"manifest.json", "oci-layout"} {
		if _, err := f.Lookup(name); err == nil {
			return i.readContainerImage(f)
		}
	}
	if e, err := f.Lookup("initrd.img"); err == nil && e.Type == tree.File && len(entries) <= 4 {
		return i.readBootArchive(f)
	}
	i.Kind = "tar archive"
	return i.readRoot("tar", entries)
}

// readBootArchive reads an archive with a kernel, an initramfs and a command line.
func (i *Image) readBootArchive(f *tree.FS) error {
	i.Kind = "tar archive with kernel and initramfs"
	v := treeVolume{f}
	if content, err := v.Content("cmdline"); err == nil {
		text, err := readText(content, content.Size())
		if err != nil {
			return err
		}
		i.Cmdline = strings.TrimRight(text, "\n")
	}
	if content, err := v.Content("kernel"); err == nil {
		i.setKernel("kernel", content, content.Size())
	}
	var initrds []archive
	for _, name := range []string{"ucode.cpio", "initrd.img"} {
		if content, err := v.Content(name); err == nil {
			initrds = append(initrds, archive{name, content, content.Size()})
		}
	}
	return i.readInitramfs(initrds)
}
