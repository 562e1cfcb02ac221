package format

import (
	"fmt"

	"github.com/slipway-build/slipway/exporter/disk"
	"github.com/slipway-build/slipway/exporter/segment"
	"github.com/slipway-build/slipway/exporter/sparse"
)

// initrd opens the parts of the initramfs. The first is the microcode, if its
// name is not empty and the file exists.
func (j *job) initrd(microcode string) ([]sparse.Content, error) {
	parts, err := segment.Initrd(microcode, j.in.Segments, j.in.Starts)
	if err != nil {
		return nil, err
	}
	return j.openParts(parts)
}

// openParts opens parts of the initramfs, and aligns what follows each.
func (j *job) openParts(parts []segment.Part) ([]sparse.Content, error) {
	var images []sparse.Content
	for _, p := range parts {
		image := sparse.Bytes(p.Data)
		if p.File != "" {
			var err error
			if image, err = j.opened.Open(p.File); err != nil {
				return nil, err
			}
		}
		images = append(images, image.Pad(segment.PartAlignment))
	}
	return images, nil
}

// kernel opens the kernel and reads the boot loaders.
func (j *job) kernel() (disk.Contents, disk.Loaders, error) {
	c := disk.Contents{Cmdline: j.in.Cmdline, Signer: j.in.Signer}
	loaders, err := disk.ReadLoaders(j.in.Loaders, j.in.Architecture)
	if err != nil {
		return c, loaders, err
	}
	c.Kernel, err = j.opened.Open(j.in.Kernel)
	return c, loaders, err
}

// kernelAndInitrd opens all that a machine boots and reads the boot loaders.
func (j *job) kernelAndInitrd() (disk.Contents, disk.Loaders, error) {
	c, loaders, err := j.kernel()
	if err == nil {
		c.Initrd, err = j.initrd(j.in.Ucode)
		c = c.ReserveInitrd(j.in.Reserve)
	}
	return c, loaders, err
}

// warnGRUB warns if GRUB passes another command line to the kernel than the
// machine has.
func (j *job) warnGRUB(cmdline string) {
	if j.format.FirmwareOn(j.in.Architecture).Has(BIOS) && cmdline != j.in.Cmdline {
		j.warn(fmt.Sprintf("under BIOS, GRUB passes the kernel command line on as: %s", cmdline))
	}
}
