package machine

import (
	"fmt"
	"slices"
)

// check finds mistakes that need more than one value, and warns of what is hardly meant.
func (m *Machine) check(r *report) {
	m.ids = map[string]uint32{}
	next := uint32(firstID)
	for _, s := range m.sections() {
		for _, c := range s.containers {
			m.ids[string(c.V.Name.V)] = next
			next++
		}
	}
	m.checkNames(r)
	for _, s := range m.sections() {
		for _, c := range s.containers {
			k := checker{m, r, s.name, s.title(c.V), Range{}}
			k.capabilityLists(&c.V)
			k.container(&c.V)
		}
	}
	m.checkFiles(r)
	m.warn(r)
}

// checkNames finds names that must be unique and are not.
func (m *Machine) checkNames(r *report) {
	services, volumes := map[string]Range{}, map[string]Range{}
	for _, c := range m.Services.V {
		unique(r, services, "service", string(c.V.Name.V), c.V.Name.At)
	}
	for _, v := range m.Volumes.V {
		unique(r, volumes, "volume", string(v.V.Name.V), v.V.Name.At)
	}
}

func unique(r *report, seen map[string]Range, noun, name string, at Range) {
	if name == "" {
		return
	}
	first, ok := seen[name]
	if !ok {
		seen[name] = at
		return
	}
	place := fmt.Sprintf("on line %d", first.Start)
	if first.Source != at.Source {
		place += " of " + r.names[first.Source]
	}
	r.mistake(at, "there is already a %s %q %s", noun, name, place)
}

// checker checks the values of a container.
type checker struct {
	*Machine
	*report
	section string // of the container
	where   string
	fixed   Range // place of all mistakes, if written: values of a label have none of their own
}

func (k checker) wrong(at Range, format string, args ...any) {
	if k.fixed.written() {
		at = k.fixed
	}
	k.mistake(at, format, args...)
}

// container checks what may come from the YAML or from the label.
func (k checker) container(c *container) {
	for _, b := range slices.Concat(c.Binds.V, c.BindsAdd.V) {
		if !b.Wrong {
			k.volume("binds", b.V.text, b.V.source, b.V.options, b.At)
		}
	}
	for _, m := range c.Mounts.V {
		if !m.Wrong {
			k.mount(m)
		}
	}
	for _, d := range c.Devices.V {
		if !d.Wrong {
			k.device(d)
		}
	}
	k.id("uid", c.UID)
	k.id("gid", c.GID)
	for _, g := range c.AdditionalGIDs.V {
		k.id("additionalGids", g)
	}
	k.annotations(c.Annotations)
}
