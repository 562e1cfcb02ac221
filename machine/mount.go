package machine

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// mount is a mount of a container, or one made before it starts.
type mount struct {
	Destination value[string]   `yaml:"destination" also:"target" default:"the usual place of the type" doc:"Where it is mounted." example:"/mnt"`
	Type        value[string]   `yaml:"type" default:"the source, if that is a type" doc:"Type of the filesystem." example:"tmpfs"`
	Source      value[string]   `yaml:"source" default:"the type" doc:"What is mounted. For a bind, a path or the name of a volume." example:"tmpfs"`
	Options     list[string]    `yaml:"options" doc:"Mount options." example:"[nosuid, size=10m]"`
	UIDMappings list[idMapping] `yaml:"uidmappings" doc:"Users of an id-mapped mount."`
	GIDMappings list[idMapping] `yaml:"gidmappings" doc:"Groups of an id-mapped mount."`
}

// bind is a bind mount of a container.
type bind struct {
	text, source, destination string
	options                   []string
}

func (b *bind) parse(text string, _ *Field) error {
	parts := strings.Split(text, ":")
	if len(parts) < 2 || len(parts) > 3 || parts[0] == "" || parts[1] == "" {
		return errors.New("must be SOURCE:DESTINATION[:OPTIONS]")
	}
	b.text, b.source, b.destination = text, parts[0], parts[1]
	b.options = []string{"rw", "rbind", "rshared"}
	if len(parts) == 3 {
		b.options = append(strings.Split(parts[2], ","), "rbind")
	}
	return nil
}

func (b *bind) schema() schemaNode { return schemaNode{"pattern": "^[^:]+:[^:]+(:[^:]*)?$"} }

func (b *bind) String() string { return b.text }

// tmpfs is a temporary filesystem of a container.
type tmpfs struct {
	text, destination string
	options           []string
}

func (t *tmpfs) parse(text string, _ *Field) error {
	destination, options, found := strings.Cut(text, ":")
	if destination == "" || strings.Contains(options, ":") {
		return errors.New("must be DESTINATION[:OPTIONS]")
	}
	t.text, t.destination = text, destination
	if found {
		t.options = strings.Split(options, ",")
	}
	return nil
}

func (t *tmpfs) schema() schemaNode { return schemaNode{"pattern": "^[^:]+(:[^:]*)?$"} }

func (t *tmpfs) String() string { return t.text }

// mounts gives the mounts of a container, sorted by destination: defaults, replaced by tmpfs, by binds, by mounts.
func (c *container) mounts() []specs.Mount {
	all := map[string]specs.Mount{}
	add := func(m specs.Mount) { all[m.Destination] = m }
	for _, m := range defaultMounts(c.Readonly.V) {
		add(m)
	}
	for _, t := range c.Tmpfs.V {
		add(specs.Mount{Destination: t.V.destination, Type: "tmpfs", Source: "tmpfs", Options: t.V.options})
	}
	for _, b := range c.Binds.V {
		add(specs.Mount{Destination: b.V.destination, Type: "bind", Source: bindSource(b.V.source), Options: b.V.options})
	}
	for _, m := range c.Mounts.V {
		spec := m.V.spec()
		if spec.Type == "bind" {
			spec.Source = bindSource(spec.Source)
		}
		add(spec)
	}
	return slices.SortedFunc(maps.Values(all), func(a, b specs.Mount) int { return cmp.Compare(a.Destination, b.Destination) })
}

func defaultMounts(readonly bool) []specs.Mount {
	dev := []string{"nosuid", "strictatime", "mode=755", "size=65536k"}
	sys := []string{"nosuid", "noexec", "nodev"}
	if readonly {
		dev, sys = append(dev, "ro"), append(sys, "ro")
	}
	return []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "nodev", "noexec", "relatime"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: dev},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: sys},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime", "ro"}},
	}
}

// spec gives a mount with what can be told from the rest filled in.
func (m mount) spec() specs.Mount {
	spec := m.written()
	if _, ok := places[spec.Source]; ok && spec.Type == "" {
		spec.Type = spec.Source
	}
	if spec.Type == "" && spec.Destination == "/dev" {
		spec.Type = "tmpfs"
	}
	spec.Source = cmp.Or(spec.Source, spec.Type)
	spec.Destination = cmp.Or(spec.Destination, places[spec.Type])
	return spec
}

// written gives a mount as it is written.
func (m mount) written() specs.Mount {
	return specs.Mount{
		Destination: m.Destination.V,
		Type:        m.Type.V,
		Source:      m.Source.V,
		Options:     plain(m.Options),
		UIDMappings: idMappings(m.UIDMappings),
		GIDMappings: idMappings(m.GIDMappings),
	}
}

// places are the usual destinations of filesystems whose source is their type.
var places = map[string]string{
	"cgroup": "/sys/fs/cgroup",
	"devpts": "/dev/pts",
	"mqueue": "/dev/mqueue",
	"proc":   "/proc",
	"sysfs":  "/sys",
}

// bindSource gives the path of a bind's source, which may be the name of a volume.
func bindSource(source string) string {
	if source[0] == '/' {
		return source
	}
	return merged(source)
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
