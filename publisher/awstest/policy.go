package awstest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// A policy is an identity-based IAM policy, as far as the fake evaluates it:
// the elements Effect, Action, Resource and Condition ("IAM JSON policy element
// reference" in the IAM user guide).
type policy struct {
	Version   string
	ID        string `json:"Id"`
	Statement []statement
}

type statement struct {
	Sid, Effect      string
	Action, Resource oneOrMore
	Condition        map[string]map[string]oneOrMore
}

// oneOrMore is a JSON string or an array of strings.
type oneOrMore []string

// UnmarshalJSON implements [json.Unmarshaler].
func (o *oneOrMore) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '[' {
		return json.Unmarshal(data, (*[]string)(o))
	}
	*o = oneOrMore{""}
	return json.Unmarshal(data, &(*o)[0])
}

// parsePolicy decodes a policy and rejects what the fake does not evaluate.
func parsePolicy(text string) (policy, error) {
	var p policy
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		return p, fmt.Errorf("IAM policy: %w", err)
	}
	for _, s := range p.Statement {
		if s.Effect != "Allow" && s.Effect != "Deny" {
			return p, fmt.Errorf("IAM policy: Effect %q is not Allow or Deny", s.Effect)
		}
		for operator := range s.Condition {
			if _, err := parseOperator(operator); err != nil {
				return p, err
			}
		}
	}
	return p, nil
}

// An access is one action on one resource, with the keys of its conditions.
type access struct {
	action, resource string
	keys             map[string][]string
}

// allowed reports whether the policies allow an access: a statement must allow
// it and none deny it ("Policy evaluation logic" in the IAM user guide).
func allowed(policies []policy, a access) bool {
	var allow bool
	for _, p := range policies {
		for _, s := range p.Statement {
			if !s.applies(a) {
				continue
			}
			if s.Effect == "Deny" {
				return false
			}
			allow = true
		}
	}
	return allow
}

func (s statement) applies(a access) bool {
	if !slices.ContainsFunc(s.Action, func(pattern string) bool { return like(strings.ToLower(pattern), strings.ToLower(a.action)) }) ||
		!slices.ContainsFunc(s.Resource, func(pattern string) bool { return like(pattern, a.resource) }) {
		return false
	}
	for name, keys := range s.Condition {
		operator, err := parseOperator(name)
		if err != nil {
			return false
		}
		for key, want := range keys {
			if !operator.holds(a.keys[key], want) {
				return false
			}
		}
	}
	return true
}

// like matches a pattern with the wildcards * and ?. Unlike in [wildcard],
// other characters are literal.
func like(pattern, text string) bool {
	for {
		switch {
		case pattern == "":
			return text == ""
		case pattern[0] == '*':
			for i := range len(text) + 1 {
				if like(pattern[1:], text[i:]) {
					return true
				}
			}
			return false
		case text == "" || pattern[0] != '?' && pattern[0] != text[0]:
			return false
		}
		pattern, text = pattern[1:], text[1:]
	}
}

// An operator is a condition operator ("IAM JSON policy elements: Condition
// operators" in the IAM user guide).
type operator struct {
	set      string // ForAllValues, ForAnyValue or ""
	negated  bool
	null     bool
	ifExists bool
	match    func(pattern, value string) bool
}

func parseOperator(name string) (operator, error) {
	var o operator
	rest := name
	if set, operator, ok := strings.Cut(name, ":"); ok {
		if set != "ForAllValues" && set != "ForAnyValue" {
			return o, fmt.Errorf("IAM policy: unknown set operator %q", set)
		}
		o.set, rest = set, operator
	}
	rest, o.ifExists = strings.CutSuffix(rest, "IfExists")
	equal := func(pattern, value string) bool { return pattern == value }
	switch rest {
	case "StringEquals", "Bool":
		o.match = equal
	case "StringNotEquals":
		o.match, o.negated = equal, true
	case "StringLike", "ArnLike", "ArnEquals":
		o.match = like
	case "StringNotLike", "ArnNotLike", "ArnNotEquals":
		o.match, o.negated = like, true
	case "Null":
		o.null = true
	default:
		return o, fmt.Errorf("IAM policy: awstest does not implement the condition operator %q", name)
	}
	return o, nil
}

// holds reports whether the values of a key fulfill the condition.
func (o operator) holds(have []string, want []string) bool {
	if o.null {
		return slices.Contains(want, fmt.Sprint(len(have) == 0))
	}
	one := func(value string) bool {
		return o.negated != slices.ContainsFunc(want, func(pattern string) bool { return o.match(pattern, value) })
	}
	switch {
	case len(have) == 0:
		return o.ifExists || o.negated || o.set == "ForAllValues"
	case o.set == "ForAllValues":
		return !slices.ContainsFunc(have, func(value string) bool { return !one(value) })
	}
	return slices.ContainsFunc(have, one)
}
