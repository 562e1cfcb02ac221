package format

import (
	"path/filepath"

	"github.com/slipway-build/slipway/exporter/disk"
	"github.com/slipway-build/slipway/exporter/output"
	"github.com/slipway-build/slipway/exporter/sparse"
	"github.com/slipway-build/slipway/exporter/tree"
)

// cdInitrd writes a CD that boots the initramfs, to NAME and suffix.
func cdInitrd(cd disk.CD, suffix string) writer {
	return func(m Machine, out string, warn func(string)) ([]string, error) {
		var opened sparse.Files
		defer opened.Close()
		c, loaders, err := m.contents(&opened)
		if err != nil {
			return nil, err
		}
		return m.writeCD(cd, c, nil, loaders, filepath.Join(out, m.Name+suffix), warn)
	}
}

// cdRoot writes a CD that holds the root filesystem, to NAME and suffix.
func cdRoot(cd disk.CD, suffix string) writer {
	return func(m Machine, out string, warn func(string)) ([]string, error) {
		m = m.onCDRoot()
		entries, close, err := m.tree()
		if err != nil {
			return nil, err
		}
		defer close()
		entries = isoRoot.prepare(entries, warn)
		var opened sparse.Files
		defer opened.Close()
		c, loaders, err := m.kernelAndLoaders(&opened)
		if err != nil {
			return nil, err
		}
		if c.Initrd, err = m.startup(entries, isoRoot, &opened); err != nil {
			return nil, err
		}
		return m.writeCD(cd, c, entries, loaders, filepath.Join(out, m.Name+suffix), warn)
	}
}

func (m Machine) writeCD(cd disk.CD, c disk.Contents, root []tree.Entry, l disk.Loaders, name string, warn func(string)) ([]string, error) {
	cd.BIOS = cd.BIOS && m.Architecture == "amd64" // others have none
	d, err := disk.NewCD(cd, c, root, l, m.Time)
	if err != nil {
		return nil, err
	}
	if cd.BIOS && d.BIOSCmdline != m.Cmdline {
		warn("under BIOS, GRUB passes the kernel command line on as: " + d.BIOSCmdline)
	}
	return []string{name}, output.File(name, d.WriteFile)
}
