package machine

import (
	"bytes"
	"reflect"

	"go.yaml.in/yaml/v4"
)

// Source is one machine YAML.
type Source struct {
	Name string // for diagnostics
	Data []byte // YAML 1.2, UTF-8, with or without byte order mark; documents after the first are ignored
}

// Parse reads one or several machine YAMLs into one machine.
//
// Of several sources the lists are joined in order. A later kernel overrides an earlier one key by key, where an empty
// image, cmdline or binary keeps the earlier one. The error is [Diagnostics] with every mistake of all sources;
// the machine then holds what could be read, for further checks alone.
func Parse(sources ...Source) (*Machine, error) {
	r := &report{}
	m := &Machine{}
	for _, s := range sources {
		r.names = append(r.names, s.Name)
	}
	for i, s := range sources {
		m.model = overlay(m.model, read(r, i, s.Data))
	}
	m.names = r.names
	m.check(r)
	mistakes, warnings := r.split()
	if len(mistakes) > 0 {
		return m, mistakes
	}
	m.warnings = warnings
	return m, nil
}

// read reads one machine YAML.
func read(r *report, source int, data []byte) model {
	var m model
	d := newDecoder(r, source)
	d.lines = bytes.Count(bytes.TrimRight(data, "\n"), []byte("\n")) + 1
	root := d.document(data)
	if root == nil {
		return m
	}
	if root.Kind != yaml.MappingNode {
		d.wrongAt(root, "a machine YAML must be a map of sections, not %s", kindOf(root))
		return m
	}
	d.fields(reflect.ValueOf(&m).Elem(), root, nil, Schema())
	return m
}

// document gives the root of the first document of a text, nil if there is none.
func (d *decoder) document(data []byte) *yaml.Node {
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		line, text := syntaxError(err, data)
		d.wrongAt(&yaml.Node{Line: line}, "not YAML: %s", text)
		return nil
	}
	if len(doc.Content) == 0 {
		d.wrongAt(&yaml.Node{Line: 1}, "there is nothing but comments in it")
		return nil
	}
	return doc.Content[0]
}
