package machine_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"

	"github.com/slipway-build/slipway/machine"
)

// TestJSONSchema checks that the JSON Schema takes what the parser takes, and rejects the mistakes that it can know.
func TestJSONSchema(t *testing.T) {
	schema := compileSchema(t)
	files, err := filepath.Glob(corpus + "/cases/*/*.yml")
	if err != nil || len(files) == 0 {
		t.Skipf("no conformance corpus at %s", corpus)
	}
	examples, _ := filepath.Glob("../examples/*.yml")
	rejected := 0
	for _, file := range append(files, examples...) {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		valid := validate(schema, data)
		m, err := machine.Parse(machine.Source{Name: file, Data: data})
		switch {
		case err != nil && valid != nil:
			rejected++
		case err == nil && valid != nil && !slices.ContainsFunc(m.Warnings(), notPortable):
			t.Errorf("%s: %v", file, valid)
		}
	}
	if rejected < 10 {
		t.Errorf("the schema rejects only %d of the files that the parser rejects", rejected)
	}
}

func notPortable(d machine.Diagnostic) bool { return d.Rule == machine.NotPortable }

// TestJSONSchemaRejects checks mistakes that an editor should show.
func TestJSONSchemaRejects(t *testing.T) {
	schema := compileSchema(t)
	const web = "services: [{name: web, image: 'alpine:3.21', "
	for text, valid := range map[string]bool{
		web + "pid: host}]":                          true,
		web + "pid: /run/ns}]":                       true,
		web + "pid: ''}]":                            true,
		web + "pid: hots}]":                          false,
		web + "capabilities: [CAP_CHOWN, all]}]":     true, // to forbid it would take more than it is worth
		web + "capabilities: [CHOWN]}]":              false,
		web + "uid: web}]":                           true,
		web + "uid: -1}]":                            false,
		web + "oomScoreAdj: 2000}]":                  false,
		web + "binds: [/a]}]":                        false,
		web + "runtime: {mkdir: [/a], mounts: []}}]": true,
		web + "runtime: {mkdirs: [/a]}}]":            false,
		"services: [{name: web}]":                    false,
		"files: [{path: a, mode: '0644'}]":           true,
		"files: [{path: a, mode: 0644}]":             true,
		"files: [{path: a, mode: '0888'}]":           false,
		"volumes: [{name: A}]":                       false,
		"volume: []":                                 false,
	} {
		if err := validate(schema, []byte(text)); (err == nil) != valid {
			t.Errorf("%s: valid is %t, want %t: %v", text, err == nil, valid, err)
		}
	}
}

func compileSchema(t *testing.T) *jsonschema.Schema {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(machine.JSONSchema()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("machine.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("machine.json")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

func validate(schema *jsonschema.Schema, text []byte) error {
	var doc any
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return err
	}
	return schema.Validate(doc)
}

// TestExamples checks that no rule fires on the examples, besides those that they say they break.
func TestExamples(t *testing.T) {
	examples, err := filepath.Glob("../examples/*.yml")
	if err != nil || len(examples) == 0 {
		t.Skip("no examples")
	}
	for _, file := range examples {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		_, skip, _ := strings.Cut(string(data), "# check=skip=")
		skip, _, _ = strings.Cut(skip, "\n")
		for _, d := range parse(t, string(data)).Warnings() {
			if !slices.Contains(strings.Split(skip, ","), d.Rule) {
				t.Errorf("%s: %v", file, d)
			}
		}
	}
}
