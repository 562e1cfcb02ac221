package main

import (
	"fmt"
	"strings"

	"github.com/slipway-build/slipway/internal/schema"
	"github.com/slipway-build/slipway/machine"
)

// An owner is whose value a key can replace.
type owner string

const (
	nobody  owner = ""
	label   owner = "the label"
	earlier owner = "an earlier file"
)

// keyLists returns the list of the keys of every map of the machine YAML, by
// the name of its type.
func keyLists() map[string]string {
	lists := map[string]string{}
	container := schema.Of[machine.Container]().Name
	var walk func(t *schema.Type, whose owner)
	walk = func(t *schema.Type, whose owner) {
		if _, known := lists[t.Name]; known {
			return
		}
		var b strings.Builder
		fmt.Fprintf(&b, "<a id=%q></a>\n\n", t.Name)
		lists[t.Name] = ""
		for _, f := range t.Fields {
			b.WriteString(wrap("- ", fmt.Sprintf("**`%s`** (%s): %s%s", f.Name, about(f, whose), f.Doc, example(f))))
			switch inner := entry(f.Type); {
			case inner.Kind != schema.Map:
			case inner.Name == container:
				walk(inner, label)
			case f.Merge == schema.Keys:
				walk(inner, whose)
			default:
				walk(inner, nobody) // it is replaced as a whole
			}
		}
		lists[t.Name] = b.String() + "\n"
	}
	walk(schema.Of[machine.Machine](), earlier)
	return lists
}

// entry returns the type of the entries of a list, or the type itself.
func entry(t *schema.Type) *schema.Type {
	if t.Kind == schema.List {
		return t.Elem
	}
	return t
}

// about says what a key takes, its default, and what it does to the value of
// the owner.
func about(f *schema.Field, whose owner) string {
	parts := []string{kind(f)}
	if f.Required {
		parts = append(parts, "required")
	}
	if f.Default != "" {
		parts = append(parts, "default: "+f.Default)
	}
	switch {
	case whose == nobody || strings.HasPrefix(f.Name, "$"):
	case f.Required:
		parts = append(parts, "not in the label")
	case f.Merge == schema.Join:
		parts = append(parts, "appended to that of "+string(whose))
	case f.Merge == schema.Keys:
		parts = append(parts, "merged with that of "+string(whose)+" key by key")
	case strings.HasSuffix(f.Name, ".add"):
		parts = append(parts, "added to that of "+string(whose))
	case f.KeepEmpty:
		parts = append(parts, "replaces that of "+string(whose)+" unless empty")
	default:
		parts = append(parts, "replaces that of "+string(whose))
	}
	return strings.Join(parts, "; ")
}

// words names types of strings on the page where their names in the code do not
// fit.
var words = map[string]string{
	"":              "string",
	"argName":       "name",
	"containerName": "name",
	"literal":       "scalar",
	"namespace":     "path",
	"reference":     "image",
	"rlimit":        "limit",
	"volumeName":    "name",
}

// word returns the name of a type of strings, and its plural.
func word(t *schema.Type) (one, several string) {
	one, ok := words[t.Name]
	if !ok {
		one = t.Name
	}
	switch {
	case strings.HasSuffix(one, "s"):
		return one, one
	case strings.HasSuffix(one, "y"):
		return one, strings.TrimSuffix(one, "y") + "ies"
	}
	return one, one + "s"
}

// kind says what a key takes.
func kind(f *schema.Field) string {
	switch t := f.Type; t.Kind {
	case schema.Map:
		return fmt.Sprintf("[map](#%s)", t.Name)
	case schema.Dict:
		return "map of strings"
	case schema.List:
		switch t.Elem.Kind {
		case schema.Map:
			return fmt.Sprintf("list of [maps](#%s)", t.Elem.Name)
		case schema.String:
			_, several := word(t.Elem)
			return "list of " + several
		}
		return fmt.Sprintf("list of %ss", t.Elem.Kind)
	case schema.Integer:
		switch {
		case f.Min != nil && f.Max != nil:
			return fmt.Sprintf("integer from %d to %d", *f.Min, *f.Max)
		case f.Max != nil:
			return fmt.Sprintf("integer up to %d", *f.Max)
		}
		return "integer"
	case schema.Boolean:
		return "boolean"
	}
	if len(f.Enum) == 0 || f.Type.Name != "" {
		one, _ := word(f.Type)
		return strings.Join(append(f.Enum[:len(f.Enum):len(f.Enum)], one), ", ")
	}
	return strings.Join(f.Enum, ", ")
}

// example shows a key in use. Maps have no example, because their keys do.
func example(f *schema.Field) string {
	switch {
	case f.Example != "":
		return fmt.Sprintf(" `%s: %s`", f.Name, f.Example)
	case f.Type.Kind == schema.Boolean:
		return fmt.Sprintf(" `%s: true`", f.Name)
	}
	return ""
}

// lineLength is the length of the longest line of a page, in bytes.
const lineLength = 100

// wrap breaks an item of a list into lines. It does not break code spans.
func wrap(bullet, text string) string {
	var out strings.Builder
	line := bullet
	for i, word := range splitWords(text) {
		switch {
		case i == 0:
			line += word
		case len(line)+1+len(word) > lineLength:
			out.WriteString(line + "\n")
			line = strings.Repeat(" ", len(bullet)) + word
		default:
			line += " " + word
		}
	}
	return out.String() + line + "\n"
}

func splitWords(text string) []string {
	var out []string
	quoted := false
	for _, word := range strings.Fields(text) {
		if quoted {
			out[len(out)-1] += " " + word
		} else {
			out = append(out, word)
		}
		if strings.Count(word, "`")%2 == 1 {
			quoted = !quoted
		}
	}
	return out
}

// ruleList returns the list of the rules of warnings.
func ruleList() string {
	var b strings.Builder
	for _, r := range machine.Rules() {
		b.WriteString(wrap("- ", fmt.Sprintf("[%s](#%s): %s.", r.Name, strings.ToLower(r.Name), r.Description)))
	}
	return b.String()
}
