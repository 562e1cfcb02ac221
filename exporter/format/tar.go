package format

import (
	"os"
	"path/filepath"

	"github.com/slipway-build/slipway/exporter/output"
	"github.com/slipway-build/slipway/exporter/segment"
	"github.com/slipway-build/slipway/exporter/tree"
)

// tarball writes NAME.tar, the root filesystem with what boots it in boot/.
func tarball(m Machine, out string, _ func(string)) ([]string, error) {
	entries, close, err := m.tree()
	if err != nil {
		return nil, err
	}
	defer close()
	return m.writeTar(out, entries)
}

// imageTarball writes NAME.tar, the root filesystem of a container.
func imageTarball(m Machine, out string, _ func(string)) ([]string, error) {
	entries, close, err := segment.Tree(m.Segments, nil)
	if err != nil {
		return nil, err
	}
	defer close()
	return m.writeTar(out, entries)
}

func (m Machine) writeTar(out string, entries []tree.Entry) ([]string, error) {
	name := filepath.Join(out, m.Name+".tar")
	return []string{name}, output.File(name, func(f *os.File) error {
		return tree.WriteTar(f, entries, m.Time)
	})
}

// tree gives the root filesystem of the machine. Contents can be opened until
// close is called.
func (m Machine) tree() (entries []tree.Entry, close func(), err error) {
	var boot *segment.Boot
	if m.Kernel != "" {
		boot = &segment.Boot{Kernel: m.Kernel, Ucode: m.Ucode, Cmdline: m.Cmdline}
	}
	return segment.Tree(m.Segments, boot)
}
