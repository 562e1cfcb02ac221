// Package exporter names the formats that a machine can be written in. The
// packages below it write them.
package exporter

import "fmt"

// Format is one kind of output. The table is the only place that lists them:
// the frontend's targets, its documentation and the exporter read it.
type Format struct {
	Name        string   // as in --target
	Description string   // one line
	Files       []string // what is written; NAME stands for the prefix
	Disk        bool     // has a size that the user may choose
	Map         bool     // has a map, NAME.raw.map, if the user wants it
	Loaders     bool     // needs the boot loaders
	Tree        bool     // is made of the tree (tar segments), not of the initramfs
	BIOS        bool     // boots under BIOS alone, which amd64 has
	Image       bool     // is an image of a container, made of the tar archive that is written
	Compressed  bool     // compresses what it is made of, as the user wants it
}

// Check returns an error if there is no such format for machines of an
// architecture, as GOARCH spells it.
func (f Format) Check(architecture string) error {
	switch {
	case f.BIOS && architecture != "amd64":
		return fmt.Errorf("%s is for machines with a BIOS, which %s has not: use a format for UEFI, such as raw or raw-efi", f.Name, architecture)
	case f.Loaders && architecture != "amd64" && architecture != "arm64":
		return fmt.Errorf("%s needs a boot loader, and there is none for %s: use kernel+initrd", f.Name, architecture)
	}
	return nil
}

// Formats lists every output format, the default first.
var Formats = []Format{
	{
		Name:        "kernel+initrd",
		Description: "kernel, initramfs and kernel command line as files",
		Files:       []string{"NAME-kernel", "NAME-initrd.img", "NAME-cmdline"},
	},
	{
		Name:        "tar-kernel-initrd",
		Description: "kernel, initramfs, kernel command line and microcode in a tar archive",
		Files:       []string{"NAME-initrd.tar"},
	},
	{
		Name:        "raw",
		Description: "GPT disk that boots under BIOS and UEFI",
		Files:       []string{"NAME.raw"},
		Disk:        true,
		Map:         true,
		Loaders:     true,
	},
	{
		Name:        "raw-bios",
		Description: "GPT disk that boots under BIOS",
		Files:       []string{"NAME-bios.img"},
		Disk:        true,
		Map:         true,
		Loaders:     true,
		BIOS:        true,
	},
	{
		Name:        "raw-efi",
		Description: "GPT disk with a unified kernel image, which UEFI boots",
		Files:       []string{"NAME-efi.img"},
		Disk:        true,
		Map:         true,
		Loaders:     true,
	},
	{
		Name:        "aws",
		Description: "raw, for EC2",
		Files:       []string{"NAME.raw"},
		Disk:        true,
		Map:         true,
		Loaders:     true,
	},
	{
		Name:        "gcp",
		Description: "raw as disk.raw in a compressed tar archive, for Google Compute Engine",
		Files:       []string{"NAME.img.tar.gz"},
		Disk:        true,
		Loaders:     true,
	},
	{
		Name:        "qcow2",
		Description: "raw, for QEMU",
		Files:       []string{"NAME.qcow2"},
		Disk:        true,
		Loaders:     true,
	},
	{
		Name:        "qcow2-bios",
		Description: "raw-bios, for QEMU",
		Files:       []string{"NAME.qcow2"},
		Disk:        true,
		Loaders:     true,
		BIOS:        true,
	},
	{
		Name:        "qcow2-efi",
		Description: "raw-efi, for QEMU",
		Files:       []string{"NAME-efi.qcow2"},
		Disk:        true,
		Loaders:     true,
	},
	{
		Name:        "vhd",
		Description: "raw as a fixed VHD, for Azure",
		Files:       []string{"NAME.vhd"},
		Disk:        true,
		Loaders:     true,
	},
	{
		Name:        "dynamic-vhd",
		Description: "raw as a dynamic VHD, for Hyper-V",
		Files:       []string{"NAME.vhd"},
		Disk:        true,
		Loaders:     true,
	},
	{
		Name:        "vmdk",
		Description: "raw as a stream-optimized VMDK, for VMware",
		Files:       []string{"NAME.vmdk"},
		Disk:        true,
		Loaders:     true,
	},
	{
		Name:        "uki",
		Description: "unified kernel image: a program for UEFI with all that it boots",
		Files:       []string{"NAME.efi"},
		Loaders:     true,
	},
	{
		Name:        "iso",
		Description: "CD that boots under BIOS and UEFI, from the drive or copied to a disk",
		Files:       []string{"NAME.iso"},
		Loaders:     true,
	},
	{
		Name:        "iso-bios",
		Description: "CD that boots under BIOS, with the root filesystem on it",
		Files:       []string{"NAME.iso"},
		Loaders:     true,
		Tree:        true,
		BIOS:        true,
		Compressed:  true,
	},
	{
		Name:        "iso-efi",
		Description: "CD that boots under UEFI, with the root filesystem on it",
		Files:       []string{"NAME-efi.iso"},
		Loaders:     true,
		Tree:        true,
		Compressed:  true,
	},
	{
		Name:        "iso-efi-initrd",
		Description: "CD that boots under UEFI",
		Files:       []string{"NAME-efi-initrd.iso"},
		Loaders:     true,
	},
	{
		Name:        "kernel+squashfs",
		Description: "kernel, command line and root filesystem as SquashFS; initramfs if the kernel needs modules for it",
		Files:       []string{"NAME-kernel", "NAME-initrd.img", "NAME-cmdline", "NAME-squashfs.img"},
		Tree:        true,
		Compressed:  true,
	},
	{
		Name:        "kernel+erofs",
		Description: "kernel, command line and root filesystem as EROFS; initramfs if the kernel needs modules for it",
		Files:       []string{"NAME-kernel", "NAME-initrd.img", "NAME-cmdline", "NAME-erofs.img"},
		Tree:        true,
		Compressed:  true,
	},
	{
		Name:        "kernel+iso",
		Description: "kernel, command line and root filesystem as ISO 9660; initramfs if the kernel needs modules for it",
		Files:       []string{"NAME-kernel", "NAME-initrd.img", "NAME-cmdline", "NAME.iso"},
		Tree:        true,
		Compressed:  true,
	},
	{
		Name:        "tar",
		Description: "root filesystem as a tar archive",
		Files:       []string{"NAME.tar"},
		Tree:        true,
	},
	{
		Name:        "docker",
		Description: "image of a container with the root filesystem, for --output type=docker, oci or image",
		Tree:        true,
		Image:       true,
	},
}

// Version of the bytes of formats. It changes when the same machine is written
// with other bytes than before, in any format.
const Version = 1

// Epoch is the time that files are given where SOURCE_DATE_EPOCH is not set,
// in seconds since 1970: 1980-01-01, the first that FAT can hold.
const Epoch int64 = 315532800
