package machine

import (
	"slices"

	"github.com/slipway-build/slipway/internal/schema"
)

// metadata returns the contents of a file with the key metadata: all sources,
// merged, with the canonical names of the images. As in LinuxKit, images of
// volumes keep the names that the YAML has. The format is that of a machine
// YAML, or the same as JSON.
func (m *Machine) metadata(format string) []byte {
	d := schema.Decoded[Machine]{Value: *m, Node: m.node}
	d.Value.Volumes = slices.Clone(m.Volumes)
	for i := range d.Value.Volumes {
		image := &d.Value.Volumes[i].Image
		image.Name = image.Text
	}
	if format == "json" {
		return indented(d.Plain())
	}
	return d.YAML()
}
