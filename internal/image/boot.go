package image

import (
	"errors"
	"fmt"
	"io"

	"github.com/slipway-build/slipway/exporter/sparse"
)

// Boot is what a machine starts with.
type Boot struct {
	Kernel, Initrd sparse.Content
	Cmdline        string
	Architecture   string // as in GOARCH; "" if the kernel does not say
}

// OpenBoot is like [OpenReader], but does not unpack an initramfs: the image has
// no Root and no Initramfs.
func OpenBoot(name string, r io.ReaderAt, size int64) (*Image, error) {
	i := &Image{Name: name, bootOnly: true}
	if err := i.read([]input{{name: name, r: r, size: size}}); err != nil {
		i.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return i, nil
}

// Boot returns the kernel of an image with all parts of its initramfs. It is valid
// until the image is closed. It fails if the root file system is not in an
// initramfs.
func (i *Image) Boot() (Boot, error) {
	switch {
	case i.Kernel == nil:
		return Boot{}, errors.New("it has no kernel")
	case len(i.archives) == 0:
		return Boot{}, errors.New("its root file system is not in an initramfs")
	}
	b := Boot{Kernel: sparse.FromReader(i.kernel, i.Kernel.Size), Cmdline: i.Cmdline, Architecture: i.Kernel.Architecture}
	var parts []sparse.Content
	for _, a := range i.archives {
		parts = append(parts, sparse.FromReader(a.r, a.size).Pad(initrdAlignment))
	}
	b.Initrd = sparse.Concat(parts...)
	return b, nil
}

// initrdAlignment is that of archives of an initramfs that follow each other, in
// bytes: Linux, Documentation/driver-api/early-userspace/buffer-format.rst.
const initrdAlignment = 4
