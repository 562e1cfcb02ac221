package machine

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"sync"

	"go.yaml.in/yaml/v4"
)

// schemaNode is a part of a JSON Schema.
type schemaNode map[string]any

// JSONSchema gives the machine YAML as a JSON Schema (draft 7, which editors know), indented. It accepts what
// [Parse] accepts without a warning about LinuxKit, and more: not all that Parse checks can be said in it.
func JSONSchema() []byte { return jsonSchema() }

var jsonSchema = sync.OnceValue(func() []byte {
	definitions := schemaNode{}
	root := schemaOfFields(Schema(), definitions)
	root["$schema"] = "http://json-schema.org/draft-07/schema#"
	root["title"] = "Slipway machine YAML"
	root["definitions"] = definitions
	text, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		panic(err) // made of plain values
	}
	return append(text, '\n')
})

// schemaOfFields gives the schema of a map, and adds those of the maps in it to the definitions.
func schemaOfFields(t *Type, definitions schemaNode) schemaNode {
	properties := schemaNode{}
	var required []string
	for _, f := range t.Fields {
		properties[f.Name] = schemaOfField(f, definitions)
		if f.Required {
			required = append(required, f.Name)
		}
	}
	s := schemaNode{"type": "object", "additionalProperties": false, "properties": properties}
	if required != nil {
		s["required"] = required
	}
	return s
}

func schemaOfField(f *Field, definitions schemaNode) schemaNode {
	s := schemaOfType(f.Type, definitions)
	if f.Type.Kind == List {
		s["items"] = f.restrict(schemaOfType(f.Type.Elem, definitions))
	} else {
		s = f.restrict(s)
	}
	if _, ok := s["$ref"]; ok {
		s = schemaNode{"allOf": []schemaNode{s}} // draft 7 ignores what stands beside a reference
	}
	s["description"] = f.Doc
	if f.Default != "" {
		s["description"] = f.Doc + " Default: " + strings.TrimSuffix(f.Default, ".") + "."
	}
	if f.Example != "" {
		var example any
		if err := yaml.Unmarshal([]byte(f.Example), &example); err != nil {
			panic(err) // the examples are part of this package
		}
		s["examples"] = []any{example}
	}
	return s
}

// restrict adds what a field allows of its type.
func (f *Field) restrict(s schemaNode) schemaNode {
	words := append(slices.Clone(f.Enum), "") // an empty text is as good as none
	switch {
	case len(f.Enum) > 0 && f.Type.Name == "namespace":
		s["anyOf"] = []schemaNode{{"enum": words}, {"pattern": "^/"}}
	case len(f.Enum) > 0:
		s["enum"] = words
	}
	if f.Min != nil {
		s["minimum"] = *f.Min
	}
	if f.Max != nil {
		s["maximum"] = *f.Max
	}
	return s
}

func schemaOfType(t *Type, definitions schemaNode) schemaNode {
	switch t.Kind {
	case List:
		return schemaNode{"type": "array"}
	case Dict:
		return schemaNode{"type": "object", "additionalProperties": schemaNode{"type": "string"}}
	case Map:
		if _, ok := definitions[t.Name]; !ok {
			definitions[t.Name] = nil // breaks the circle if there ever is one
			definitions[t.Name] = schemaOfFields(t, definitions)
		}
		return schemaNode{"$ref": "#/definitions/" + t.Name}
	case Number:
		return schemaNode{"type": "integer"}
	case Boolean:
		return schemaNode{"type": "boolean"}
	}
	s := schemaNode{"type": "string"}
	maps.Copy(s, t.grammar)
	return s
}
