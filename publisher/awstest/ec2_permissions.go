package awstest

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

func share(shared map[string]bool, add, remove []string) {
	for _, who := range add {
		shared[who] = true
	}
	for _, who := range remove {
		delete(shared, who)
	}
}

// permissions reads a change of permissions in its two forms: a structure with
// Add and Remove, or OperationType with lists of users and groups. The kinds
// are the valid members of a permission.
func (f *form) permissions(name string, kinds ...string) (add, remove []string) {
	read := func(lists []*form) (out []string) {
		for _, one := range lists {
			n := len(out)
			for _, kind := range kinds {
				if v := one.string(kind); v != "" {
					out = append(out, f.grantee(kind, v))
				}
			}
			if len(out) != n+1 {
				f.fail(violation("InvalidAttributeValue", "%s must have exactly one of %s", one.prefix, strings.Join(kinds, ", ")))
			}
		}
		return out
	}
	add, remove = read(f.at(name).each("Add")), read(f.at(name).each("Remove"))
	var flat []string
	for _, kind := range kinds {
		list := kind
		if kind == "Group" {
			list = "UserGroup"
		}
		for _, v := range f.list(list) {
			flat = append(flat, f.grantee(kind, v))
		}
	}
	switch f.oneOf("OperationType", "add", "remove") {
	case "add":
		add = append(add, flat...)
	case "remove":
		remove = append(remove, flat...)
	default:
		if len(flat) > 0 {
			f.fail(violation("MissingParameter", "the request must contain the parameter OperationType"))
		}
	}
	return add, remove
}

// grantee checks the name of a grantee.
func (f *form) grantee(kind, v string) string {
	valid := false
	switch kind {
	case "Group":
		valid = v == "all"
	case "UserId":
		_, err := strconv.ParseUint(v, 10, 64)
		valid = len(v) == 12 && err == nil
	case "OrganizationArn":
		valid = strings.HasPrefix(v, "arn:aws:organizations::") && strings.Contains(v, ":organization/o-")
	case "OrganizationalUnitArn":
		valid = strings.HasPrefix(v, "arn:aws:organizations::") && strings.Contains(v, ":ou/o-")
	}
	if !valid {
		f.fail(violation("InvalidAttributeValue", "%q is not a valid %s", v, kind))
	}
	return v
}

type permission struct {
	Group string `xml:"group,omitempty"`
	User  string `xml:"userId,omitempty"`
	Org   string `xml:"organizationArn,omitempty"`
	Unit  string `xml:"organizationalUnitArn,omitempty"`
}

func permissionsXML(shared map[string]bool) items[permission] {
	var out items[permission]
	for _, who := range slices.Sorted(maps.Keys(shared)) {
		var p permission
		switch {
		case who == "all":
			p.Group = who
		case strings.Contains(who, ":organization/"):
			p.Org = who
		case strings.Contains(who, ":ou/"):
			p.Unit = who
		default:
			p.User = who
		}
		out.Item = append(out.Item, p)
	}
	return out
}
