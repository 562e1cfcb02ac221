package awstest

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
)

// filters are the conditions of a Describe request. An object passes if it
// matches one value of each.
type filters []filter

type filter struct {
	name   string
	values []string
}

// filters reads the filters NAME.N. Only the known names are valid; "tag:"
// means all names with that prefix.
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

// match reports whether an object with these attributes and tags passes. The
// values of a filter may contain the wildcards * and ?.
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

// wildcard reports whether text matches the pattern. Unlike with [path.Match],
// [ has no special meaning and * matches slashes.
func wildcard(pattern, text string) bool {
	clean := strings.NewReplacer("[", `\[`, "/", "\x00")
	ok, err := path.Match(clean.Replace(pattern), strings.ReplaceAll(text, "/", "\x00"))
	return err == nil && ok
}

// A pageRequest holds MaxResults and NextToken.
type pageRequest struct {
	max   int64
	token string
}

// page reads MaxResults, which must be at least low, and NextToken.
func (f *form) page(low int64) pageRequest {
	return pageRequest{f.int("MaxResults", low, 1000), f.string("NextToken")}
}

// pageWithout returns the parameters of pagination, which exclude a list of IDs
// under the name.
func (f *form) pageWithout(name string, ids []string, low int64) pageRequest {
	pages := f.page(low)
	if len(ids) > 0 && pages.max > 0 {
		f.fail(violation("InvalidParameterCombination", "%s and MaxResults cannot be used together", name))
	}
	return pages
}

// paged returns a page of a list, in the element of that name, and the token of
// the next page.
func paged[T any](s pageRequest, c *call, element string, list []T) (any, error) {
	from := 0
	if s.token != "" {
		number, ok := strings.CutPrefix(s.token, c.Operation+"-")
		n, err := strconv.Atoi(number)
		if !ok || err != nil || n > len(list) {
			return nil, violation("InvalidParameterValue", "NextToken is not from %s", c.Operation)
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
