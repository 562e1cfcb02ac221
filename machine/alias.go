package machine

import (
	"fmt"

	"go.yaml.in/yaml/v4"
)

// expansionLimit is how many values aliases may stand for in one text. It ends texts made to grow without bound.
const expansionLimit = 100_000

// follow reads what a node, or the alias that it is, stands for.
func (d *decoder) follow(n *yaml.Node, read func(*yaml.Node)) {
	if n.Kind != yaml.AliasNode {
		if d.alias != nil {
			d.expanded++
		}
		read(n)
		return
	}
	if _, open := d.open[n.Alias]; open {
		d.wrongAt(n, "alias *%s stands for something that contains it", n.Value)
		return
	}
	if d.expanded >= expansionLimit {
		if !d.exhausted {
			d.wrongAt(n, "the aliases stand for more than %d values", expansionLimit)
		}
		d.exhausted = true
		return
	}
	outer := d.alias
	if outer == nil {
		d.alias = n
	}
	d.open[n.Alias] = struct{}{}
	d.expanded++
	d.follow(n.Alias, read)
	delete(d.open, n.Alias)
	d.alias = outer
}

// pair is an entry of a map. Those that a merge key brings came through an alias.
type pair struct{ key, value, alias *yaml.Node }

// pairs are the entries of a map with its merge keys resolved (YAML merge language-independent type), and the keys
// that are written twice, each behind the one that it repeats.
func (d *decoder) pairs(n *yaml.Node) (all []pair, twice []*yaml.Node) {
	first := map[string]*yaml.Node{}
	var merges []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, val := n.Content[i], n.Content[i+1]
		if key.Kind == yaml.ScalarNode && key.ShortTag() == "!!merge" {
			merges = append(merges, val)
			continue
		}
		d.follow(key, func(k *yaml.Node) {
			if k.Kind != yaml.ScalarNode {
				d.wrongAt(key, "a key%s must be text, not %s", d.in(), kindOf(k))
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
		d.merge(m, m, func(p pair) {
			if _, ok := first[p.key.Value]; !ok {
				first[p.key.Value] = p.key
				all = append(all, p)
			}
		})
	}
	return all, twice
}

// merge gives the entries of the maps that a merge key names, the first of each name first.
func (d *decoder) merge(n, alias *yaml.Node, add func(pair)) {
	d.follow(n, func(m *yaml.Node) {
		switch {
		case m.Kind == yaml.MappingNode:
			d.expanded += len(m.Content)
			all, _ := d.pairs(m)
			for _, p := range all {
				if p.alias == nil && n.Kind == yaml.AliasNode {
					p.alias = alias
				}
				add(p)
			}
		case m.Kind == yaml.SequenceNode && n == alias:
			for _, e := range m.Content {
				d.merge(e, e, add)
			}
		default:
			d.wrongAt(alias, "<<%s must be a map or a list of maps, not %s", d.in(), kindOf(m))
		}
	})
}

// through reads a pair, with its mistakes at the alias that brought it.
func (d *decoder) through(p pair, read func()) {
	outer := d.alias
	if outer == nil {
		d.alias = p.alias
	}
	read()
	d.alias = outer
}

func (d *decoder) repeated(twice []*yaml.Node) {
	for i := 0; i < len(twice); i += 2 {
		place := fmt.Sprintf("is already on line %d", d.place(twice[i]).Start)
		if d.fixed.written() {
			place = "is there twice"
		}
		d.wrongAt(twice[i+1], "key %s%s %s", quote(twice[i+1].Value), d.in(), place)
	}
}
