package format

import (
	"os"

	"github.com/slipway-build/slipway/exporter/squashfs"
	"github.com/slipway-build/slipway/exporter/tree"
)

func init() { registerRoot(squashfsRoot) }

var squashfsRoot = rootFS{
	name:    "SquashFS",
	kind:    "squashfs",
	needs:   []string{"squashfs"},
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
