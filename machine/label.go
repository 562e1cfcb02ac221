package machine

import (
	"bytes"
	"encoding/json"
	"maps"
	"reflect"
	"sync"

	"go.yaml.in/yaml/v4"
)

// Label is the label of an image whose value, JSON or YAML, configures the containers that use the image. Its keys are
// those of [ContainerSchema] but name and image.
const Label = "org.mobyproject.config"

// labelSchema describes the label.
var labelSchema = sync.OnceValue(func() *Type {
	s := *ContainerSchema()
	s.Fields, s.byName = nil, maps.Clone(s.byName)
	for _, f := range ContainerSchema().Fields {
		if f.Required {
			delete(s.byName, f.Name)
		} else {
			s.Fields = append(s.Fields, f)
		}
	}
	return &s
})

// readLabel reads the value of a label. Everything in it, mistakes too, has one place: that of the container's image.
func readLabel(r *report, text, where string, at Range) container {
	var c container
	d := newDecoder(r, at.Source)
	d.fixed = at
	data := []byte(text)
	if plain, ok := unescaped(data); ok {
		data = plain
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		_, problem := syntaxError(err, data)
		d.mistake(at, "%s is neither JSON nor YAML: %s", where, problem)
		return c
	}
	switch {
	case len(doc.Content) == 0:
		d.mistake(at, "%s is empty: it must be a map", where)
	case doc.Content[0].Kind != yaml.MappingNode:
		d.mistake(at, "%s must be a map, not %s", where, kindOf(doc.Content[0]))
	default:
		d.within(where, func() { d.fields(reflect.ValueOf(&c).Elem(), doc.Content[0], nil, labelSchema()) })
	}
	return c
}

// unescaped gives JSON without the escapes of characters that YAML, of which JSON is otherwise a part, does not know:
// surrogate pairs.
func unescaped(text []byte) ([]byte, bool) {
	if !bytes.Contains(text, []byte(`\u`)) || !json.Valid(text) {
		return nil, false
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if d.Decode(&v) != nil {
		return nil, false
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return b.Bytes(), err == nil
}

// over gives the container with what its image's label says where the YAML says nothing.
func (c container) over(label container) container {
	all := overlay(label, c)
	all.Capabilities = extended(c.Capabilities, label.Capabilities, label.CapabilitiesAdd, c.CapabilitiesAdd)
	all.Binds = extended(c.Binds, label.Binds, label.BindsAdd, c.BindsAdd)
	return all
}

// extended gives a list of the YAML if it is written, else that of the label with all additions.
func extended[T any](own list[T], others ...list[T]) list[T] {
	if own.set() {
		return own
	}
	var all list[T]
	for _, l := range others {
		if l.set() {
			all.At = l.At
			all.V = append(all.V, l.V...)
		}
	}
	return all
}
