package machine

import specs "github.com/opencontainers/runtime-spec/specs-go"

// runtimeJSON is runtime.json: what LinuxKit's guest prepares before it starts a container.
type runtimeJSON struct {
	Cgroups    []string      `json:"cgroups"`
	Mounts     []specs.Mount `json:"mounts"`
	Mkdir      []string      `json:"mkdir"`
	Interfaces []netifJSON   `json:"interfaces"`
	BindNS     bindNSJSON    `json:"bindNS"`
	Namespace  string        `json:"namespace,omitempty"`
}

type netifJSON struct {
	Name         string `json:"name,omitempty"`
	Add          string `json:"add,omitempty"`
	Peer         string `json:"peer,omitempty"`
	CreateInRoot bool   `json:"createInRoot"`
}

type bindNSJSON struct {
	Cgroup string `json:"cgroup"`
	Ipc    string `json:"ipc"`
	Mnt    string `json:"mnt"`
	Net    string `json:"net"`
	Pid    string `json:"pid"`
	User   string `json:"user"`
	Uts    string `json:"uts"`
}

// runtimeSpec gives runtime.json of a container whose bundle is in dir and whose image's tree is in tree.
func runtimeSpec(c *container, dir, tree string) []byte {
	r := c.Runtime.V
	ns := r.BindNS.V
	spec := runtimeJSON{
		Cgroups:    append([]string{}, plain(r.Cgroups)...),
		Mounts:     rootMounts(c.Readonly.V, "/"+dir, "/"+tree),
		Mkdir:      append([]string{}, plain(r.Mkdir)...),
		Interfaces: []netifJSON{},
		BindNS:     bindNSJSON{ns.Cgroup.V, ns.Ipc.V, ns.Mnt.V, ns.Net.V, ns.Pid.V, ns.User.V, ns.Uts.V},
		Namespace:  r.Namespace.V,
	}
	for _, m := range r.Mounts.V {
		spec.Mounts = append(spec.Mounts, m.V.written())
	}
	for _, i := range r.Interfaces.V {
		spec.Interfaces = append(spec.Interfaces, netifJSON{i.V.Name.V, i.V.Add.V, i.V.Peer.V, i.V.CreateInRoot.V})
	}
	return indented(spec)
}

// rootMounts are the mounts that make the root filesystem of a container: a bind of the tree, so that it is a mount
// point, or, if it is to be written, an overlay on it with the changes in memory.
func rootMounts(readonly bool, dir, tree string) []specs.Mount {
	rootfs, tmp := dir+"/rootfs", dir+"/tmp"
	if readonly {
		return []specs.Mount{{Destination: rootfs, Source: tree, Options: []string{"bind"}}}
	}
	return []specs.Mount{
		{Destination: tmp, Type: "tmpfs", Source: "tmpfs"},
		{Destination: tmp, Options: []string{"remount", "private"}},
		{Destination: rootfs, Type: "overlay", Source: "overlay", Options: []string{
			"lowerdir=" + tree, "upperdir=" + tmp + "/upper", "workdir=" + tmp + "/work",
		}},
	}
}
