package machine

import (
	"maps"
	"slices"

	"github.com/slipway-build/slipway/internal/schema"
)

// index holds the names by which keys refer to other parts of the machine. The
// lists are for suggestions.
type index struct {
	ids            map[string]uint32 // by container
	containerNames []string          // sorted
	services       map[string]bool
	serviceNames   []string
	volumes        map[string]*Volume
	volumeNames    []string
}

func (m *Machine) newIndex() *index {
	x := &index{ids: map[string]uint32{}, services: map[string]bool{}, volumes: map[string]*Volume{}}
	next := uint32(firstID)
	for _, s := range m.sections() {
		for _, c := range s.containers {
			x.ids[string(c.Name)] = next
			next++
		}
	}
	x.containerNames = slices.Sorted(maps.Keys(x.ids))
	for _, s := range m.Services {
		x.services[string(s.Name)] = true
		x.serviceNames = append(x.serviceNames, string(s.Name))
	}
	for i := range m.Volumes {
		v := &m.Volumes[i]
		x.volumeNames = append(x.volumeNames, string(v.Name))
		if _, ok := x.volumes[string(v.Name)]; !ok {
			x.volumes[string(v.Name)] = v
		}
	}
	return x
}

// check finds errors that involve more than one value, and warnings.
func (m *Machine) check(r *report) {
	m.index = m.newIndex()
	m.checkNames(r)
	for _, s := range m.sections() {
		for i := range s.containers {
			c, node := &s.containers[i], s.node.Index(i)
			k := checker{Machine: m, report: r, section: s.name, where: s.title(c)}
			k.capabilityLists(c, node)
			k.container(c, node)
		}
	}
	m.checkFiles(r)
	m.warn(r)
}

// checkNames finds names that must be unique and are not.
func (m *Machine) checkNames(r *report) {
	services, volumes := map[string]Range{}, map[string]Range{}
	for i, c := range m.Services {
		unique(r, services, "service", string(c.Name), at(m.node.Key("services").Index(i).Key("name")))
	}
	for i, v := range m.Volumes {
		unique(r, volumes, "volume", string(v.Name), at(m.node.Key("volumes").Index(i).Key("name")))
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
	r.errorAt(at, "%s %q is already defined %s", noun, name, r.place(first, at))
}

// checker checks the values of a container or a file.
type checker struct {
	*Machine
	*report
	section string // of the container
	where   string
	image   *schema.Node // if set, the values come from the label of this image
}

// errorf reports an error at a node, or at the image for a label.
func (k checker) errorf(node *schema.Node, format string, args ...any) {
	if k.image != nil {
		node = k.image
	}
	k.errorAt(at(node), format, args...)
}

// container checks what can come from the YAML or from the label.
func (k checker) container(c *Container, node *schema.Node) {
	// A label may have extended the binds: then there are more of them than nodes.
	for i, b := range c.Binds {
		k.bind(b, node.Key("binds").Index(i))
	}
	for i, b := range c.BindsAdd {
		k.bind(b, node.Key("binds.add").Index(i))
	}
	for i := range c.Mounts {
		if node := node.Key("mounts").Index(i); !node.Invalid() {
			k.mount(&c.Mounts[i], node)
		}
	}
	for i := range c.Devices {
		if node := node.Key("devices").Index(i); !node.Invalid() {
			k.device(&c.Devices[i], node)
		}
	}
	k.id("uid", c.UID, node.Key("uid"))
	k.id("gid", c.GID, node.Key("gid"))
	for i, g := range c.AdditionalGIDs {
		k.id("additionalGids", g, node.Key("additionalGids").Index(i))
	}
	k.annotations(c.Annotations, node.Key("annotations"))
}

func (k checker) bind(b Bind, node *schema.Node) {
	if b.Source != "" { // else it is invalid
		k.volume("binds", b.Text, b.Source, b.Options, node)
	}
}
