package machine_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"

	"github.com/slipway-build/slipway/internal/schema"
	"github.com/slipway-build/slipway/machine"
)

// unseen lists the conformance cases whose error the JSON Schema does not find,
// and why. docs/reference/machine.md lists them too.
var unseen = map[string]string{
	"068-error-duplicate-service":  "a repeated name",
	"071-error-rlimit":             "names of limits, which may be in upper case",
	"073-error-unknown-volume":     "a name from another section",
	"074-error-readonly-volume":    "a property of a name from another section",
	"075-error-unknown-uid":        "a name from another entry",
	"076-error-file-two-sources":   "keys that exclude each other",
	"081-error-duplicate-volume":   "a repeated name in two files",
	"085-error-mount-without-type": "a key whose value may follow from others",
}

// TestJSONSchema checks that the JSON Schema accepts a conformance case or an
// example if and only if the parser does.
func TestJSONSchema(t *testing.T) {
	compiled := compileSchema(t, "")
	dirs, _ := filepath.Glob(corpus + "/cases/*")
	examples, _ := filepath.Glob("../examples/*.yml")
	if len(dirs) == 0 || len(examples) == 0 {
		t.Fatalf("%d cases at %s, %d examples", len(dirs), corpus, len(examples))
	}
	cases := map[string][]string{} // name to files
	for _, dir := range dirs {
		cases[filepath.Base(dir)], _ = filepath.Glob(dir + "/*.yml")
	}
	for _, file := range examples {
		cases[filepath.Base(file)] = []string{file}
	}
	for name, files := range cases {
		t.Run(name, func(t *testing.T) {
			var sources []machine.Source
			var invalid error
			for _, file := range files {
				data, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				sources = append(sources, machine.Source{Name: file, Data: data})
				invalid = errors.Join(invalid, validate(compiled, data))
			}
			_, err := machine.Parse(sources...)
			_, ok := unseen[name]
			if want := err == nil || ok; want != (invalid == nil) {
				t.Errorf("parser: %v\nschema: %v\nlisted as unseen: %t", err, invalid, ok)
			}
		})
	}
}

// TestJSONSchemaRejects checks errors that an editor should show.
func TestJSONSchemaRejects(t *testing.T) {
	compiled := compileSchema(t, "")
	const web = "services: [{name: web, image: 'alpine:3.21', "
	for text, valid := range map[string]bool{
		web + "pid: host}]":                          true,
		web + "pid: /run/ns}]":                       true,
		web + "pid: ''}]":                            true,
		web + "pid: hots}]":                          false,
		web + "capabilities: [CAP_CHOWN, all]}]":     true, // too complicated to forbid
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
		if err := validate(compiled, []byte(text)); (err == nil) != valid {
			t.Errorf("%s: valid is %t, want %t: %v", text, err == nil, valid, err)
		}
	}
}

// TestSchemaExamples checks that every key except maps has an example, and that
// the example is valid.
func TestSchemaExamples(t *testing.T) {
	seen := map[string]bool{}
	var walk func(pointer string, s *schema.Type)
	walk = func(pointer string, s *schema.Type) {
		for _, f := range s.Fields {
			inner := f.Type
			if inner.Kind == schema.List {
				inner = inner.Elem
			}
			if inner.Kind == schema.Map && !seen[inner.Name] {
				seen[inner.Name] = true
				walk("/definitions/"+inner.Name, inner)
			}
			if inner.Kind == schema.Map || inner.Kind == schema.Boolean && f.Example == "" {
				continue
			}
			if f.Example == "" {
				t.Errorf("%s: %s has no example", pointer, f.Name)
			} else if err := validate(compileSchema(t, pointer+"/properties/"+f.Name), []byte(f.Example)); err != nil {
				t.Errorf("%s: the example of %s: %v", pointer, f.Name, err)
			}
		}
	}
	walk("", schema.Of[machine.Machine]())
}

// compileSchema compiles the part of the JSON Schema at a JSON pointer.
func compileSchema(t *testing.T, pointer string) *jsonschema.Schema {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(machine.JSONSchema()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("machine.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("machine.json#" + pointer)
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

// TestExamples checks that the examples cause no warnings except those that they
// skip.
func TestExamples(t *testing.T) {
	examples, err := filepath.Glob("../examples/*.yml")
	if err != nil || len(examples) == 0 {
		t.Fatalf("no examples: %v", err)
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
