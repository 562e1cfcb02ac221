package machine

import "github.com/slipway-build/slipway/internal/schema"

// A Source is one machine YAML.
type Source struct {
	Name string // for diagnostics
	Data []byte // YAML 1.2 in UTF-8, with or without a byte order mark; documents after the first are ignored
}

// Parse reads one or several machine YAMLs into one machine.
//
// The lists of several sources are joined in order. A later kernel overrides an
// earlier one key by key, except that an empty image, cmdline or binary keeps
// the earlier one. The error is [Diagnostics] with every error of all sources.
// The machine then holds what could be read; use it only to find further
// errors.
func Parse(sources ...Source) (*Machine, error) {
	r := &report{}
	for _, s := range sources {
		r.names = append(r.names, s.Name)
	}
	var all schema.Decoded[Machine]
	for i, s := range sources {
		var one schema.Decoded[Machine]
		one.Node = r.decoder("the machine YAML", i).Decode(s.Data, &one.Value, schema.Of[Machine]())
		all = schema.Overlay(all, one)
	}
	m := &all.Value
	m.node, m.names = all.Node, r.names
	m.check(r)
	failed, warnings := r.split()
	if len(failed) > 0 {
		return m, failed
	}
	m.warnings = warnings
	return m, nil
}
