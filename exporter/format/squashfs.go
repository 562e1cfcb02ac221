package format

import (
	"os"

	"github.com/slipway-build/slipway/exporter/segment"
	"github.com/slipway-build/slipway/exporter/squashfs"
	"github.com/slipway-build/slipway/exporter/tree"
)

func init() {
	register(Format{
		Name:        "kernel+squashfs",
		Description: "kernel, command line and root filesystem as SquashFS; initramfs if the kernel needs modules for it",
		Suffixes:    append(bootSuffixes(), "-squashfs.img"),
		Segments:    segment.Tar,
		Options:     Compression,
		writer:      rootWriter{squashfsRoot},
	})
}

var squashfsRoot = rootFS{
	name:    "SquashFS",
	kind:    "squashfs",
	module:  "squashfs",
	drivers: []string{"virtio_blk", "nvme"},
	encoder: squashfsEncoder{},
}

type squashfsEncoder struct{}

func (squashfsEncoder) supportsXattr(xattr string) bool { return squashfs.SupportsXattr(xattr) }

func (squashfsEncoder) encodeRoot(f *os.File, entries []tree.Entry, j *job) error {
	c := j.in.Compression
	_, err := squashfs.Write(f, entries, squashfs.Options{Compression: c.Algorithm, Level: c.Level, Time: j.in.Time})
	return err
}
