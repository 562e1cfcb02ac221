package segment

import (
	"path"
	"path/filepath"

	"github.com/slipway-build/slipway/exporter/tree"
)

// Rootfs is the root filesystem of an image: a directory, or layers.
type Rootfs struct {
	Dir    string   // where the image is unpacked
	Layers []string // file names, bottom first; Dir is ignored if there are any
}

// read returns the tree of the image. Contents can be opened until closeTree is
// called. Files for decompressed layers are created in the directory spool.
func (r Rootfs) read(spool string) (entries []tree.Entry, closeTree func(), err error) {
	if len(r.Layers) == 0 {
		entries, err = tree.ReadDir(r.Dir)
		return entries, func() {}, err
	}
	layers, closeTree, err := tree.OpenLayers(r.Layers, spool)
	if err != nil {
		return nil, nil, err
	}
	if entries, err = tree.ReadLayers(layers); err != nil {
		closeTree()
		return nil, nil, err
	}
	return entries, closeTree, nil
}

// Pack writes the segment of an image whose files are below prefix in the
// machine; "" is the root. For RulesInit at the root it also writes APKName, if the
// image has such a database.
func (p Packer) Pack(image Rootfs, prefix string, rules Rules) error {
	if err := checkPrefix(prefix); err != nil {
		return err
	}
	entries, closeTree, err := image.read(p.Out)
	if err != nil {
		return err
	}
	defer closeTree()
	if rules == RulesInit && prefix == "" {
		if database, ok := apkDatabaseOf(entries); ok {
			if err := extract(database, filepath.Join(p.Out, APKName)); err != nil {
				return err
			}
		}
	}
	if entries, err = Apply(rules, entries); err != nil {
		return err
	}
	return p.write(AddPrefix(prefix, entries))
}

// AddPrefix moves entries below the directory prefix, which gets the attributes
// of their root. It adds the parents of the directory with mode 0755 and owner
// root. It does nothing if prefix is "".
func AddPrefix(prefix string, entries []tree.Entry) []tree.Entry {
	if prefix == "" {
		return entries
	}
	moved := make([]tree.Entry, 0, len(entries))
	for _, e := range entries {
		e.Path = path.Join(prefix, e.Path)
		moved = append(moved, e)
	}
	return tree.AddParents(moved)
}
