package format

import (
	"archive/tar"
	"errors"
	"io"
	"io/fs"
	"os"

	"github.com/slipway-build/slipway/exporter/segment"
	"github.com/slipway-build/slipway/exporter/sparse"
)

func init() {
	register(Format{
		Name:        "tar-kernel-initrd",
		Description: "kernel, initramfs, kernel command line and microcode in a tar archive",
		Suffixes:    []string{"-initrd.tar"},
		Segments:    segment.CPIO,
		writer:      tarKernelInitrdWriter{},
	})
}

// tarKernelInitrdWriter writes an archive with the files kernel, initrd.img,
// cmdline and ucode.cpio, without those that are empty. The microcode is not
// part of initrd.img.
type tarKernelInitrdWriter struct{}

func (tarKernelInitrdWriter) write(j *job) error {
	initrd, err := j.initrd("")
	if err != nil {
		return err
	}
	var kernel, microcode sparse.Content
	if j.in.Kernel != "" {
		if kernel, err = j.opened.Open(j.in.Kernel); err != nil {
			return err
		}
	}
	if j.in.Ucode != "" {
		microcode, err = j.opened.Open(j.in.Ucode)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return j.createOnly(func(f *os.File) error {
		archive := tar.NewWriter(f)
		for _, file := range []struct {
			name    string
			content sparse.Content
		}{
			{"kernel", kernel},
			{"initrd.img", sparse.Concat(initrd...)},
			{"cmdline", sparse.Bytes([]byte(j.in.Cmdline))},
			{"ucode.cpio", microcode},
		} {
			if file.content.Size == 0 {
				continue
			}
			header := &tar.Header{Name: file.name, Typeflag: tar.TypeReg, Mode: 0o644, Size: file.content.Size, ModTime: j.in.Time}
			if err := archive.WriteHeader(header); err != nil {
				return err
			}
			if _, err := io.Copy(archive, file.content.Reader()); err != nil {
				return err
			}
		}
		return archive.Close()
	})
}
