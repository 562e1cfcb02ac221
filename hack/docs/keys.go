package main

import (
	"fmt"
	"strings"

	"github.com/slipway-build/slipway/machine"
)

// owner is whose value a key's may replace.
type owner string

const (
	nobody  owner = ""
	label   owner = "the label"
	earlier owner = "an earlier file"
)

// owners of the keys of maps, by the name of their type. The keys of all others belong to what is replaced as a whole.
var owners = map[string]owner{
	"model": earlier, "kernel": earlier, "trust": earlier,
	"container": label, "runtime": label, "bindNS": label,
}

// keyLists gives the list of the keys of every map of the machine YAML, by the name of its type.
func keyLists() map[string]string {
	lists := map[string]string{}
	var walk func(t *machine.Type)
	walk = func(t *machine.Type) {
		var b strings.Builder
		fmt.Fprintf(&b, "<a id=%q></a>\n\n", t.Name)
		lists[t.Name] = ""
		for _, f := range t.Fields {
			b.WriteString(wrap("- ", fmt.Sprintf("**`%s`** (%s): %s%s", f.Name, about(f, owners[t.Name]), f.Doc, example(f))))
			if inner := entry(f.Type); inner.Kind == machine.Map {
				if _, known := lists[inner.Name]; !known {
					walk(inner)
				}
			}
		}
		lists[t.Name] = b.String() + "\n"
	}
	walk(machine.Schema())
	return lists
}

// entry is the type of the entries of a list, or the type itself.
func entry(t *machine.Type) *machine.Type {
	if t.Kind == machine.List {
		return t.Elem
	}
	return t
}

// about says what a key takes, what holds without it, and what it does to the value of the owner.
func about(f *machine.Field, whose owner) string {
	parts := []string{kind(f)}
	if f.Required {
		parts = append(parts, "required")
	}
	if f.Default != "" {
		parts = append(parts, "default: "+f.Default)
	}
	switch {
	case whose == nobody:
	case f.Required:
		parts = append(parts, "not in the label")
	case f.Merge == machine.Join:
		parts = append(parts, "joined with those of "+string(whose))
	case f.Merge == machine.Keys:
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

// words name texts with a grammar, one and several of them.
var words = map[string][2]string{
	"":              {"text", "texts"},
	"bind":          {"bind", "binds"},
	"capability":    {"capability", "capabilities"},
	"containerName": {"name", "names"},
	"filePath":      {"path", "paths"},
	"id":            {"id", "ids"},
	"mode":          {"mode", "modes"},
	"namespace":     {"path", "paths"},
	"platform":      {"platform", "platforms"},
	"reference":     {"image", "images"},
	"rlimit":        {"limit", "limits"},
	"tmpfs":         {"tmpfs", "tmpfs"},
	"volumeName":    {"name", "names"},
}

// kind says what a key takes.
func kind(f *machine.Field) string {
	switch t := f.Type; t.Kind {
	case machine.Map:
		return fmt.Sprintf("[map](#%s)", t.Name)
	case machine.Dict:
		return "map of texts"
	case machine.List:
		if t.Elem.Kind == machine.Map {
			return fmt.Sprintf("list of [maps](#%s)", t.Elem.Name)
		}
		return "list of " + words[t.Elem.Name][1]
	case machine.Number:
		switch {
		case f.Min != nil && f.Max != nil:
			return fmt.Sprintf("number from %d to %d", *f.Min, *f.Max)
		case f.Max != nil:
			return fmt.Sprintf("number up to %d", *f.Max)
		}
		return "number"
	case machine.Boolean:
		return "boolean"
	}
	choices := f.Enum
	if len(choices) == 0 || f.Type.Name != "" {
		choices = append(choices, words[f.Type.Name][0])
	}
	return strings.Join(choices, ", ")
}

// example shows a key in use. Maps have none: their keys do.
func example(f *machine.Field) string {
	switch {
	case f.Example != "":
		return fmt.Sprintf(" `%s: %s`", f.Name, f.Example)
	case f.Type.Kind == machine.Boolean:
		return fmt.Sprintf(" `%s: true`", f.Name)
	}
	return ""
}

// lineLength is the longest line of a page, in bytes.
const lineLength = 140

// wrap breaks an item of a list into lines. What is between backquotes stays together.
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

// ruleList gives the list of the rules of warnings.
func ruleList() string {
	var b strings.Builder
	for _, r := range machine.Rules {
		b.WriteString(wrap("- ", fmt.Sprintf("[%s](#%s): %s.", r.Name, strings.ToLower(r.Name), r.Description)))
	}
	return b.String()
}
