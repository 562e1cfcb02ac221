package machine

import (
	"fmt"
	"slices"

	"github.com/slipway-build/slipway/internal/schema"
)

// Describe returns the machine as one YAML or JSON, as the key metadata of a
// file does. The format is yaml or json.
func (m *Machine) Describe(format string) []byte { return m.metadata(format) }

// Annotated returns the machine as one YAML, in which each line ends with the
// place from which it comes, as a comment.
func (m *Machine) Annotated() []byte {
	d := m.description()
	return d.Annotated(func(p schema.Position) string {
		if p.Source >= len(m.names) {
			return ""
		}
		return fmt.Sprintf("%s:%d", m.names[p.Source], p.Line)
	})
}

// metadata returns the contents of a file with the key metadata: all sources,
// merged, with the canonical names of the images. As in LinuxKit, images of
// volumes keep the names that the YAML has. The format is that of a machine
// YAML, or the same as JSON.
func (m *Machine) metadata(format string) []byte {
	d := m.description()
	if format == "json" {
		return indented(d.Plain())
	}
	return d.YAML()
}

func (m *Machine) description() schema.Decoded[Machine] {
	d := schema.Decoded[Machine]{Value: *m, Node: m.node}
	d.Value.Volumes = slices.Clone(m.Volumes)
	for i := range d.Value.Volumes {
		image := &d.Value.Volumes[i].Image
		image.Name = image.Text
	}
	return d
}
