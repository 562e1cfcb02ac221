package machine

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/slipway-build/slipway/internal/contract"
	"github.com/slipway-build/slipway/internal/contract/runtimejson"
)

// Runtime says what the init prepares for a container. It becomes runtime.json.
type Runtime struct {
	Cgroups    []string    `yaml:"cgroups" doc:"Cgroups to create." example:"[podruntime/app]"`
	Mounts     []Mount     `yaml:"mounts" doc:"Mounts in the machine before the container starts. A relative destination is relative to the root filesystem of the container."`
	Mkdir      []string    `yaml:"mkdir" doc:"Directories to create after the mounts. A relative path is relative to the root filesystem of the container." example:"[/var/lib/app]"`
	Interfaces []Interface `yaml:"interfaces" doc:"Network interfaces to create or to move into the container."`
	BindNS     BindNS      `yaml:"bindNS" merge:"keys" doc:"Paths on which the namespaces of the container are bound. Merged with the label key by key."`
	Namespace  string      `yaml:"namespace" default:"services.linuxkit" doc:"Containerd namespace of a service." example:"k8s.io"`
}

// An Interface is a network interface for a container.
type Interface struct {
	Name         string `yaml:"name" doc:"Name of the interface." example:"eth1"`
	Add          string `yaml:"add" doc:"Type of a new interface. If it is not set, an existing interface is moved." example:"wireguard"`
	Peer         string `yaml:"peer" doc:"Name of the other end of a veth pair." example:"veth1"`
	CreateInRoot bool   `yaml:"createInRoot" default:"false" doc:"Whether the interface is created in the network namespace of the machine and then moved."`
}

// BindNS holds paths on which the namespaces of a container are bound.
type BindNS struct {
	Cgroup string `yaml:"cgroup" doc:"Path for the cgroup namespace." example:"/run/cgroupns/app"`
	Ipc    string `yaml:"ipc" doc:"Path for the IPC namespace." example:"/run/ipcns/app"`
	Mnt    string `yaml:"mnt" doc:"Path for the mount namespace." example:"/run/mntns/app"`
	Net    string `yaml:"net" doc:"Path for the network namespace." example:"/run/netns/wg"`
	Pid    string `yaml:"pid" doc:"Path for the PID namespace." example:"/run/pidns/app"`
	User   string `yaml:"user" doc:"Path for the user namespace." example:"/run/userns/app"`
	Uts    string `yaml:"uts" doc:"Path for the UTS namespace." example:"/run/utsns/app"`
}

// runtimeSpec returns runtime.json of a container with its bundle in dir and the
// tree of its image in tree.
func runtimeSpec(c *Container, dir, tree string) []byte {
	r, ns := &c.Runtime, &c.Runtime.BindNS
	spec := runtimejson.Runtime{
		Cgroups:    append([]string{}, r.Cgroups...),
		Mounts:     rootMounts(c.Readonly, "/"+dir, "/"+tree),
		Mkdir:      append([]string{}, r.Mkdir...),
		Interfaces: []runtimejson.Interface{},
		BindNS: map[string]string{
			"cgroup": ns.Cgroup, "ipc": ns.Ipc, "mnt": ns.Mnt, "net": ns.Net, "pid": ns.Pid, "user": ns.User, "uts": ns.Uts,
		},
		Namespace: r.Namespace,
	}
	for _, m := range r.Mounts {
		spec.Mounts = append(spec.Mounts, m.spec())
	}
	for _, i := range r.Interfaces {
		spec.Interfaces = append(spec.Interfaces, runtimejson.Interface(i))
	}
	return indented(spec)
}

// rootMounts returns the mounts for the root filesystem of a container. A
// read-only one is a bind of the tree, because it must be a mount point. A
// writable one is an overlay with its changes in memory.
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
