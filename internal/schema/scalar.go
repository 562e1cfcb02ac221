package schema

import (
	"encoding/base64"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/slipway-build/slipway/internal/suggest"
)

func (r *reader) scalar(v reflect.Value, key, n *yaml.Node, f *Field, t *Type) {
	if n.Kind != yaml.ScalarNode {
		r.mismatch(key, n, f, t)
		return
	}
	if text, ok := v.Addr().Interface().(Text); ok {
		r.text(v, text, key, n, f, t)
		return
	}
	switch t.Kind {
	case String:
		text, ok := r.string(key, n, f, t)
		if ok && text != "" && len(f.Enum) > 0 && !slices.Contains(f.Enum, text) {
			if hint := suggest.Placeholder(text); hint != "" {
				r.errorAt(n, "%s %s", r.entry(n, f), hint)
			} else {
				r.errorAt(n, "%s must be %s%s", r.entry(n, f), Either(f.Enum), suggest.Among(text, f.Enum))
			}
		}
		v.SetString(text)
	case Boolean:
		v.SetBool(r.boolean(key, n, f, t))
	default:
		r.integer(v, key, n, f, t)
	}
}

// entry names a scalar in a message: its key and its value.
func (r *reader) entry(n *yaml.Node, f *Field) string {
	return f.Name + " " + Quote(n.Value) + r.in()
}

// string decodes a string and reports whether it is one.
func (r *reader) string(key, n *yaml.Node, f *Field, t *Type) (string, bool) {
	switch n.ShortTag() {
	case "!!str", "!!timestamp":
		return n.Value, true
	case "!!binary":
		raw, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(n.Value), ""))
		if err == nil {
			return string(raw), true
		}
		r.errorAt(n, "%s is not valid base64", r.subject(key, f, t))
	case "!!int", "!!float", "!!bool":
		if _, substituted := r.marks[n]; substituted {
			return n.Value, true
		}
		r.errorAt(n, "%s must be a string: put %s in quotes", r.subject(key, f, t), n.Value)
	default:
		r.errorAt(n, "%s has the unknown tag %s", r.subject(key, f, t), Quote(n.Tag))
	}
	return "", false
}

// text decodes a value with a syntax of its own.
func (r *reader) text(v reflect.Value, target Text, key, n *yaml.Node, f *Field, t *Type) {
	numeral, ok := target.(Numeral)
	number := ok && (n.ShortTag() == "!!int" || n.ShortTag() == "!!float")
	text := n.Value
	if _, literal := target.(Literal); !number && !(literal && n.ShortTag() != "!!binary") {
		var isString bool
		if text, isString = r.string(key, n, f, t); !isString {
			return
		}
	}
	if text == "" && key != nil {
		if f.Required {
			r.errorAt(n, "%s must not be empty", r.subject(key, f, t))
		}
		return
	}
	if slices.Contains(f.Enum, text) {
		v.SetString(text)
		return
	}
	err := target.UnmarshalText([]byte(text))
	if hint := suggest.Placeholder(text); err != nil && hint != "" {
		r.errorAt(n, "%s %s", r.entry(n, f), hint)
		return
	}
	switch {
	case err != nil && len(f.Enum) > 0:
		r.errorAt(n, "%s must be %s or %s%s", r.entry(n, f), strings.Join(f.Enum, ", "), t.Words, suggest.Among(text, f.Enum))
		return
	case err != nil:
		r.errorAt(n, "%s %s", r.entry(n, f), err)
		return
	}
	if ok && !numeral.Portable(number) {
		r.lenient(n, "LinuxKit rejects %s: %s %s quotes; write it %s quotes", f.Name, n.Value,
			map[bool]string{true: "without", false: "in"}[number], map[bool]string{true: "in", false: "without"}[number])
	}
}

var booleans = map[string]bool{"yes": true, "on": true, "no": false, "off": false}

func (r *reader) boolean(key, n *yaml.Node, f *Field, t *Type) bool {
	word := strings.ToLower(n.Value)
	if n.ShortTag() == "!!bool" {
		return word == "true"
	}
	truth, ok := booleans[word]
	if !ok {
		r.mismatch(key, n, f, t)
		return false
	}
	r.lenient(n, "LinuxKit rejects %s: %s; write %t", f.Name, n.Value, truth)
	return truth
}

var decimal = regexp.MustCompile(`^-?[0-9]+$`)

// integer decodes an integer within the limits of the Go type and the field.
func (r *reader) integer(v reflect.Value, key, n *yaml.Node, f *Field, t *Type) {
	low, high := limits(v.Type(), f)
	text := strings.ReplaceAll(n.Value, "_", "")
	tag := n.ShortTag()
	if number := r.marks[n].number; number != "" {
		text, tag = number, "!!int"
	}
	switch {
	case tag == "!!int":
	case tag == "!!str" && decimal.MatchString(text):
		r.lenient(n, "LinuxKit rejects %s: %s in quotes; write it without quotes", f.Name, n.Value)
	default:
		r.mismatch(key, n, f, t)
		return
	}
	if i, err := strconv.ParseInt(text, 0, 64); err == nil && i >= low && (i < 0 || uint64(i) <= high) {
		if v.CanInt() {
			v.SetInt(i)
		} else {
			v.SetUint(uint64(i))
		}
		return
	}
	if u, err := strconv.ParseUint(text, 0, 64); err == nil && v.CanUint() && u <= high {
		v.SetUint(u)
		return
	}
	switch {
	case f.Max != nil || v.Type().Bits() < 64:
		r.errorAt(n, "%s must be from %d to %d", r.entry(n, f), low, high)
	case strings.HasPrefix(text, "-"):
		r.errorAt(n, "%s must be at least %d", r.entry(n, f), low)
	default:
		r.errorAt(n, "%s is too large", r.entry(n, f))
	}
}

func limits(t reflect.Type, f *Field) (low int64, high uint64) {
	bits := t.Bits()
	if reflect.Zero(t).CanInt() {
		low, high = math.MinInt64>>(64-bits), math.MaxInt64>>(64-bits)
	} else {
		high = math.MaxUint64 >> (64 - bits)
	}
	if f.Min != nil {
		low = *f.Min
	}
	if f.Max != nil {
		high = uint64(*f.Max)
	}
	return low, high
}
