package format

import (
	"archive/tar"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/slipway-build/slipway/exporter/output"
	"github.com/slipway-build/slipway/exporter/sparse"
)

// kernelInitrd writes NAME-kernel, NAME-initrd.img and NAME-cmdline, which QEMU
// and network boot loaders take. As LinuxKit, it leaves out a kernel or command
// line that is empty.
func kernelInitrd(m Machine, out string, _ func(string)) ([]string, error) {
	var opened sparse.Files
	defer opened.Close()
	parts, err := m.initrd(m.Ucode, &opened)
	if err != nil {
		return nil, err
	}
	return m.writeBoot(out, parts)
}

// writeBoot writes NAME-kernel, NAME-initrd.img and NAME-cmdline, of which it
// leaves out what is empty.
func (m Machine) writeBoot(out string, initrd []sparse.Content) ([]string, error) {
	var opened sparse.Files
	defer opened.Close()
	images := map[string]sparse.Content{"-initrd.img": sparse.Concat(initrd...), "-cmdline": sparse.Bytes([]byte(m.Cmdline))}
	if m.Kernel != "" {
		var err error
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

// tarKernelInitrd writes NAME-initrd.tar with kernel, initrd.img, cmdline and
// ucode.cpio, of which it leaves out what is empty. The microcode is not in
// initrd.img as well.
func tarKernelInitrd(m Machine, out string, _ func(string)) ([]string, error) {
	var opened sparse.Files
	defer opened.Close()
	parts, err := m.initrd("", &opened)
	if err != nil {
		return nil, err
	}
	images := map[string]sparse.Content{"initrd.img": sparse.Concat(parts...), "cmdline": sparse.Bytes([]byte(m.Cmdline))}
	for name, file := range map[string]string{"kernel": m.Kernel, "ucode.cpio": m.Ucode} {
		if file == "" {
			continue
		}
		image, err := opened.Open(file)
		if err != nil && (name == "kernel" || !errors.Is(err, fs.ErrNotExist)) {
			return nil, err
		}
		images[name] = image
	}
	name := filepath.Join(out, m.Name+"-initrd.tar")
	return []string{name}, output.File(name, func(f *os.File) error {
		archive := tar.NewWriter(f)
		for _, name := range []string{"kernel", "initrd.img", "cmdline", "ucode.cpio"} {
			image := images[name]
			if image.Size == 0 {
				continue
			}
			err := archive.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: image.Size, ModTime: m.Time})
			if err != nil {
				return err
			}
			if _, err := io.Copy(archive, image.Reader()); err != nil {
				return err
			}
		}
		return archive.Close()
	})
}
