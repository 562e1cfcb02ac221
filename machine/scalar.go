package machine

import (
	"encoding/base64"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

func (d *decoder) scalar(v reflect.Value, key, n *yaml.Node, f *Field, t *Type) {
	if n.Kind != yaml.ScalarNode {
		d.mismatch(key, n, f, t)
		return
	}
	switch target := v.Addr().Interface().(type) {
	case textual:
		d.textual(target, key, n, f, t)
	case *string:
		text, ok := d.text(key, n, f, t)
		if ok && text != "" && len(f.Enum) > 0 && !slices.Contains(f.Enum, text) {
			d.wrongAt(n, "%s must be %s%s", d.entry(n, f), either(f.Enum), Suggest(text, f.Enum))
		}
		*target = text
	case *bool:
		*target = d.boolean(key, n, f, t)
	default:
		d.number(v, key, n, f, t)
	}
}

// entry names a scalar in a message: its key and itself.
func (d *decoder) entry(n *yaml.Node, f *Field) string {
	return f.Name + " " + quote(n.Value) + d.in()
}

// text reads a text and tells whether it is one.
func (d *decoder) text(key, n *yaml.Node, f *Field, t *Type) (string, bool) {
	switch n.ShortTag() {
	case "!!str", "!!timestamp":
		return n.Value, true
	case "!!binary":
		raw, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(n.Value), ""))
		if err == nil {
			return string(raw), true
		}
		d.wrongAt(n, "%s is not base64", d.subject(key, f, t))
	case "!!int", "!!float", "!!bool":
		d.wrongAt(n, "%s must be text: put %s in quotes", d.subject(key, f, t), n.Value)
	default:
		d.wrongAt(n, "%s has the unknown tag %s", d.subject(key, f, t), quote(n.Tag))
	}
	return "", false
}

// either lists words to choose from.
func either(words []string) string {
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

func (d *decoder) textual(target textual, key, n *yaml.Node, f *Field, t *Type) {
	numeral, ok := target.(numeral)
	number := ok && (n.ShortTag() == "!!int" || n.ShortTag() == "!!float")
	text := n.Value
	if !number {
		var isText bool
		if text, isText = d.text(key, n, f, t); !isText {
			return
		}
	}
	if text == "" && key != nil {
		if f.Required {
			d.wrongAt(n, "%s must not be empty", d.subject(key, f, t))
		}
		return
	}
	if err := target.parse(text, f); err != nil {
		d.wrongAt(n, "%s %s", d.entry(n, f), err)
		return
	}
	if ok && !numeral.portable(number) {
		d.unportable(n, "LinuxKit rejects %s: %s %s quotes; write it %s them", f.Name, n.Value,
			map[bool]string{true: "without", false: "in"}[number], map[bool]string{true: "in", false: "without"}[number])
	}
}

var booleans = map[string]bool{"yes": true, "on": true, "no": false, "off": false}

func (d *decoder) boolean(key, n *yaml.Node, f *Field, t *Type) bool {
	word := strings.ToLower(n.Value)
	if n.ShortTag() == "!!bool" {
		return word == "true"
	}
	truth, ok := booleans[word]
	if !ok {
		d.mismatch(key, n, f, t)
		return false
	}
	d.unportable(n, "LinuxKit rejects %s: %s; write %t", f.Name, n.Value, truth)
	return truth
}

// number reads a whole number, as YAML writes it, within what the Go type and the field allow.
func (d *decoder) number(v reflect.Value, key, n *yaml.Node, f *Field, t *Type) {
	low, high := numberRange(v.Type(), f)
	text := strings.ReplaceAll(n.Value, "_", "")
	switch tag := n.ShortTag(); {
	case tag == "!!int":
	case tag == "!!str" && numbers.MatchString(text):
		d.unportable(n, "LinuxKit rejects %s: %s in quotes; write it without them", f.Name, n.Value)
	default:
		d.mismatch(key, n, f, t)
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
		d.wrongAt(n, "%s must be from %d to %d", d.entry(n, f), low, high)
	case strings.HasPrefix(text, "-"):
		d.wrongAt(n, "%s must be at least %d", d.entry(n, f), low)
	default:
		d.wrongAt(n, "%s is too large", d.entry(n, f))
	}
}

func numberRange(t reflect.Type, f *Field) (low int64, high uint64) {
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
