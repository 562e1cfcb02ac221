package machine

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/slipway-build/slipway/internal/contract"
	"github.com/slipway-build/slipway/internal/contract/policy"
	"github.com/slipway-build/slipway/internal/schema"
)

// annotations checks the annotations that the init follows. Those of a label
// may have no effect in the section in which the image is used.
func (k checker) annotations(annotations map[string]string, node *schema.Node) {
	if len(annotations) == 0 {
		return
	}
	var names []string
	for _, key := range policy.Keys() {
		names = append(names, key.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(annotations)) {
		value, node := annotations[name], node.Key(name)
		if node.Invalid() {
			continue
		}
		var p policy.Policy
		switch err := p.Set(k.section, name, value); {
		case err == nil:
			k.needs(name, p.After, node)
		case errors.Is(err, policy.ErrUnknown):
			k.errorf(node, "annotation %s of %s %v%s", name, k.where, err, k.suggest(name, names))
		case errors.Is(err, policy.ErrSection):
			if k.image == nil {
				k.errorf(node, "annotation %s of %s %v", name, k.where, err)
			}
		default:
			k.errorf(node, "annotation %s of %s %v, not %s", name, k.where, err, schema.Quote(value))
		}
	}
}

// needs checks the names of services that a service waits for.
func (k checker) needs(annotation string, names []string, node *schema.Node) {
	for _, name := range names {
		if !k.index.services[name] {
			k.errorf(node, "annotation %s of %s names %s, which is not a service of this machine%s", annotation, k.where, schema.Quote(name), k.suggest(name, k.index.serviceNames))
		}
	}
}

// useless reports the annotations of a container that have no effect because
// another one is missing. The label of its image is already applied.
func (p *planner) useless(s section, c *Container, own *schema.Node) {
	for _, k := range policy.Useless(s.name, c.Annotations) {
		place := cmp.Or(at(own.Key("annotations").Key(k.Name)), at(own.Key("image")))
		p.errorAt(place, "annotation %s of %s has no effect without %s", k.Name, s.title(c), k.Needs)
	}
}

// waiting is a service that waits for others.
type waiting struct {
	index int   // in the order of the services
	at    Range // of its annotations
}

// wait notes what a service waits for.
func (p *planner) wait(c *Container, at Range) {
	order, err := policy.Parse(contract.Services, c.Annotations)
	if err != nil || len(order.After) == 0 {
		return
	}
	name := string(c.Name)
	p.after[name] = order.After
	p.waiting[name] = waiting{len(p.waiting), at}
}

// maxCycles bounds the number of cycles that are reported.
const maxCycles = 100

// order reports services that wait for each other, each cycle at the last
// service in it.
func (p *planner) order() {
	reported := map[string]bool{}
	for _, cycle := range policy.Cycles(p.after, maxCycles) {
		last := slices.MaxFunc(cycle, func(a, b string) int { return p.waiting[a].index - p.waiting[b].index })
		if reported[last] {
			continue
		}
		reported[last] = true
		if n := len(cycle); n > 10 {
			cycle = slices.Concat(cycle[:5], []string{"…"}, cycle[n-4:])
		}
		p.errorAt(p.waiting[last].at, "services wait for each other (annotation %safter): %s", policy.Prefix, strings.Join(cycle, " waits for "))
	}
}
