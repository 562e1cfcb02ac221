package format

import (
	"path/filepath"

	"github.com/slipway-build/slipway/exporter/sparse"
)

// kernelInitrd writes NAME-kernel, NAME-initrd.img and NAME-cmdline, which QEMU
// and network boot loaders take. As LinuxKit, it leaves out a kernel or command
// line that is empty.
func kernelInitrd(m Machine, out string, _ func(string)) ([]string, error) {
	var opened sparse.Files
	defer opened.Close()
	parts, err := m.initrd(&opened)
	if err != nil {
		return nil, err
	}
	images := map[string]sparse.Image{"-initrd.img": sparse.Concat(parts...), "-cmdline": sparse.Bytes([]byte(m.Cmdline))}
	if m.Kernel != "" {
		if images["-kernel"], err = opened.Open(m.Kernel); err != nil {
			return nil, err
		}
	}
	var files []string
	for _, suffix := range []string{"-kernel", "-initrd.img", "-cmdline"} {
		if images[suffix].Size == 0 {
			continue
		}
		name := filepath.Join(out, m.Name+suffix)
		if err := writeImage(name, images[suffix]); err != nil {
			return nil, err
		}
		files = append(files, name)
	}
	return files, nil
}
