package schema

import (
	"fmt"

	"go.yaml.in/yaml/v4"
)

// expansionLimit bounds the values that the aliases of one text stand for, so
// that a short text cannot grow without bound.
const expansionLimit = 100_000

// follow decodes a node, or the node that it is an alias for.
func (r *reader) follow(n *yaml.Node, read func(*yaml.Node)) {
	if n.Kind != yaml.AliasNode {
		if r.alias != nil {
			r.expanded++
		}
		read(n)
		return
	}
	if _, open := r.open[n.Alias]; open {
		r.errorAt(n, "alias *%s refers to a value that contains it", n.Value)
		return
	}
	if r.expanded >= expansionLimit {
		if !r.exhausted {
			r.errorAt(n, "the aliases expand to more than %d values", expansionLimit)
		}
		r.exhausted = true
		r.errors++ // the value is invalid although only the first one is reported
		return
	}
	outer := r.alias
	if outer == nil {
		r.alias = n
	}
	r.open[n.Alias] = struct{}{}
	r.expanded++
	r.follow(n.Alias, read)
	delete(r.open, n.Alias)
	r.alias = outer
}

// pair is an entry of a map. The alias is set if a merge key brought it through
// one.
type pair struct{ key, value, alias *yaml.Node }

// pairs returns the entries of a map with its merge keys resolved (YAML merge
// key type, yaml.org/type/merge), and the repeated keys, each after the first
// occurrence.
func (r *reader) pairs(n *yaml.Node) (all []pair, twice []*yaml.Node) {
	first := make(map[string]*yaml.Node, len(n.Content)/2)
	var merges []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, val := n.Content[i], n.Content[i+1]
		if key.Kind == yaml.ScalarNode && key.ShortTag() == "!!merge" {
			merges = append(merges, val)
			continue
		}
		r.follow(key, func(k *yaml.Node) {
			if k.Kind != yaml.ScalarNode {
				if hint := template(n); hint != "" {
					r.errorAt(key, "the value%s %s", r.in(), hint)
				} else {
					r.errorAt(key, "a key%s must be a string, not %s", r.in(), kindOf(k))
				}
				return
			}
			if other, ok := first[k.Value]; ok {
				twice = append(twice, other, key)
				return
			}
			first[k.Value] = key
			if k != key {
				k = &yaml.Node{Kind: k.Kind, Value: k.Value, Line: key.Line}
			}
			all = append(all, pair{k, val, nil})
		})
	}
	for _, m := range merges {
		r.merge(m, m, func(p pair) {
			if _, ok := first[p.key.Value]; !ok {
				first[p.key.Value] = p.key
				all = append(all, p)
			}
		})
	}
	return all, twice
}

// merge passes on the entries of the maps that a merge key names.
func (r *reader) merge(n, alias *yaml.Node, add func(pair)) {
	r.follow(n, func(m *yaml.Node) {
		switch {
		case m.Kind == yaml.MappingNode:
			r.expanded += len(m.Content)
			all, _ := r.pairs(m)
			for _, p := range all {
				if p.alias == nil && n.Kind == yaml.AliasNode {
					p.alias = alias
				}
				add(p)
			}
		case m.Kind == yaml.SequenceNode && n == alias:
			for _, e := range m.Content {
				r.merge(e, e, add)
			}
		default:
			r.errorAt(alias, "<<%s must be a map or a list of maps, not %s", r.in(), kindOf(m))
		}
	})
}

// through decodes a pair, and reports its errors at the alias that brought it.
func (r *reader) through(p pair, read func()) {
	outer := r.alias
	if outer == nil {
		r.alias = p.alias
	}
	read()
	r.alias = outer
}

func (r *reader) repeated(twice []*yaml.Node) {
	for i := 0; i < len(twice); i += 2 {
		place := fmt.Sprintf("is already set on line %d", r.position(twice[i]).Line)
		if r.placeless() {
			place = "is set twice"
		}
		r.errorAt(twice[i+1], "key %s%s %s", Quote(twice[i+1].Value), r.in(), place)
	}
}
