package format

import (
	"github.com/slipway-build/slipway/exporter/disk"
	"github.com/slipway-build/slipway/exporter/erofs"
	"github.com/slipway-build/slipway/exporter/segment"
)

func init() {
	register(Format{
		Name:        "raw-verity",
		Description: "GPT disk with a unified kernel image, which UEFI boots, and a root filesystem that dm-verity verifies",
		Suffixes:    []string{"-verity.img"},
		Segments:    segment.Tar,
		Firmware:    UEFI,
		Options:     Size | Map | Compression | PCRs,
		writer:      verityWriter{},
	})
}

// verityRoot is EROFS: it has the form of the blocks that dm-verity verifies, and
// needs no memory for decompressed ones.
var verityRoot = rootFS{
	name:    erofsRoot.name,
	kind:    erofsRoot.kind,
	needs:   append([]string{"dm_verity"}, erofsRoot.needs...),
	drivers: erofsRoot.drivers,
	encoder: erofsEncoder{},
	verity:  true,
}

type verityWriter struct{}

func (verityWriter) write(j *job) error {
	entries, err := j.tree(false)
	if err != nil {
		return err
	}
	entries = verityRoot.prepare(entries, j.warn)
	contents, loaders, err := j.kernel()
	if err != nil {
		return err
	}
	if contents.Initrd, err = j.startup(entries, verityRoot); err != nil {
		return err
	}
	root, err := erofs.New(entries, j.in.Time)
	if err != nil {
		return err
	}
	d, err := disk.NewVerity(contents, root, j.in.Architecture, loaders, j.in.Size, j.in.Time)
	if err != nil {
		return err
	}
	if err := j.createOnly(d.WriteFile); err != nil {
		return err
	}
	return j.writeMap(d)
}
