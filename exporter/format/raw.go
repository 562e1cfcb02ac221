package format

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/slipway-build/slipway/exporter/disk"
	"github.com/slipway-build/slipway/exporter/output"
)

// raw writes NAME.raw, a disk for BIOS and UEFI.
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
	contents := disk.Contents{Cmdline: m.Cmdline}
	if contents.Kernel, err = blob(m.Kernel); err != nil {
		return nil, err
	}
	if contents.Initrd, err = blob(m.Initrd); err != nil {
		return nil, err
	}
	d, err := disk.New(contents, loaders, m.Size, m.Time)
	if err != nil {
		return nil, err
	}
	if bios := d.BIOSCmdline(); bios != m.Cmdline {
		warn("under BIOS, GRUB passes the kernel command line on as: " + bios)
	}
	name := filepath.Join(out, m.Name+".raw")
	return []string{name}, output.File(name, func(f *os.File) error {
		if err := f.Truncate(d.Size()); err != nil {
			return err
		}
		return d.Write(f)
	})
}

func blob(name string) (disk.Blob, error) {
	info, err := os.Stat(name)
	if err != nil {
		return disk.Blob{}, err
	}
	return disk.Blob{Size: info.Size(), Open: func() (io.ReadCloser, error) { return os.Open(name) }}, nil
}
