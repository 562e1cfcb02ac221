package format

import (
	"os"

	"github.com/slipway-build/slipway/exporter/segment"
	"github.com/slipway-build/slipway/exporter/sparse"
)

// Suffixes of the files that QEMU and network boot loaders take.
const (
	KernelSuffix  = "-kernel"
	InitrdSuffix  = "-initrd.img"
	CmdlineSuffix = "-cmdline"
)

// bootSuffixes returns the suffixes of the files that writeBoot writes.
func bootSuffixes() []string { return []string{KernelSuffix, InitrdSuffix, CmdlineSuffix} }

func init() {
	register(Format{
		Name:        "kernel+initrd",
		Description: "kernel, initramfs and kernel command line as files",
		Suffixes:    bootSuffixes(),
		Segments:    segment.CPIO,
		writer:      kernelInitrdWriter{},
	})
}

type kernelInitrdWriter struct{}

func (kernelInitrdWriter) write(j *job) error {
	initrd, err := j.initrd(j.in.Ucode)
	if err != nil {
		return err
	}
	return j.writeBoot(initrd)
}

// writeBoot writes the kernel, an initramfs and the kernel command line. Like
// LinuxKit, it omits those that are empty.
func (j *job) writeBoot(initrd []sparse.Content) error {
	var kernel sparse.Content
	if j.in.Kernel != "" {
		var err error
		if kernel, err = j.opened.Open(j.in.Kernel); err != nil {
			return err
		}
	}
	for _, file := range []struct {
		suffix  string
		content sparse.Content
	}{
		{KernelSuffix, kernel},
		{InitrdSuffix, sparse.Concat(initrd...)},
		{CmdlineSuffix, sparse.Bytes([]byte(j.in.Cmdline))},
	} {
		if file.content.Size == 0 {
			continue
		}
		if err := j.create(file.suffix, func(f *os.File) error { return file.content.WriteFile(f) }); err != nil {
			return err
		}
	}
	return nil
}
