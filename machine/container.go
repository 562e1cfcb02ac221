package machine

import (
	"errors"
	"regexp"
)

// A Container is an entry of onboot, onshutdown or services. All keys except
// name and image can also be set by the [Label] of its image.
type Container struct {
	Name  ContainerName `yaml:"name" required:"true" id:"true" doc:"Name of the container. It names its directory and its runtime id, and can be used in uid and gid." example:"sshd"`
	Image Reference     `yaml:"image" required:"true" unless:"$patch" doc:"Image with the root filesystem of the container." example:"slipwaybuild/sshd:v1"`

	Command           []string          `yaml:"command" also:"cmd entrypoint args" default:"Entrypoint and Cmd of the image" doc:"Arguments of the process." example:"[/bin/sh, -c, exit 0]"`
	Env               []string          `yaml:"env" also:"environment" default:"Env of the image" doc:"Environment of the process. It replaces that of the image, including PATH." example:"[TZ=UTC]"`
	Cwd               string            `yaml:"cwd" empty:"keep" also:"working_dir workdir" default:"WorkingDir of the image, or /" doc:"Working directory of the process." example:"/srv"`
	Capabilities      []Capability      `yaml:"capabilities" also:"cap_add privileged" default:"none" doc:"Capabilities of the process, by their names in capabilities(7). A single all or none stands for all or no capabilities." example:"[CAP_NET_ADMIN]"`
	CapabilitiesAdd   []Capability      `yaml:"capabilities.add" doc:"Capabilities in addition to those of the label. Ignored if capabilities is set." example:"[CAP_NET_ADMIN]"`
	Ambient           []Capability      `yaml:"ambient" default:"none" doc:"Ambient capabilities of the process. A single all or none stands for all or no capabilities." example:"[CAP_NET_ADMIN]"`
	Binds             []Bind            `yaml:"binds" also:"volumes" doc:"Directories and files of the machine, and volumes by name, to bind into the container: SOURCE:DESTINATION[:OPTIONS]. The default options are rw,rbind,rshared; rbind is always added." example:"[/etc/resolv.conf:/etc/resolv.conf:ro]"`
	BindsAdd          []Bind            `yaml:"binds.add" doc:"Binds in addition to those of the label. Ignored if binds is set." example:"[/run:/run]"`
	Mounts            []Mount           `yaml:"mounts" doc:"Further mounts of the container. A mount replaces a default mount, a tmpfs or a bind with the same destination."`
	Tmpfs             []Tmpfs           `yaml:"tmpfs" doc:"Temporary filesystems of the container: DESTINATION[:OPTIONS]." example:"[/tmp:size=10m]"`
	Devices           []Device          `yaml:"devices" doc:"Devices that the container gets and may use."`
	Net               Namespace         `yaml:"net" empty:"keep" enum:"host root new none" also:"network network_mode" default:"root" doc:"Network namespace. root and host select that of the machine, new and none a new one, a path an existing one." example:"new"`
	Pid               Namespace         `yaml:"pid" empty:"keep" enum:"host root new" default:"new" doc:"PID namespace. root and host select that of the machine, new a new one, a path an existing one." example:"host"`
	Ipc               Namespace         `yaml:"ipc" empty:"keep" enum:"host root new" default:"root" doc:"IPC namespace. root and host select that of the machine, new a new one, a path an existing one." example:"new"`
	Uts               Namespace         `yaml:"uts" empty:"keep" enum:"host root new" default:"root" doc:"UTS namespace, which holds the host name. root and host select that of the machine, new a new one, a path an existing one." example:"new"`
	Userns            Namespace         `yaml:"userns" empty:"keep" enum:"host root new" default:"root" doc:"User namespace. root and host select that of the machine, new a new one, a path an existing one." example:"new"`
	Hostname          string            `yaml:"hostname" empty:"keep" doc:"Host name in the UTS namespace of the container." example:"box"`
	Readonly          bool              `yaml:"readonly" also:"read_only" default:"false" doc:"Whether the root filesystem of the container is read-only."`
	MaskedPaths       []string          `yaml:"maskedPaths" doc:"Paths that the container cannot read." example:"[/proc/kcore]"`
	ReadonlyPaths     []string          `yaml:"readonlyPaths" doc:"Paths that the container cannot write." example:"[/proc/sys]"`
	UID               ID                `yaml:"uid" also:"user" default:"0" doc:"User of the process: a number, or the name of a container, which stands for a number assigned to it." example:"1000"`
	GID               ID                `yaml:"gid" also:"group" default:"0" doc:"Group of the process: a number, or the name of a container, which stands for a number assigned to it." example:"1000"`
	AdditionalGIDs    []ID              `yaml:"additionalGids" doc:"Supplementary groups of the process: numbers or names of containers." example:"[1000]"`
	NoNewPrivileges   bool              `yaml:"noNewPrivileges" default:"false" doc:"Whether the process and its children are prevented from gaining privileges, for example through setuid programs."`
	OOMScoreAdj       *int              `yaml:"oomScoreAdj" min:"-1000" max:"1000" doc:"How early the kernel kills the process when memory is short, from -1000 (never) to 1000 (first)." example:"-500"`
	RootfsPropagation string            `yaml:"rootfsPropagation" enum:"shared rshared slave rslave private rprivate unbindable runbindable" doc:"Mount propagation of the root filesystem of the container." example:"shared"`
	CgroupsPath       string            `yaml:"cgroupsPath" doc:"Path of the cgroup of the container." example:"podruntime/app"`
	Resources         *Resources        `yaml:"resources" doc:"Resource limits, for cgroups v1 and v2."`
	Sysctl            map[string]string `yaml:"sysctl" doc:"Kernel parameters in the namespaces of the container." example:"{net.ipv4.ip_forward: \"1\"}"`
	Rlimits           []Rlimit          `yaml:"rlimits" also:"ulimits" doc:"Resource limits of the process: NAME,SOFT,HARD with the names of getrlimit(2). Use unlimited for no limit." example:"[\"nofile,1024,4096\"]"`
	UIDMappings       []IDMapping       `yaml:"uidMappings" doc:"Users of the user namespace of the container."`
	GIDMappings       []IDMapping       `yaml:"gidMappings" doc:"Groups of the user namespace of the container."`
	Annotations       map[string]string `yaml:"annotations" also:"labels" doc:"Annotations in the config.json of the container. The init follows those that start with build.slipway., see guest.md; these are merged with the label key by key." example:"{build.slipway.restart: always}"`
	Runtime           Runtime           `yaml:"runtime" merge:"keys" doc:"What the init prepares before the container starts. Merged with the label key by key."`

	Patch  string `yaml:"$patch" enum:"merge replace delete" doc:"What the entry does to the one before it with the same name, usually of an earlier file: changes the keys that it sets, replaces it, or deletes it. Without this key, the entry is a new one." example:"merge"`
	Before string `yaml:"$before" doc:"Puts the entry before the one with this name." example:"sshd"`
	After  string `yaml:"$after" doc:"Puts the entry after the one with this name." example:"sshd"`
}

// A ContainerName is part of a path, and an id in runc and containerd.
type ContainerName string

const maxContainerName = 72

var containerNames = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`)

// UnmarshalText checks a name.
func (n *ContainerName) UnmarshalText(text []byte) error {
	if !containerNames.Match(text) || len(text) > maxContainerName {
		return errors.New(`must be at most 72 letters, digits, "_", "." and "-", and start with a letter or digit`)
	}
	*n = ContainerName(text)
	return nil
}

// Syntax describes the syntax in words and in JSON Schema.
func (ContainerName) Syntax() (words string, keywords map[string]any) {
	return "", map[string]any{"pattern": containerNames.String(), "maxLength": maxContainerName}
}

// String returns the name.
func (n ContainerName) String() string { return string(n) }
