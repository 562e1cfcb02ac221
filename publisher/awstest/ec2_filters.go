package awstest

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
)

// filters are the conditions of a Describe: all of them must hold, each for one of its values.
type filters []filter

type filter struct {
	name   string
	values []string
}

// filters reads NAME.N, which may only use some names. "tag:" stands for all that start with it.
func (f *form) filters(name string, known ...string) filters {
	var out filters
	for _, one := range f.each(name) {
		key, values := one.required("Name"), one.list("Value")
		if !slices.Contains(known, key) && (!strings.HasPrefix(key, "tag:") || !slices.Contains(known, "tag:")) {
			f.fail(violation("InvalidParameterValue", "the filter '%s' is invalid", key))
		}
		if len(values) == 0 || len(values) > 200 {
			f.fail(violation("InvalidParameterValue", "the filter '%s' has %d values, not 1 to 200", key, len(values)))
		}
		out = append(out, filter{key, values})
	}
	return out
}

// match says whether an object with these attributes passes; * and ? in a filter's values are wildcards.
func (fs filters) match(attributes map[string]string, t tags) bool {
	for _, f := range fs {
		var have []string
		switch key, ok := strings.CutPrefix(f.name, "tag:"); {
		case ok:
			if v, there := t.plain()[key]; there {
				have = []string{v}
			}
		case f.name == "tag-key":
			have = slices.Collect(maps.Keys(t.plain()))
		default:
			have = []string{attributes[f.name]}
		}
		if !slices.ContainsFunc(f.values, func(pattern string) bool {
			return slices.ContainsFunc(have, func(v string) bool { return wildcard(pattern, v) })
		}) {
			return false
		}
	}
	return true
}

// wildcard matches as EC2's filters do: [ is a plain character, and * passes slashes.
func wildcard(pattern, text string) bool {
	clean := strings.NewReplacer("[", `\[`, "/", "\x00")
	ok, err := path.Match(clean.Replace(pattern), strings.ReplaceAll(text, "/", "\x00"))
	return err == nil && ok
}

// slicer holds MaxResults and NextToken.
type slicer struct {
	max   int64
	token string
}

// slicer reads them; low is the smallest page that the operation allows.
func (f *form) slicer(low int64) slicer {
	return slicer{f.int("MaxResults", low, 1000), f.string("NextToken")}
}

// paged answers with a page of a list, in the element of that name, and with the token of the next.
func paged[T any](s slicer, c *call, element string, list []T) (any, error) {
	from := 0
	if s.token != "" {
		number, ok := strings.CutPrefix(s.token, c.Operation+"-")
		n, err := strconv.Atoi(number)
		if !ok || err != nil || n > len(list) {
			return nil, violation("InvalidParameterValue", "NextToken is not of %s", c.Operation)
		}
		from = n
	}
	list = list[from:]
	if s.max == 0 || int64(len(list)) <= s.max {
		return members{{element, items[T]{list}}}, nil
	}
	next := fmt.Sprintf("%s-%d", c.Operation, from+int(s.max))
	return members{{element, items[T]{list[:s.max]}}, {"nextToken", next}}, nil
}
