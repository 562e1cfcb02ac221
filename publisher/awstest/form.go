package awstest

import (
	"cmp"
	"encoding/base64"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// A form reads the parameters of a query request. Parameters that the operation
// does not read are unknown to it. The first error is kept in err.
type form struct {
	values url.Values
	used   map[string]bool
	prefix string
	parent *form
	err    error
}

func parseForm(body []byte) (*form, error) {
	values, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, violation("MalformedQueryString", "%v", err)
	}
	for name, list := range values {
		if len(list) != 1 {
			return nil, violation("MalformedQueryString", "parameter %s occurs %d times", name, len(list))
		}
	}
	return &form{values: values, used: map[string]bool{}}, nil
}

func (f *form) root() *form {
	if f.parent != nil {
		return f.parent.root()
	}
	return f
}

func (f *form) fail(err error) {
	r := f.root()
	r.err = cmp.Or(r.err, err)
}

// string returns a parameter, "" if it is missing.
func (f *form) string(name string) string {
	r := f.root()
	r.used[f.prefix+name] = true
	return r.values.Get(f.prefix + name)
}

// required returns a required parameter.
func (f *form) required(name string) string {
	v := f.string(name)
	if v == "" {
		f.fail(violation("MissingParameter", "the request must contain the parameter %s%s", f.prefix, name))
	}
	return v
}

// oneOf returns a parameter that must have one of the values, "" if it is
// missing.
func (f *form) oneOf(name string, values ...string) string {
	v := f.string(name)
	if v != "" && !slices.Contains(values, v) {
		f.fail(violation("InvalidParameterValue", "value (%s) for parameter %s%s is invalid: must be one of %s", v, f.prefix, name, strings.Join(values, ", ")))
	}
	return v
}

// bool returns a parameter, false if it is missing.
func (f *form) bool(name string) bool { return f.oneOf(name, "true", "false") == "true" }

// int returns a number from low to high, 0 if it is missing.
func (f *form) int(name string, low, high int64) int64 {
	v := f.string(name)
	if v == "" {
		return 0
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil || n < low || n > high {
		f.fail(violation("InvalidParameterValue", "value (%s) for parameter %s%s is invalid: must be a number from %d to %d", v, f.prefix, name, low, high))
	}
	return n
}

// base64 returns a parameter whose value must be base64, without decoding it.
func (f *form) base64(name string) string {
	v := f.string(name)
	if _, err := base64.StdEncoding.DecodeString(v); err != nil {
		f.fail(violation("InvalidParameterValue", "parameter %s%s is not base64: %v", f.prefix, name, err))
	}
	return v
}

// has reports whether there is a parameter or a structure of that name.
func (f *form) has(name string) bool {
	for key := range f.root().values {
		if key == f.prefix+name || strings.HasPrefix(key, f.prefix+name+".") {
			return true
		}
	}
	return false
}

// at returns the parameters of a structure.
func (f *form) at(name string) *form { return &form{prefix: f.prefix + name + ".", parent: f} }

// list returns the parameters NAME.1, NAME.2 and so on.
func (f *form) list(name string) []string {
	var out []string
	for i := 1; f.has(name + "." + strconv.Itoa(i)); i++ {
		out = append(out, f.string(name+"."+strconv.Itoa(i)))
	}
	return out
}

// each returns the structures NAME.1, NAME.2 and so on.
func (f *form) each(name string) []*form {
	var out []*form
	for i := 1; f.has(name + "." + strconv.Itoa(i)); i++ {
		out = append(out, f.at(name+"."+strconv.Itoa(i)))
	}
	return out
}

// done returns the first error, or an error for a parameter that was not read.
func (f *form) done() error {
	if f.err != nil {
		return f.err
	}
	var unknown []string
	for name := range f.values {
		if !f.used[name] {
			unknown = append(unknown, name)
		}
	}
	if len(unknown) > 0 {
		slices.Sort(unknown)
		return violation("UnknownParameter", "the parameter %s is not recognized", unknown[0])
	}
	return nil
}

// parameters returns the parameters in canonical form, except some.
func (f *form) parameters(except ...string) string {
	v := url.Values{}
	for name, list := range f.values {
		if !slices.Contains(except, name) {
			v[name] = list
		}
	}
	return v.Encode()
}
