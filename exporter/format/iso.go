package format

import (
	"os"

	"github.com/slipway-build/slipway/exporter/disk"
	"github.com/slipway-build/slipway/exporter/iso9660"
	"github.com/slipway-build/slipway/exporter/segment"
	"github.com/slipway-build/slipway/exporter/tree"
	"github.com/slipway-build/slipway/internal/kernel/cmdline"
)

const isoSuffix = ".iso"

func init() {
	register(
		Format{
			Name:        "iso",
			Description: "CD that boots under BIOS and UEFI, from the drive or copied to a disk",
			Suffixes:    []string{isoSuffix},
			Segments:    segment.CPIO,
			Firmware:    BIOS | UEFI,
			Options:     Reserve,
			writer:      cdWriter{disk: true},
		},
		Format{
			Name:        "iso-bios",
			Description: "CD that boots under BIOS, with the root filesystem on it",
			Suffixes:    []string{isoSuffix},
			Segments:    segment.Tar,
			Firmware:    BIOS,
			Options:     Compression | Reserve,
			writer:      cdWriter{root: true},
		},
		Format{
			Name:        "iso-efi",
			Description: "CD that boots under UEFI, with the root filesystem on it",
			Suffixes:    []string{"-efi.iso"},
			Segments:    segment.Tar,
			Firmware:    UEFI,
			Options:     Compression | Reserve,
			writer:      cdWriter{root: true},
		},
		Format{
			Name:        "iso-efi-initrd",
			Description: "CD that boots under UEFI",
			Suffixes:    []string{"-efi-initrd.iso"},
			Segments:    segment.CPIO,
			Firmware:    UEFI,
			Options:     Reserve,
			writer:      cdWriter{},
		},
		Format{
			Name:        "kernel+iso",
			Description: "kernel, command line and root filesystem as ISO 9660; initramfs if the kernel needs modules for it",
			Suffixes:    append(bootSuffixes(), isoSuffix),
			Segments:    segment.Tar,
			Options:     Compression,
			writer:      rootWriter{isoRoot},
		},
	)
}

// cdWriter writes a CD.
type cdWriter struct {
	disk bool // boots from a disk to which it is copied, too
	root bool // holds the root filesystem, not an initramfs
}

func (w cdWriter) write(j *job) error {
	contents, root, loaders, err := w.open(j)
	if err != nil {
		return err
	}
	on := j.format.FirmwareOn(j.in.Architecture)
	cd := disk.CD{BIOS: on.Has(BIOS), UEFI: on.Has(UEFI), Disk: w.disk}
	d, err := disk.NewCD(cd, contents, root, loaders, j.in.Time)
	if err != nil {
		return err
	}
	j.warnGRUB(d.BIOSCmdline)
	return j.createOnly(d.WriteFile)
}

// open opens what the CD holds. Its root filesystem is empty if the CD has an
// initramfs.
func (w cdWriter) open(j *job) (c disk.Contents, root []tree.Entry, l disk.Loaders, err error) {
	if !w.root {
		c, l, err = j.kernelAndInitrd()
		return c, nil, l, err
	}
	j.in.Cmdline = cdCmdline(j.in.Cmdline, j.in.Architecture)
	if root, err = j.tree(true); err != nil {
		return c, nil, l, err
	}
	if j.in.Reserve > 0 {
		if root, err = disk.ReserveTree(root, j.in.Reserve); err != nil {
			return c, nil, l, err
		}
	}
	root = isoRoot.prepare(root, j.warn)
	if c, l, err = j.kernel(); err != nil {
		return c, nil, l, err
	}
	c.Initrd, err = j.startup(root, isoRoot)
	c.Reserve = j.in.Reserve
	return c, root, l, err
}

// cdCmdline adds the root= parameter that LinuxKit uses for CDs to a kernel
// command line that has none. It comes first because the kernel ignores what
// follows "--".
func cdCmdline(line, architecture string) string {
	if _, ok := cmdline.Lookup(cmdline.Parse(line), "root"); ok {
		return line
	}
	root := "root=/dev/sr0"
	if architecture == "arm64" {
		root = "root=/dev/vda"
	}
	if line == "" {
		return root
	}
	return root + " " + line
}

var isoRoot = rootFS{
	name:    "ISO 9660",
	kind:    "iso9660",
	needs:   []string{"isofs"},
	drivers: []string{"sr_mod"},
	encoder: isoEncoder{},
}

type isoEncoder struct{}

func (isoEncoder) supportsXattr(string) bool { return false }

func (isoEncoder) encodeRoot(f *os.File, entries []tree.Entry, j *job) error {
	volume, err := iso9660.New(entries, iso9660.Options{Label: disk.CDLabel, Time: j.in.Time})
	if err != nil {
		return err
	}
	image, err := volume.Image()
	if err != nil {
		return err
	}
	return image.WriteFile(f)
}
