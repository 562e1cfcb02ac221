package machine

import "fmt"

// value is something written in a machine YAML or a label, with its place. Every field of the model is one:
// the zero value is a field that is not written, which is not the same as an empty one.
type value[T any] struct {
	V     T
	At    Range
	Wrong bool // there is a mistake in it, so that others may only follow from it
}

// list is a list whose entries have places of their own.
type list[T any] = value[[]value[T]]

// dict is a map from text to text whose entries have places of their own.
type dict = value[map[string]value[string]]

// set tells whether the value is written.
func (v value[T]) set() bool { return v.At.written() }

// or gives the value, or what stands for it if it is not written.
func (v value[T]) or(other T) T {
	if v.set() {
		return v.V
	}
	return other
}

// pointer gives the value for a field of the OCI runtime specification that may be absent.
func (v value[T]) pointer() *T {
	if !v.set() {
		return nil
	}
	return &v.V
}

// plain gives the entries of a list without their places.
func plain[T any](l list[T]) []T {
	var out []T
	for _, e := range l.V {
		out = append(out, e.V)
	}
	return out
}

// texts gives the entries of a dict without their places.
func texts(d dict) map[string]string {
	if len(d.V) == 0 {
		return nil
	}
	out := make(map[string]string, len(d.V))
	for k, e := range d.V {
		out[k] = e.V
	}
	return out
}

// textual is a value with a grammar of its own, written as one scalar. Errors of parse are predicates, as in
// "must be …", with a suggestion behind a semicolon where there is one.
type textual interface {
	parse(text string, f *Field) error
	schema() schemaNode // what JSON Schema can say of it, besides that it is text
	fmt.Stringer
}

// numeral is a textual value that YAML may take for a number.
type numeral interface {
	textual
	portable(number bool) bool // whether LinuxKit reads it too when it is, or is not, written as a number
}
