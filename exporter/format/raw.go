package format

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/slipway-build/slipway/exporter/disk"
	"github.com/slipway-build/slipway/exporter/output"
	"github.com/slipway-build/slipway/exporter/sparse"
)

// raw writes NAME.raw, a disk for BIOS and UEFI, and its map if wanted.
func raw(m Machine, out string, warn func(string)) ([]string, error) {
	if m.Architecture != "amd64" {
		return nil, fmt.Errorf("there is no disk for %s yet: use kernel+initrd", m.Architecture)
	}
	if m.Kernel == "" {
		return nil, errors.New("a disk needs a kernel: set kernel.image in the machine")
	}
	loaders, err := disk.ReadLoaders(m.Loaders)
	if err != nil {
		return nil, err
	}
	var opened sparse.Files
	defer opened.Close()
	contents := disk.Contents{Cmdline: m.Cmdline}
	if contents.Kernel, err = opened.Open(m.Kernel); err != nil {
		return nil, err
	}
	if contents.Initrd, err = m.initrd(&opened); err != nil {
		return nil, err
	}
	d, err := disk.New(contents, loaders, m.Size, m.Time)
	if err != nil {
		return nil, err
	}
	if d.BIOSCmdline != m.Cmdline {
		warn("under BIOS, GRUB passes the kernel command line on as: " + d.BIOSCmdline)
	}
	files := []string{filepath.Join(out, m.Name+".raw")}
	if err := writeImage(files[0], d.Image); err != nil || !m.Map {
		return files, err
	}
	files = append(files, files[0]+".map")
	return files, output.File(files[1], func(f *os.File) error { return d.Map().Write(f) })
}
