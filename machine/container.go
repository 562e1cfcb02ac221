package machine

import (
	"errors"
	"regexp"
)

// container is an entry of onboot, onshutdown or services. All but name and image may also stand in the label
// org.mobyproject.config of its image.
type container struct {
	Name  value[containerName] `yaml:"name,required,id" doc:"Name of the container: its directory, its id at run time, and a name for its number in uid and gid." example:"sshd"`
	Image value[reference]     `yaml:"image,required" doc:"Image whose root filesystem the container gets." example:"slipwaybuild/sshd:v1"`

	Command           list[string]     `yaml:"command" also:"cmd entrypoint args" default:"Entrypoint and Cmd of the image" doc:"Arguments of the process." example:"[/bin/sh, -c, exit 0]"`
	Env               list[string]     `yaml:"env" also:"environment" default:"Env of the image" doc:"Environment of the process. Replaces that of the image, PATH included." example:"[TZ=UTC]"`
	Cwd               value[string]    `yaml:"cwd" empty:"keep" also:"working_dir workdir" default:"WorkingDir of the image, else /" doc:"Directory in which the process starts." example:"/srv"`
	Capabilities      list[capability] `yaml:"capabilities" also:"cap_add privileged" default:"none" doc:"Capabilities of the process, by their names as in capabilities(7). A single all or none means all of them or none." example:"[CAP_NET_ADMIN]"`
	CapabilitiesAdd   list[capability] `yaml:"capabilities.add" doc:"Capabilities besides those of the label. No effect beside capabilities." example:"[CAP_NET_ADMIN]"`
	Ambient           list[capability] `yaml:"ambient" default:"none" doc:"Ambient capabilities of the process. A single all or none means all of them or none." example:"[CAP_NET_ADMIN]"`
	Binds             list[bind]       `yaml:"binds" also:"volumes" doc:"Directories and files of the machine, and volumes by name, that the container sees: SOURCE:DESTINATION[:OPTIONS]. Without options rw,rbind,rshared; rbind is always added." example:"[/etc/resolv.conf:/etc/resolv.conf:ro]"`
	BindsAdd          list[bind]       `yaml:"binds.add" doc:"Binds besides those of the label. No effect beside binds." example:"[/run:/run]"`
	Mounts            list[mount]      `yaml:"mounts" doc:"Further mounts of the container. One replaces a default, a tmpfs or a bind of the same destination."`
	Tmpfs             list[tmpfs]      `yaml:"tmpfs" doc:"Temporary filesystems of the container: DESTINATION[:OPTIONS]." example:"[/tmp:size=10m]"`
	Devices           list[device]     `yaml:"devices" doc:"Devices that the container has and may use."`
	Net               value[namespace] `yaml:"net" empty:"keep" enum:"host root new none" also:"network network_mode" default:"root" doc:"Network namespace: root or host (that of the machine), new or none (one of its own), or the path of one." example:"new"`
	Pid               value[namespace] `yaml:"pid" empty:"keep" enum:"host root new" default:"new" doc:"PID namespace: root or host (that of the machine), new (one of its own), or the path of one." example:"host"`
	Ipc               value[namespace] `yaml:"ipc" empty:"keep" enum:"host root new" default:"root" doc:"IPC namespace: root or host (that of the machine), new (one of its own), or the path of one." example:"new"`
	Uts               value[namespace] `yaml:"uts" empty:"keep" enum:"host root new" default:"root" doc:"UTS namespace, that is host name: root or host (that of the machine), new (one of its own), or the path of one." example:"new"`
	Userns            value[namespace] `yaml:"userns" empty:"keep" enum:"host root new" default:"root" doc:"User namespace: root or host (that of the machine), new (one of its own), or the path of one." example:"new"`
	Hostname          value[string]    `yaml:"hostname" empty:"keep" doc:"Host name in the container's UTS namespace." example:"box"`
	Readonly          value[bool]      `yaml:"readonly" also:"read_only" default:"false" doc:"Whether the root filesystem of the container is read-only."`
	MaskedPaths       list[string]     `yaml:"maskedPaths" doc:"Paths that the container cannot read." example:"[/proc/kcore]"`
	ReadonlyPaths     list[string]     `yaml:"readonlyPaths" doc:"Paths that the container cannot write." example:"[/proc/sys]"`
	UID               value[id]        `yaml:"uid" also:"user" default:"0" doc:"User of the process: a number, or the name of a container, which stands for a number of its own." example:"1000"`
	GID               value[id]        `yaml:"gid" also:"group" default:"0" doc:"Group of the process: a number, or the name of a container, which stands for a number of its own." example:"1000"`
	AdditionalGIDs    list[id]         `yaml:"additionalGids" doc:"Further groups of the process: numbers or names of containers." example:"[1000]"`
	NoNewPrivileges   value[bool]      `yaml:"noNewPrivileges" default:"false" doc:"Whether the process and its children can never gain privileges, as through setuid."`
	OOMScoreAdj       value[int]       `yaml:"oomScoreAdj" min:"-1000" max:"1000" doc:"How soon the kernel kills the process when memory is short: -1000 never, 1000 first." example:"-500"`
	RootfsPropagation value[string]    `yaml:"rootfsPropagation" enum:"shared rshared slave rslave private rprivate unbindable runbindable" doc:"Mount propagation of the container's root filesystem." example:"shared"`
	CgroupsPath       value[string]    `yaml:"cgroupsPath" doc:"Path of the container's cgroup." example:"podruntime/app"`
	Resources         value[resources] `yaml:"resources" doc:"Limits by cgroups, v1 and v2."`
	Sysctl            dict             `yaml:"sysctl" doc:"Kernel parameters in the container's namespaces." example:"{net.ipv4.ip_forward: \"1\"}"`
	Rlimits           list[rlimit]     `yaml:"rlimits" also:"ulimits" doc:"Resource limits of the process: NAME,SOFT,HARD with the names of getrlimit(2), where unlimited is the highest number." example:"[\"nofile,1024,4096\"]"`
	UIDMappings       list[idMapping]  `yaml:"uidMappings" doc:"Users of the container's user namespace."`
	GIDMappings       list[idMapping]  `yaml:"gidMappings" doc:"Groups of the container's user namespace."`
	Annotations       dict             `yaml:"annotations" also:"labels" doc:"Annotations in the container's config.json. Those that begin with build.slipway. are for the machine's init, see guest.md." example:"{build.slipway.restart: always}"`
	Runtime           value[runtime]   `yaml:"runtime" merge:"keys" doc:"What the machine prepares for the container before it starts. Merged with the label key by key."`
}

// containerName is the name of a container: part of a path, and an id in runc and containerd.
type containerName string

var containerNames = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`)

func (n *containerName) parse(text string, _ *Field) error {
	if !containerNames.MatchString(text) || len(text) > 72 {
		return errors.New(`must be at most 72 letters, digits, "_", "." and "-", and begin with a letter or digit`)
	}
	*n = containerName(text)
	return nil
}

func (n *containerName) schema() schemaNode {
	return schemaNode{"pattern": containerNames.String(), "maxLength": 72}
}

func (n *containerName) String() string { return string(*n) }
