package schema_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-build/slipway/internal/schema"
)

// zoo is a format with every kind of value.
type zoo struct {
	Name   string            `yaml:"name" required:"true" doc:"Name of the zoo." example:"berlin"`
	Gate   gate              `yaml:"gate" merge:"keys" doc:"Where people enter."`
	Cages  []cage            `yaml:"cages" merge:"join" noun:"cage" also:"pens" doc:"Where animals live."`
	Feed   []string          `yaml:"feed" doc:"What animals eat." example:"[hay]"`
	Prices map[string]string `yaml:"prices" doc:"What people pay."`

	Note string // no key, because it has no tag
}

type gate struct {
	Side  string `yaml:"side" empty:"keep" enum:"north south" default:"north" doc:"Side of the zoo." example:"south"`
	Width *uint8 `yaml:"width" min:"1" max:"9" doc:"Width in meters." example:"3"`
	Open  bool   `yaml:"open" default:"false" doc:"Whether the gate is open."`
}

type cage struct {
	ID     string `yaml:"id" required:"true" id:"true" doc:"Name of the cage." example:"lion"`
	Size   size   `yaml:"size" enum:"small large" doc:"Size of the cage." example:"2x3"`
	Keeper *int   `yaml:"keeper" doc:"Number of the keeper." example:"7"`
}

// size is WIDTHxHEIGHT.
type size string

func (s *size) UnmarshalText(text []byte) error {
	var w, h int
	if n, err := fmt.Sscanf(string(text), "%dx%d", &w, &h); n != 2 || err != nil {
		return errors.New("must be WIDTHxHEIGHT")
	}
	*s = size(text)
	return nil
}

func (s *size) String() string { return string(*s) }

func (*size) Syntax() (string, map[string]any) {
	return "WIDTHxHEIGHT", map[string]any{"pattern": "^[0-9]+x[0-9]+$"}
}

// decode decodes a text, and returns the findings as "LINE: MESSAGE".
func decode(t *testing.T, text string) (schema.Decoded[zoo], []string) {
	t.Helper()
	var d schema.Decoded[zoo]
	var found []string
	decoder := schema.Decoder{Title: "the zoo", Report: func(f schema.Finding) {
		if f.Lenient {
			f.Message = "lenient: " + f.Message
		}
		found = append(found, fmt.Sprintf("%d: %s", f.Position.Line, f.Message))
	}}
	d.Node = decoder.Decode([]byte(text), &d.Value, schema.Of[zoo]())
	return d, found
}

func check(t *testing.T, what string, want, got any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func pointer[T any](v T) *T { return &v }

func TestDecode(t *testing.T) {
	d, found := decode(t, `name: berlin
gate:
  side: south
  width: 0x3
cages:
  - id: lion
    size: 2x3
    keeper: 0
  - {id: "ape", size: large}
feed: []
prices: {child: "1", adult: "2"}
`)
	check(t, "findings", []string(nil), found)
	check(t, "value", zoo{
		Name:   "berlin",
		Gate:   gate{Side: "south", Width: pointer(uint8(3))},
		Cages:  []cage{{ID: "lion", Size: "2x3", Keeper: pointer(0)}, {ID: "ape", Size: "large"}},
		Feed:   []string{},
		Prices: map[string]string{"child": "1", "adult": "2"},
	}, d.Value)
	for what, test := range map[string]struct {
		node *schema.Node
		line int
	}{
		"scalar":            {d.Node.Key("name"), 1},
		"map":               {d.Node.Key("gate"), 2},
		"key of a map":      {d.Node.Key("gate").Key("width"), 4},
		"absent key":        {d.Node.Key("gate").Key("open"), 0},
		"list":              {d.Node.Key("cages"), 5},
		"entry":             {d.Node.Key("cages").Index(1), 9},
		"key of an entry":   {d.Node.Key("cages").Index(0).Key("keeper"), 8},
		"key of no entry":   {d.Node.Key("cages").Index(2).Key("keeper"), 0},
		"empty list":        {d.Node.Key("feed"), 10},
		"key of a dict":     {d.Node.Key("prices").Key("adult"), 11},
		"no key of a dict":  {d.Node.Key("prices").Key("senior"), 0},
		"absent value":      {nil, 0},
		"key of no value":   {(*schema.Node)(nil).Key("anything"), 0},
		"entry of no value": {(*schema.Node)(nil).Index(0), 0},
	} {
		if line := test.node.Position().Line; line != test.line || test.node.Set() != (line > 0) || test.node.Invalid() {
			t.Errorf("%s: line %d, set %t, invalid %t; want line %d", what, line, test.node.Set(), test.node.Invalid(), test.line)
		}
	}
}

// A key that no struct field has is an error in the program.
func TestNodeKeyPanics(t *testing.T) {
	d, _ := decode(t, "name: x")
	defer func() {
		if got := recover(); got != "schema: zoo has no key nam" {
			t.Errorf("panic %v", got)
		}
	}()
	d.Node.Key("nam")
}

func TestDecodeErrors(t *testing.T) {
	for text, want := range map[string][]string{
		"":                    {"1: the zoo is empty"},
		"# only a comment":    {"1: the zoo is empty"},
		"- a":                 {"1: the zoo must be a map of sections, not a list"},
		"name: [":             {"1: invalid YAML: did not find expected node content"},
		"name: x\ngate: {\n":  {"2: invalid YAML: did not find expected node content"},
		"gate: {open: true}":  {"1: name is missing"},
		"name: ''\n":          nil, // a string may be empty; a Text may not
		"name: x\nname: y":    {`2: key "name" is already set on line 1`},
		"name: 5":             {"1: name must be a string: put 5 in quotes"},
		"name: !!binary '*'":  {"1: name is not valid base64"},
		"name: !odd x":        {`1: name has the unknown tag "!odd"`},
		"name: x\nnam: y":     {`2: unknown section "nam" (did you mean "name"?)`},
		"name: x\npens: 5":    {`2: unknown section "pens" (did you mean "cages"?)`, `2: cages must be a list, not the number 5; start each entry with "- id: "`},
		"name: x\nzzz: y":     {`2: unknown section "zzz"; the sections are name, gate, cages, feed, prices`},
		"name: x\n? [a]\n: b": {"2: a key must be a string, not a list"},

		"name: x\ngate: 5":                                       {"2: gate must be a map with side, width or open (for example {side: south}), not the number 5"},
		"name: x\ngate:\n  side: nort":                           {`3: side "nort" in gate must be north or south (did you mean "north"?)`},
		"name: x\ngate:\n  side: [a]":                            {"3: side in gate must be north or south, not a list"},
		"name: x\ngate:\n  width: 10":                            {`3: width "10" in gate must be from 1 to 9`},
		"name: x\ngate:\n  width: -1":                            {`3: width "-1" in gate must be from 1 to 9`},
		"name: x\ngate:\n  width: 1.5":                           {"3: width in gate must be an integer (for example 3), not the number 1.5"},
		"name: x\ngate:\n  width: '3'":                           {"3: lenient: LinuxKit rejects width: 3 in quotes; write it without quotes"},
		"name: x\ngate:\n  open: maybe":                          {`3: open in gate must be true or false, not "maybe"`},
		"name: x\ngate:\n  open: yes":                            {"3: lenient: LinuxKit rejects open: yes; write true"},
		"name: x\ngate:\n  open:":                                {"3: open in gate has no value"},
		"name: x\ngate:":                                         {"2: lenient: LinuxKit rejects the section gate without a value; remove it"},
		"name: x\ngate: {door: 1}":                               {`2: unknown key "door" in gate; the keys are side, width, open`},
		"name: x\ncages: [a]":                                    {`2: cages[0] must be a map with id (for example {id: lion}), not "a"`},
		"name: x\ncages:\n- size: 1x1":                           {"3: id is missing in cages[0]"},
		"name: x\ncages: [{id: a, size: 5}]":                     {`2: size in cage "a" must be a string: put 5 in quotes`},
		"name: x\ncages: [{id: a, size: 5x}]":                    {`2: size "5x" in cage "a" must be small, large or WIDTHxHEIGHT`},
		"name: x\ncages: [{id: a, size: lage}]":                  {`2: size "lage" in cage "a" must be small, large or WIDTHxHEIGHT (did you mean "large"?)`},
		"name: x\ncages: [{id: a, keeper: 9223372036854775808}]": {`2: keeper "9223372036854775808" in cage "a" is too large`},
		"name: x\nfeed: hay":                                     {"2: lenient: LinuxKit rejects feed: hay; write feed: [hay]"},
		"name: x\nfeed: hay and water":                           {`2: feed must be a list (for example [hay]), not "hay and water"`},
		"name: x\nfeed: [a, ~]":                                  {`2: feed has no value; remove it, or write "" for an empty string`},
		"name: x\nprices: {a: [1]}":                              {`2: "a" in prices must be a string, not a list`},
		"name: x\nprices: {a: b, a: c}":                          {`2: key "a" in prices is already set on line 2`},
	} {
		d, found := decode(t, text)
		check(t, text, want, found)
		if errors := strings.Count(strings.Join(want, "\n"), ": ") > 0 && !strings.Contains(strings.Join(want, "\n"), "lenient"); errors && d.Node != nil && !d.Node.Invalid() {
			t.Errorf("%s: the root is valid", text)
		}
	}
}

// An error is reported where it is written, or at the alias that makes it one.
func TestAliases(t *testing.T) {
	for name, test := range map[string]struct {
		text string
		want []string
	}{
		"twice, once reported": {"name: x\ncages:\n- &a {id: a, size: 5}\n- *a\n", []string{`3: size in cage "a" must be a string: put 5 in quotes`}},
		"only at the alias":    {"name: &n x\ncages: *n\n", []string{`2: cages must be a list, not "x"; start each entry with "- id: "`}},
		"loop":                 {"name: x\ngate: &g\n  <<: *g\n", []string{"3: alias *g refers to a value that contains it"}},
		"merge key":            {"name: x\ncages:\n- &a {id: a, keeper: 1}\n- {<<: *a, id: b}\n", nil},
		"merge of no map":      {"name: x\ngate: {<<: 5}\n", []string{"2: << in gate must be a map or a list of maps, not the number 5"}},
		"too many": {
			"name: x\nfeed: &f [" + strings.Repeat("a, ", 1000) + "]\nprices: {}\ncages:\n- &c {id: a, size: 1x1}\n" + strings.Repeat("- *c\n", 40_000),
			[]string{"14292: the aliases expand to more than 100000 values"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, found := decode(t, test.text)
			check(t, "findings", test.want, found)
		})
	}
}

// A text that is in no file, for example a label, has one position, and its
// title is in every message.
func TestPlaceless(t *testing.T) {
	var found []schema.Finding
	d := schema.Decoder{Title: "the label", At: schema.Position{Source: 2, Line: 7}, Report: func(f schema.Finding) { found = append(found, f) }}
	var c cage
	labels := schema.Of[cage]().WithoutRequired()
	n := d.Decode([]byte(`{"id": "x", "size": "\ud83d\ude00", "keeper": "3"}`), &c, labels)
	check(t, "findings", []schema.Finding{
		{Position: d.At, Message: `unknown key "id" in the label; the keys are size, keeper`},
		{Position: d.At, Message: `size "😀" in the label must be small, large or WIDTHxHEIGHT`},
	}, found)
	check(t, "keeper", 3, *c.Keeper)
	check(t, "position", d.At, n.Key("keeper").Position())
	found = nil
	d.Decode([]byte("["), &c, labels)
	d.Decode(nil, &c, labels)
	d.Decode([]byte("5"), &c, labels)
	d.Decode([]byte("size: 1x1\nsize: 2x2"), &c, labels)
	check(t, "findings", []schema.Finding{
		{Position: d.At, Message: "invalid YAML in the label: did not find expected node content"},
		{Position: d.At, Message: "the label is empty"},
		{Position: d.At, Message: "the label must be a map, not the number 5"},
		{Position: d.At, Message: `key "size" in the label is set twice`},
	}, found)
}

func TestOverlay(t *testing.T) {
	below, _ := decode(t, "name: a\ngate: {side: south, width: 2}\ncages: [{id: x}]\nfeed: [hay]\nprices: {a: '1'}\n")
	above, _ := decode(t, "\nname: b\ngate: {side: '', open: true}\ncages: [{id: y}]\nfeed: []\n")
	before := below.Value.Cages
	got := schema.Overlay(below, above)
	check(t, "value", zoo{
		Name:   "b",
		Gate:   gate{Side: "south", Width: pointer(uint8(2)), Open: true},
		Cages:  []cage{{ID: "x"}, {ID: "y"}},
		Feed:   []string{},
		Prices: map[string]string{"a": "1"},
	}, got.Value)
	for key, line := range map[string]int{"name": 2, "gate": 3, "cages": 4, "feed": 5, "prices": 5} {
		if got := got.Node.Key(key).Position().Line; got != line {
			t.Errorf("%s is on line %d, want %d", key, got, line)
		}
	}
	check(t, "line of a kept key", 2, got.Node.Key("gate").Key("side").Position().Line)
	check(t, "line of a joined entry", 3, got.Node.Key("cages").Index(0).Position().Line)
	check(t, "line of the other entry", 4, got.Node.Key("cages").Index(1).Position().Line)
	check(t, "the lower value", []cage{{ID: "x"}}, before[:len(before):len(before)])
	check(t, "line in the lower value", 2, below.Node.Key("gate").Position().Line)
	if got.Node.Key("feed").Index(0).Set() {
		t.Error("an entry of the replaced list has a node")
	}
}

// What YAML writes is read the same, and holds no key that was not set.
func TestYAML(t *testing.T) {
	d, found := decode(t, "cages: [{size: 2x3, id: a}]\nname: '0644'\ngate: {width: 3}\nprices: {}\n")
	check(t, "findings", []string(nil), found)
	const want = "name: \"0644\"\ngate:\n    width: 3\ncages:\n    - id: a\n      size: 2x3\nprices: {}\n"
	check(t, "YAML", want, string(d.YAML()))
	again, _ := decode(t, want)
	check(t, "value", d.Value, again.Value)
	text, err := json.Marshal(d.Plain())
	if err != nil {
		t.Fatal(err)
	}
	check(t, "JSON", `{"cages":[{"id":"a","size":"2x3"}],"gate":{"width":3},"name":"0644","prices":{}}`, string(text))
}

func TestJSONSchema(t *testing.T) {
	var got struct {
		Title       string
		Required    []string
		Properties  map[string]map[string]any
		Definitions map[string]struct{ Properties map[string]map[string]any }
	}
	if err := json.Unmarshal(schema.JSONSchema(schema.Of[zoo](), "https://example.com/zoo.json", "Zoo"), &got); err != nil {
		t.Fatal(err)
	}
	check(t, "title", "Zoo", got.Title)
	check(t, "required", []string{"name"}, got.Required)
	check(t, "gate", map[string]any{
		"allOf":       []any{map[string]any{"$ref": "#/definitions/gate"}},
		"description": "Where people enter.",
	}, got.Properties["gate"])
	substitution := map[string]any{"$ref": "#/definitions/substitution"}
	check(t, "width", map[string]any{
		"anyOf":       []any{map[string]any{"type": "integer", "minimum": 1.0, "maximum": 9.0}, substitution},
		"description": "Width in meters.", "examples": []any{3.0},
	}, got.Definitions["gate"].Properties["width"])
	check(t, "size", map[string]any{
		"anyOf": []any{map[string]any{
			"type":  "string",
			"anyOf": []any{map[string]any{"enum": []any{"small", "large", ""}}, map[string]any{"pattern": "^[0-9]+x[0-9]+$"}},
		}, substitution},
		"description": "Size of the cage.", "examples": []any{"2x3"},
	}, got.Definitions["cage"].Properties["size"])
}

// Names of types follow the names of keys.
func TestTypeNames(t *testing.T) {
	type BindNS struct {
		X string `yaml:"x"`
	}
	type IDMapping struct {
		X string `yaml:"x"`
	}
	type CPU struct {
		X string `yaml:"x"`
	}
	check(t, "names", []string{"bindNS", "idMapping", "cpu"},
		[]string{schema.Of[BindNS]().Name, schema.Of[IDMapping]().Name, schema.Of[CPU]().Name})
}
