package format

import (
	"os"
	"path/filepath"

	"github.com/slipway-build/slipway/exporter/output"
)

// kernelInitrd writes NAME-kernel, NAME-initrd.img and NAME-cmdline, which QEMU
// and network boot loaders take. As LinuxKit, it leaves out a kernel or command
// line that is empty.
func kernelInitrd(m Machine, out string, _ func(string)) ([]string, error) {
	var files []string
	name := func(suffix string) string {
		files = append(files, filepath.Join(out, m.Name+suffix))
		return files[len(files)-1]
	}
	if m.Kernel != "" {
		if err := copyFile(name("-kernel"), m.Kernel); err != nil {
			return nil, err
		}
	}
	if err := copyFile(name("-initrd.img"), m.Initrd); err != nil {
		return nil, err
	}
	if m.Cmdline != "" {
		err := output.File(name("-cmdline"), func(f *os.File) error {
			_, err := f.WriteString(m.Cmdline)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return files, nil
}
