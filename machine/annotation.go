package machine

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/slipway-build/slipway/internal/contract"
	"github.com/slipway-build/slipway/internal/contract/policy"
)

// annotations checks those that the machine's init follows. Those of a label may mean nothing in the section in which the image is used.
func (k checker) annotations(annotations dict) {
	names := make([]string, 0, len(policy.Keys))
	for _, key := range policy.Keys {
		names = append(names, key.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(annotations.V)) {
		value := annotations.V[name]
		if value.Wrong {
			continue
		}
		var p policy.Policy
		switch err := p.Set(k.section, name, value.V); {
		case err == nil:
			k.needs(value, name, p.After)
		case errors.Is(err, policy.ErrUnknown):
			k.wrong(value.At, "annotation %s of %s %v%s", name, k.where, err, Suggest(name, names))
		case errors.Is(err, policy.ErrSection):
			if !k.fixed.written() {
				k.wrong(value.At, "annotation %s of %s %v", name, k.where, err)
			}
		default:
			k.wrong(value.At, "annotation %s of %s %v, not %s", name, k.where, err, quote(value.V))
		}
	}
}

// needs checks the names of services that a service waits for.
func (k checker) needs(at value[string], annotation string, names []string) {
	var services []string
	for _, s := range k.Services.V {
		services = append(services, string(s.V.Name.V))
	}
	for _, name := range names {
		if !slices.Contains(services, name) {
			k.wrong(at.At, "annotation %s of %s names %s, which is no service of this machine%s", annotation, k.where, quote(name), Suggest(name, services))
		}
	}
}

// order notes what a service waits for. It is a mistake if services wait for each other.
func (p *planner) order(c *container) {
	name := string(c.Name.V)
	order, err := policy.Parse(contract.Services, texts(c.Annotations))
	if err != nil || len(order.After) == 0 {
		return
	}
	p.after[name] = order.After
	if cycle := policy.Cycle(p.after); cycle != nil {
		delete(p.after, name)
		p.mistake(cmp.Or(c.Annotations.At, c.Image.At), "services wait for each other by the annotation %safter: %s", policy.Prefix, strings.Join(cycle, " waits for "))
	}
}
