package machine

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
