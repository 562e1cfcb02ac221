package schema

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// node is a part of a JSON Schema.
type node map[string]any

// JSONSchema returns a type as an indented JSON Schema with an id, which is its URL. It is draft 7, which
// editors support. The schema accepts what [Decoder] accepts without a lenient
// finding, and more, because it cannot express every check.
func JSONSchema(t *Type, id, title string) []byte {
	definitions := node{}
	root := mapSchema(t, definitions)
	root["$schema"] = "http://json-schema.org/draft-07/schema#"
	root["$id"] = id
	root["title"] = title
	root["definitions"] = definitions
	text, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		panic(err) // the nodes consist of plain values
	}
	return append(text, '\n')
}

// mapSchema returns the schema of a map, and adds the maps in it to the
// definitions.
func mapSchema(t *Type, definitions node) node {
	properties := node{}
	var required []string
	var alternatives []node
	for _, f := range t.Fields {
		properties[f.Name] = fieldSchema(f, definitions)
		switch {
		case f.unless != "":
			alternatives = append(alternatives, node{"required": []string{f.Name}}, node{"required": []string{f.unless}})
		case f.Required:
			required = append(required, f.Name)
		}
	}
	s := node{"type": "object", "additionalProperties": false, "properties": properties}
	if required != nil {
		s["required"] = required
	}
	if alternatives != nil {
		s["anyOf"] = alternatives
	}
	return s
}

func fieldSchema(f *Field, definitions node) node {
	s := typeSchema(f.Type, definitions)
	if f.Type.Kind == List {
		s["items"] = orSubstitution(f.restrict(typeSchema(f.Type.Elem, definitions)), definitions)
	} else {
		s = orSubstitution(f.restrict(s), definitions)
	}
	if _, ok := s["$ref"]; ok {
		s = node{"allOf": []node{s}} // draft 7 ignores the siblings of a reference
	}
	s["description"] = f.Doc
	if f.Default != "" {
		s["description"] = f.Doc + " Default: " + strings.TrimSuffix(f.Default, ".") + "."
	}
	if f.Example != "" {
		var example any
		if err := yaml.Unmarshal([]byte(f.Example), &example); err != nil {
			panic(err) // the examples are part of the program
		}
		s["examples"] = []any{example}
	}
	return s
}

// orSubstitution returns a schema that also allows a string in which args are
// substituted, whatever the value must be afterwards.
func orSubstitution(s node, definitions node) node {
	switch s["type"] {
	case "object", "array", nil:
		return s
	}
	if plain := len(s) == 1 && s["type"] == "string"; plain {
		return s
	}
	definitions["substitution"] = node{"type": "string", "pattern": `\$\{`, "description": "A text with args: ${NAME}."}
	return node{"anyOf": []node{s, {"$ref": "#/definitions/substitution"}}}
}

// restrict adds the limits of a field to the schema of its type.
func (f *Field) restrict(s node) node {
	words := append(slices.Clone(f.Enum), "") // an empty string counts as absent
	switch {
	case len(f.Enum) > 0 && f.Type.keywords != nil:
		for keyword := range f.Type.keywords {
			delete(s, keyword)
		}
		s["anyOf"] = []node{{"enum": words}, f.Type.keywords}
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

func typeSchema(t *Type, definitions node) node {
	switch t.Kind {
	case List:
		return node{"type": "array"}
	case Dict:
		return node{"type": "object", "additionalProperties": node{"type": "string"}}
	case Map:
		if _, ok := definitions[t.Name]; !ok {
			definitions[t.Name] = nil // ends the recursion
			definitions[t.Name] = mapSchema(t, definitions)
		}
		return node{"$ref": "#/definitions/" + t.Name}
	case Integer:
		return node{"type": "integer"}
	case Boolean:
		return node{"type": "boolean"}
	}
	s := node{"type": "string"}
	maps.Copy(s, t.keywords)
	return s
}
