package machine

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/slipway-build/slipway/internal/contract"
	"github.com/slipway-build/slipway/internal/contract/runtimejson"
)

// runtime is what the guest prepares for a container, written to its runtime.json.
type runtime struct {
	Cgroups    list[string]  `yaml:"cgroups" doc:"Cgroups to make." example:"[podruntime/app]"`
	Mounts     list[mount]   `yaml:"mounts" doc:"Mounts in the machine before the container starts. A relative destination is below the container's root filesystem."`
	Mkdir      list[string]  `yaml:"mkdir" doc:"Directories to make after the mounts. A relative one is below the container's root filesystem." example:"[/var/lib/app]"`
	Interfaces list[netif]   `yaml:"interfaces" doc:"Network interfaces to make or to move into the container."`
	BindNS     value[bindNS] `yaml:"bindNS" merge:"keys" doc:"Paths on which the namespaces of the container are kept. Merged with the label key by key."`
	Namespace  value[string] `yaml:"namespace" default:"services.linuxkit" doc:"Namespace of containerd for a service." example:"k8s.io"`
}

// netif is a network interface for a container.
type netif struct {
	Name         value[string] `yaml:"name" doc:"Name of the interface." example:"eth1"`
	Add          value[string] `yaml:"add" doc:"Type of the interface if it is to be made; else an existing one is moved." example:"wireguard"`
	Peer         value[string] `yaml:"peer" doc:"Name of the other end of a veth pair." example:"veth1"`
	CreateInRoot value[bool]   `yaml:"createInRoot" default:"false" doc:"Whether it is made in the machine's network namespace and then moved."`
}

// bindNS are paths for the namespaces of a container.
type bindNS struct {
	Cgroup value[string] `yaml:"cgroup" doc:"Path for the cgroup namespace." example:"/run/cgroupns/app"`
	Ipc    value[string] `yaml:"ipc" doc:"Path for the IPC namespace." example:"/run/ipcns/app"`
	Mnt    value[string] `yaml:"mnt" doc:"Path for the mount namespace." example:"/run/mntns/app"`
	Net    value[string] `yaml:"net" doc:"Path for the network namespace." example:"/run/netns/wg"`
	Pid    value[string] `yaml:"pid" doc:"Path for the PID namespace." example:"/run/pidns/app"`
	User   value[string] `yaml:"user" doc:"Path for the user namespace." example:"/run/userns/app"`
	Uts    value[string] `yaml:"uts" doc:"Path for the UTS namespace." example:"/run/utsns/app"`
}

// runtimeSpec gives runtime.json of a container whose bundle is in dir and whose image's tree is in tree.
func runtimeSpec(c *container, dir, tree string) []byte {
	r := c.Runtime.V
	ns := r.BindNS.V
	spec := runtimejson.Runtime{
		Cgroups:    append([]string{}, plain(r.Cgroups)...),
		Mounts:     rootMounts(c.Readonly.V, "/"+dir, "/"+tree),
		Mkdir:      append([]string{}, plain(r.Mkdir)...),
		Interfaces: []runtimejson.Interface{},
		BindNS: map[string]string{
			"cgroup": ns.Cgroup.V, "ipc": ns.Ipc.V, "mnt": ns.Mnt.V, "net": ns.Net.V, "pid": ns.Pid.V, "user": ns.User.V, "uts": ns.Uts.V,
		},
		Namespace: r.Namespace.V,
	}
	for _, m := range r.Mounts.V {
		spec.Mounts = append(spec.Mounts, m.V.written())
	}
	for _, i := range r.Interfaces.V {
		spec.Interfaces = append(spec.Interfaces, runtimejson.Interface{
			Name: i.V.Name.V, Add: i.V.Add.V, Peer: i.V.Peer.V, CreateInRoot: i.V.CreateInRoot.V,
		})
	}
	return indented(spec)
}

// rootMounts are the mounts that make the root filesystem of a container: a bind of the tree, so that it is a mount
// point, or, if it is to be written, an overlay on it with the changes in memory.
func rootMounts(readonly bool, dir, tree string) []specs.Mount {
	rootfs, tmp := dir+"/"+contract.Rootfs, dir+"/"+contract.Tmp
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
