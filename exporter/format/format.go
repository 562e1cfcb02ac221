// Package format writes the output formats of a machine.
//
// A format is a line in the table exporter.Formats, and a function of its own file
// that takes a Machine and writes files into a directory. The bytes of a file
// depend on the Machine alone.
package format

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/slipway-build/slipway/exporter"
	"github.com/slipway-build/slipway/exporter/disk"
	"github.com/slipway-build/slipway/exporter/output"
	"github.com/slipway-build/slipway/exporter/segment"
	"github.com/slipway-build/slipway/exporter/sparse"
)

// Machine is what there is to write.
type Machine struct {
	Name    string // prefix of the output files
	Kernel  string // file name; "" for none
	Cmdline string // kernel command line
	Ucode   string // file name of the microcode; "" or a missing file for none
	// Segments are what the root filesystem is made of: cpio archives, or tar
	// archives where the table says so.
	Segments     []segment.Dir
	Architecture string // as GOARCH
	// Size of a disk in bytes; 0 for the smallest that fits. Formats that
	// are no disk do not look at it.
	Size    int64
	Map     bool      // write the map of a disk beside it
	Loaders string    // directory of the boot loaders, as disk.ReadLoaders takes it
	Time    time.Time // for formats that store times
	// Compression is for formats that compress themselves.
	Compression segment.Compression
}

// writer writes a format. It returns the files it wrote.
type writer func(m Machine, out string, warn func(string)) ([]string, error)

// writers has one for each of exporter.Formats.
var writers = map[string]writer{
	"kernel+initrd":     kernelInitrd,
	"tar-kernel-initrd": tarKernelInitrd,
	"raw":               onDisk(disk.Hybrid, raw, ".raw"),
	"raw-bios":          onDisk(disk.BIOS, raw, "-bios.img"),
	"raw-efi":           onDisk(disk.UKI, raw, "-efi.img"),
	"aws":               onDisk(disk.Hybrid, raw, ".raw"),
	"gcp":               gcp,
	"qcow2":             onDisk(disk.Hybrid, asQcow2, ".qcow2"),
	"qcow2-bios":        onDisk(disk.BIOS, asQcow2, ".qcow2"),
	"qcow2-efi":         onDisk(disk.UKI, asQcow2, "-efi.qcow2"),
	"vhd":               onDisk(disk.Hybrid, fixedVHD, ".vhd"),
	"dynamic-vhd":       onDisk(disk.Hybrid, dynamicVHD, ".vhd"),
	"vmdk":              onDisk(disk.Hybrid, asVMDK, ".vmdk"),
	"uki":               bareUKI,
	"iso":               cdInitrd(disk.CD{BIOS: true, UEFI: true, Disk: true}, ".iso"),
	"iso-bios":          cdRoot(disk.CD{BIOS: true}, ".iso"),
	"iso-efi":           cdRoot(disk.CD{UEFI: true}, "-efi.iso"),
	"iso-efi-initrd":    cdInitrd(disk.CD{UEFI: true}, "-efi-initrd.iso"),
	"kernel+squashfs":   kernelRoot(squashfsRoot, "-squashfs.img"),
	"kernel+erofs":      kernelRoot(erofsRoot, "-erofs.img"),
	"kernel+iso":        kernelRoot(isoRoot, ".iso"),
	"tar":               tarball,
	"docker":            imageTarball,
}

// Names lists all formats, the default first.
func Names() []string {
	var names []string
	for _, f := range exporter.Formats {
		names = append(names, f.Name)
	}
	return names
}

// Write writes a format into the directory out and returns the names of its
// files. If it fails, none of these is incomplete.
func Write(format string, m Machine, out string, warn func(string)) ([]string, error) {
	i := slices.Index(Names(), format)
	if i < 0 {
		return nil, fmt.Errorf("unknown format %q; the formats are %s", format, strings.Join(Names(), ", "))
	}
	if err := exporter.Formats[i].Check(m.Architecture); err != nil {
		return nil, err
	}
	if len(m.Segments) == 0 {
		return nil, errors.New("no segments are given")
	}
	if m.Name == "" || filepath.Base(m.Name) != m.Name || strings.HasPrefix(m.Name, ".") {
		return nil, fmt.Errorf("name %q cannot be the start of a file name", m.Name)
	}
	files, err := writers[format](m, out, warn)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", format, err)
	}
	return files, nil
}

// writeImage makes a file with the content of an image.
func writeImage(name string, image sparse.Content) error {
	return output.File(name, image.WriteFile)
}

// initrd opens the parts of the initramfs, the microcode first if there is any.
func (m Machine) initrd(ucode string, opened *sparse.Files) ([]sparse.Content, error) {
	parts, err := segment.Initrd(ucode, m.Segments)
	if err != nil {
		return nil, err
	}
	var images []sparse.Content
	for _, p := range parts {
		image := sparse.Bytes(p.Data)
		if p.File != "" {
			if image, err = opened.Open(p.File); err != nil {
				return nil, err
			}
		}
		images = append(images, image.Pad(segment.PartAlignment))
	}
	return images, nil
}
