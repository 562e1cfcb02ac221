package machine

import (
	"cmp"
	"encoding/json"
	"io/fs"
	"maps"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// specVersion is the version of the OCI runtime specification that config.json follows.
const specVersion = "1.2.1"

// allDevices is the path of a device that stands for all of a type.
const allDevices = "all"

// spec gives config.json (OCI runtime specification) of a container to which the label is already applied.
func (p *planner) spec(c *container, image ocispec.ImageConfig) []byte {
	return indented(specs.Spec{
		Version:     specVersion,
		Root:        &specs.Root{Path: "rootfs", Readonly: c.Readonly.V},
		Hostname:    c.Hostname.V,
		Process:     p.process(c, image),
		Mounts:      c.mounts(),
		Annotations: texts(c.Annotations),
		Linux: &specs.Linux{
			UIDMappings:       idMappings(c.UIDMappings),
			GIDMappings:       idMappings(c.GIDMappings),
			Sysctl:            texts(c.Sysctl),
			Resources:         c.resources(),
			CgroupsPath:       c.CgroupsPath.V,
			Namespaces:        c.namespaces(),
			Devices:           c.devices(),
			RootfsPropagation: c.RootfsPropagation.V,
			MaskedPaths:       plain(c.MaskedPaths),
			ReadonlyPaths:     plain(c.ReadonlyPaths),
		},
	})
}

// indented gives JSON as LinuxKit writes it.
func indented(v any) []byte {
	text, err := json.MarshalIndent(v, "", "    ")
	if err != nil {
		panic(err) // the types of this package and of the specification can all be written
	}
	return text
}

func (p *planner) process(c *container, image ocispec.ImageConfig) *specs.Process {
	uid, _ := p.number(c.UID.V)
	gid, _ := p.number(c.GID.V)
	process := &specs.Process{
		Args:            slices.Concat(image.Entrypoint, image.Cmd),
		Env:             image.Env,
		Cwd:             cmp.Or(c.Cwd.V, image.WorkingDir, "/"),
		User:            specs.User{UID: uid, GID: gid},
		Capabilities:    c.capabilities(),
		NoNewPrivileges: c.NoNewPrivileges.V,
		OOMScoreAdj:     c.OOMScoreAdj.pointer(),
	}
	if c.Command.set() {
		process.Args = plain(c.Command)
	}
	if c.Env.set() {
		process.Env = plain(c.Env)
	}
	for _, g := range c.AdditionalGIDs.V {
		n, _ := p.number(g.V)
		process.User.AdditionalGids = append(process.User.AdditionalGids, n)
	}
	for _, l := range c.Rlimits.V {
		process.Rlimits = append(process.Rlimits, l.V.limit)
	}
	return process
}

// capabilities gives the sets of capabilities. All but the effective and the ambient set hold both of these.
func (c *container) capabilities() *specs.LinuxCapabilities {
	effective, ambient := expanded(c.Capabilities), expanded(c.Ambient)
	both := slices.Concat(effective, ambient)
	slices.Sort(both)
	both = slices.Compact(both)
	return &specs.LinuxCapabilities{
		Effective:   effective,
		Ambient:     ambient,
		Bounding:    both,
		Inheritable: both,
		Permitted:   both,
	}
}

// hasAll tells whether a list says all capabilities.
func hasAll(l list[capability]) bool { return slices.Contains(plain(l), allCapabilities) }

// expanded gives the names that a list of capabilities stands for, each once.
func expanded(l list[capability]) []string {
	if hasAll(l) {
		return capabilities
	}
	var out []string
	for _, c := range l.V {
		if c.V != noCapabilities && !slices.Contains(out, string(c.V)) {
			out = append(out, string(c.V))
		}
	}
	return out
}

// namespaces gives the namespaces of a container. The mount namespace is always one of its own.
func (c *container) namespaces() []specs.LinuxNamespace {
	var out []specs.LinuxNamespace
	for _, n := range []struct {
		kind specs.LinuxNamespaceType
		word namespace
	}{
		{specs.NetworkNamespace, cmp.Or(c.Net.V, "root")},
		{specs.IPCNamespace, cmp.Or(c.Ipc.V, "root")},
		{specs.UTSNamespace, cmp.Or(c.Uts.V, "root")},
		{specs.PIDNamespace, cmp.Or(c.Pid.V, "new")},
		{specs.UserNamespace, cmp.Or(c.Userns.V, "root")},
		{specs.MountNamespace, "new"},
	} {
		switch n.word {
		case "root", "host":
		case "new", "none":
			out = append(out, specs.LinuxNamespace{Type: n.kind})
		default:
			out = append(out, specs.LinuxNamespace{Type: n.kind, Path: string(n.word)})
		}
	}
	return out
}

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

// bindSource gives the path of a bind's source, which may be the name of a volume.
func bindSource(source string) string {
	if source[0] == '/' {
		return source
	}
	return merged(source)
}

// places are the usual destinations of filesystems whose source is their type.
var places = map[string]string{
	"cgroup": "/sys/fs/cgroup",
	"devpts": "/dev/pts",
	"mqueue": "/dev/mqueue",
	"proc":   "/proc",
	"sysfs":  "/sys",
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

func idMappings(l list[idMapping]) []specs.LinuxIDMapping {
	var out []specs.LinuxIDMapping
	for _, m := range l.V {
		out = append(out, specs.LinuxIDMapping{ContainerID: m.V.ContainerID.V, HostID: m.V.HostID.V, Size: m.V.Size.V})
	}
	return out
}

func (c *container) devices() []specs.LinuxDevice {
	var out []specs.LinuxDevice
	for _, d := range c.Devices.V {
		if d.V.Path.V == allDevices {
			continue
		}
		permissions := fs.FileMode(d.V.Mode.V) // the digits as they are: the specification takes them so
		out = append(out, specs.LinuxDevice{
			Path:     d.V.Path.V,
			Type:     d.V.Type.V,
			Major:    d.V.Major.V,
			Minor:    d.V.Minor.V,
			FileMode: &permissions,
		})
	}
	return out
}
