package machine

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// firstID is the number of the first container name.
const firstID = 100

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
			k := checker{m, r, s.noun + " " + quote(string(c.V.Name.V)), Range{}}
			k.lists(&c.V)
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
	where string
	fixed Range // place of all mistakes, if written: values of a label have none of their own
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
}

// lists checks lists as they are written, before a label is applied.
func (k checker) lists(c *container) {
	k.capabilities("capabilities", c.Capabilities)
	k.capabilities("capabilities.add", c.CapabilitiesAdd)
	k.capabilities("ambient", c.Ambient)
}

func (k checker) capabilities(key string, l list[capability]) {
	for _, c := range l.V {
		if len(l.V) > 1 && (c.V == allCapabilities || c.V == noCapabilities) {
			k.wrong(c.At, "%s in %s must have nothing else beside %s", key, k.where, c.V)
		}
	}
}

// volume checks the source of a bind, which is the name of a volume unless it is a path.
func (k checker) volume(key, text, source string, options []string, at Range) {
	if strings.HasPrefix(source, "/") {
		return
	}
	var names []string
	for _, v := range k.Volumes.V {
		names = append(names, string(v.V.Name.V))
	}
	switch i := slices.Index(names, source); {
	case i < 0:
		hint := suggest(source, names)
		if hint == "" {
			hint = "; a path begins with /"
		}
		k.wrong(at, "%s %s in %s names the volume %s, which does not exist%s", key, quote(text), k.where, quote(source), hint)
	case k.Volumes.V[i].V.Readonly.V && !slices.Contains(options, "ro"):
		k.wrong(at, "%s %s in %s must have the option ro: volume %s is read-only", key, quote(text), k.where, source)
	}
}

func (k checker) mount(m value[mount]) {
	spec := m.V.spec()
	switch {
	case spec.Type == "":
		k.wrong(m.At, "mount %s in %s needs a type, such as bind or tmpfs", quote(cmp.Or(spec.Destination, spec.Source)), k.where)
	case spec.Destination == "":
		k.wrong(m.At, "mount of %s in %s needs a destination", quote(spec.Source), k.where)
	case spec.Type == "bind" && m.V.Source.V == "":
		k.wrong(m.At, "mount %s in %s needs a source: a path or the name of a volume", quote(spec.Destination), k.where)
	case spec.Type == "bind":
		k.volume("mount", spec.Destination, spec.Source, spec.Options, m.At)
	}
}

func (k checker) device(d value[device]) {
	switch path := d.V.Path.V; {
	case path == allDevices:
	case d.V.Type.V == "" || d.V.Type.V == "a":
		k.wrong(d.At, "device %s in %s needs a type: b, c, u or p", quote(path), k.where)
	case d.V.Mode.V == 0 && !d.V.Mode.set():
		k.wrong(d.At, `device %s in %s needs a mode, such as "0660"`, quote(path), k.where)
	}
}

func (k checker) id(key string, v value[id]) {
	if _, ok := k.number(v.V); ok {
		return
	}
	hint := suggest(v.V.name, slices.Sorted(maps.Keys(k.ids)))
	if hint == "" {
		hint = "; the users of images are not known here"
	}
	k.wrong(v.At, "%s %s in %s is neither a number nor the name of a container%s", key, quote(v.V.name), k.where, hint)
}

// number gives the number of an id.
func (m *Machine) number(i id) (uint32, bool) {
	if i.name == "" {
		return i.number, true
	}
	n, ok := m.ids[i.name]
	return n, ok
}
