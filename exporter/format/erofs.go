package format

import (
	"os"

	"github.com/slipway-build/slipway/exporter/erofs"
	"github.com/slipway-build/slipway/exporter/tree"
)

func init() { registerRoot(erofsRoot) }

var erofsRoot = rootFS{
	name:    "EROFS",
	kind:    "erofs",
	needs:   []string{"erofs"},
	drivers: []string{"virtio_blk", "nvme"},
	encoder: erofsEncoder{},
}

type erofsEncoder struct{}

func (erofsEncoder) supportsXattr(xattr string) bool { return erofs.SupportsXattr(xattr) }

func (erofsEncoder) encodeRoot(f *os.File, entries []tree.Entry, j *job) error {
	image, err := erofs.New(entries, j.in.Time)
	if err != nil {
		return err
	}
	return image.WriteFile(f)
}
