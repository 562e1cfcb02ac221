package machine

import (
	"reflect"

	"go.yaml.in/yaml/v4"
)

// metadata describes the machine as "metadata" of a file wants it: what all sources say, merged, with the canonical names
// of the images, as a machine YAML or as JSON of the same form.
func (m *Machine) metadata(format string) []byte {
	root := described(reflect.ValueOf(&m.model).Elem(), Schema())
	if format == "json" {
		var v any
		if err := root.Decode(&v); err != nil {
			panic(err) // the tree is made of plain maps, lists and scalars
		}
		return indented(v)
	}
	text, err := yaml.Marshal(root)
	if err != nil {
		panic(err) // as above
	}
	return text
}

// described gives a part of the model as YAML, in the order of the schema.
func described(v reflect.Value, t *Type) *yaml.Node {
	switch t.Kind {
	case Map:
		n := &yaml.Node{Kind: yaml.MappingNode}
		for _, f := range t.Fields {
			if field := v.Field(f.index); field.Addr().Interface().(decodable).set() {
				n.Content = append(n.Content, described(reflect.ValueOf(&f.Name).Elem(), &Type{Kind: Text}), described(field.FieldByName("V"), f.Type))
			}
		}
		return n
	case List:
		n := &yaml.Node{Kind: yaml.SequenceNode}
		for i := range v.Len() {
			n.Content = append(n.Content, described(v.Index(i).FieldByName("V"), t.Elem))
		}
		return n
	}
	n := &yaml.Node{}
	if err := n.Encode(portable(v)); err != nil {
		panic(err) // scalars and maps of texts
	}
	return n
}

// portable gives a scalar or dict in a form that LinuxKit reads too.
func portable(v reflect.Value) any {
	switch x := v.Addr().Interface().(type) {
	case *id:
		if x.name == "" {
			return x.number
		}
		return x.name
	case textual:
		return x.String()
	case *map[string]value[string]:
		return texts(dict{V: *x})
	}
	return v.Interface()
}
