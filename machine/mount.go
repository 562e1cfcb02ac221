package machine

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/slipway-build/slipway/internal/schema"
)

// A Mount is a mount of a container, or one that the init makes before the
// container starts.
type Mount struct {
	Destination string      `yaml:"destination" also:"target" default:"the usual place of the type" doc:"Mount point." example:"/mnt"`
	Type        string      `yaml:"type" default:"the source, if that is a type" doc:"Type of the filesystem." example:"tmpfs"`
	Source      string      `yaml:"source" default:"the type" doc:"Source of the mount. For a bind: a path, or the name of a volume." example:"tmpfs"`
	Options     []string    `yaml:"options" doc:"Mount options." example:"[nosuid, size=10m]"`
	UIDMappings []IDMapping `yaml:"uidmappings" doc:"Users of an id-mapped mount."`
	GIDMappings []IDMapping `yaml:"gidmappings" doc:"Groups of an id-mapped mount."`
}

// A Bind is a bind mount of a container.
type Bind struct {
	Text        string // as written: SOURCE:DESTINATION[:OPTIONS]
	Source      string // a path, or the name of a volume
	Destination string
	Options     []string
}

// UnmarshalText parses SOURCE:DESTINATION[:OPTIONS].
func (b *Bind) UnmarshalText(text []byte) error {
	parts := strings.Split(string(text), ":")
	if len(parts) < 2 || len(parts) > 3 || parts[0] == "" || parts[1] == "" {
		return errors.New("must be SOURCE:DESTINATION[:OPTIONS]")
	}
	*b = Bind{Text: string(text), Source: parts[0], Destination: parts[1], Options: []string{"rw", "rbind", "rshared"}}
	if len(parts) == 3 {
		b.Options = append(strings.Split(parts[2], ","), "rbind")
	}
	return nil
}

// Syntax describes the syntax in words and in JSON Schema.
func (Bind) Syntax() (words string, keywords map[string]any) {
	return "", map[string]any{"pattern": "^[^:]+:[^:]+(:[^:]*)?$"}
}

// String returns the bind as written.
func (b Bind) String() string { return b.Text }

// A Tmpfs is a temporary filesystem of a container.
type Tmpfs struct {
	Text        string // as written: DESTINATION[:OPTIONS]
	Destination string
	Options     []string
}

// UnmarshalText parses DESTINATION[:OPTIONS].
func (t *Tmpfs) UnmarshalText(text []byte) error {
	destination, options, found := strings.Cut(string(text), ":")
	if destination == "" || strings.Contains(options, ":") {
		return errors.New("must be DESTINATION[:OPTIONS]")
	}
	*t = Tmpfs{Text: string(text), Destination: destination}
	if found {
		t.Options = strings.Split(options, ",")
	}
	return nil
}

// Syntax describes the syntax in words and in JSON Schema.
func (Tmpfs) Syntax() (words string, keywords map[string]any) {
	return "", map[string]any{"pattern": "^[^:]+(:[^:]*)?$"}
}

// String returns the temporary filesystem as written.
func (t Tmpfs) String() string { return t.Text }

// mounts returns the mounts of a container, sorted by destination. For the same
// destination, mounts override binds, binds override tmpfs, and tmpfs overrides
// the defaults.
func (c *Container) mounts() []specs.Mount {
	all := map[string]specs.Mount{}
	add := func(m specs.Mount) { all[m.Destination] = m }
	for _, m := range defaultMounts(c.Readonly) {
		add(m)
	}
	for _, t := range c.Tmpfs {
		add(specs.Mount{Destination: t.Destination, Type: "tmpfs", Source: "tmpfs", Options: t.Options})
	}
	for _, b := range c.Binds {
		add(specs.Mount{Destination: b.Destination, Type: "bind", Source: bindSource(b.Source), Options: b.Options})
	}
	for _, m := range c.Mounts {
		spec := m.complete()
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

// complete returns a mount with defaults for what follows from the rest.
func (m *Mount) complete() specs.Mount {
	spec := m.spec()
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

// spec returns a mount as written.
func (m *Mount) spec() specs.Mount {
	return specs.Mount{
		Destination: m.Destination,
		Type:        m.Type,
		Source:      m.Source,
		Options:     m.Options,
		UIDMappings: each(m.UIDMappings, IDMapping.spec),
		GIDMappings: each(m.GIDMappings, IDMapping.spec),
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

// bindSource returns the path of the source of a bind, which may be the name of
// a volume.
func bindSource(source string) string {
	if source[0] == '/' {
		return source
	}
	return merged(source)
}

func (k checker) mount(m *Mount, node *schema.Node) {
	spec := m.complete()
	switch {
	case spec.Type == "":
		k.errorf(node, "mount %s in %s needs a type (for example bind or tmpfs)", schema.Quote(cmp.Or(spec.Destination, spec.Source)), k.where)
	case spec.Destination == "":
		k.errorf(node, "mount of %s in %s needs a destination", schema.Quote(spec.Source), k.where)
	case spec.Type == "bind" && m.Source == "":
		k.errorf(node, "mount %s in %s needs a source: a path or the name of a volume", schema.Quote(spec.Destination), k.where)
	case spec.Type == "bind":
		k.volume("mount", spec.Destination, spec.Source, spec.Options, node)
	}
}
