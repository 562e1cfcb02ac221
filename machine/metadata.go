package machine

import "github.com/slipway-build/slipway/internal/schema"

// metadata returns the contents of a file with the key metadata: all sources,
// merged, with the canonical names of the images. The format is that of a
// machine YAML, or the same as JSON.
func (m *Machine) metadata(format string) []byte {
	d := schema.Decoded[Machine]{Value: *m, Node: m.node}
	if format == "json" {
		return indented(d.Plain())
	}
	return d.YAML()
}
