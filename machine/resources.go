package machine

import (
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Resources are the cgroup limits of a container. The keys are those of the OCI
// runtime specification, except for blockio (blockIO) and pageSize, which is a
// number of bytes.
type Resources struct {
	Devices        []DeviceRule      `yaml:"devices" doc:"Rules for the use of devices. They come before the rules for the devices of the container."`
	Memory         *Memory           `yaml:"memory" doc:"Memory limits."`
	CPU            *CPU              `yaml:"cpu" doc:"Processor limits."`
	Pids           *Pids             `yaml:"pids" doc:"Task limits."`
	BlockIO        *BlockIO          `yaml:"blockio" doc:"Block device limits."`
	HugepageLimits []HugepageLimit   `yaml:"hugepageLimits" doc:"Huge page limits."`
	Network        *Network          `yaml:"network" doc:"Class and priorities of network traffic (cgroup v1)."`
	Unified        map[string]string `yaml:"unified" doc:"Files of cgroup v2 and their values. LinuxKit does not know this key." example:"{memory.high: \"67108864\"}"`
}

// A DeviceRule allows or denies the use of devices. A nil number stands for all
// numbers.
type DeviceRule struct {
	Allow  bool   `yaml:"allow" default:"false" doc:"Whether the rule allows or denies."`
	Type   string `yaml:"type" enum:"a b c u p" default:"all" doc:"a for all devices, b for block devices, c for character devices." example:"c"`
	Major  *int64 `yaml:"major" default:"all" doc:"Major number of the devices." example:"10"`
	Minor  *int64 `yaml:"minor" default:"all" doc:"Minor number of the devices." example:"200"`
	Access string `yaml:"access" doc:"Any of r (read), w (write) and m (create nodes)." example:"rwm"`
}

// Memory holds memory limits in bytes. A nil limit is not set.
type Memory struct {
	Limit            *int64  `yaml:"limit" doc:"Memory in bytes." example:"67108864"`
	Reservation      *int64  `yaml:"reservation" doc:"Memory in bytes to which the container shrinks when memory is short." example:"33554432"`
	Swap             *int64  `yaml:"swap" doc:"Memory and swap together, in bytes." example:"134217728"`
	Kernel           *int64  `yaml:"kernel" doc:"Kernel memory in bytes (cgroup v1)." example:"16777216"`
	KernelTCP        *int64  `yaml:"kernelTCP" doc:"Kernel memory for TCP in bytes (cgroup v1)." example:"8388608"`
	Swappiness       *uint64 `yaml:"swappiness" max:"100" doc:"How readily memory is swapped (cgroup v1)." example:"10"`
	DisableOOMKiller *bool   `yaml:"disableOOMKiller" doc:"Whether the container waits instead of being killed when memory is short (cgroup v1)."`
}

// CPU holds processor limits. A nil limit is not set.
type CPU struct {
	Shares          *uint64 `yaml:"shares" doc:"Weight relative to other cgroups." example:"512"`
	Quota           *int64  `yaml:"quota" doc:"Processor time per period, in microseconds." example:"50000"`
	Period          *uint64 `yaml:"period" doc:"Length of the period, in microseconds." example:"100000"`
	RealtimeRuntime *int64  `yaml:"realtimeRuntime" doc:"Realtime scheduling per period, in microseconds (cgroup v1)." example:"10000"`
	RealtimePeriod  *uint64 `yaml:"realtimePeriod" doc:"Length of the realtime period, in microseconds (cgroup v1)." example:"1000000"`
	Cpus            string  `yaml:"cpus" doc:"Processors that the container may use." example:"\"0-1\""`
	Mems            string  `yaml:"mems" doc:"Memory nodes that the container may use." example:"\"0\""`
}

// Pids holds task limits. A nil limit is not set.
type Pids struct {
	Limit *int64 `yaml:"limit" doc:"Maximum number of tasks." example:"100"`
}

// BlockIO holds block device limits. A nil limit is not set.
type BlockIO struct {
	Weight                  *uint16          `yaml:"weight" max:"1000" doc:"Weight relative to other cgroups." example:"500"`
	LeafWeight              *uint16          `yaml:"leafWeight" max:"1000" doc:"Weight relative to child cgroups (cgroup v1)." example:"500"`
	WeightDevice            []WeightDevice   `yaml:"weightDevice" doc:"Weights for single devices."`
	ThrottleReadBpsDevice   []ThrottleDevice `yaml:"throttleReadBpsDevice" doc:"Bytes read per second."`
	ThrottleWriteBpsDevice  []ThrottleDevice `yaml:"throttleWriteBpsDevice" doc:"Bytes written per second."`
	ThrottleReadIOPSDevice  []ThrottleDevice `yaml:"throttleReadIOPSDevice" doc:"Read operations per second."`
	ThrottleWriteIOPSDevice []ThrottleDevice `yaml:"throttleWriteIOPSDevice" doc:"Write operations per second."`
}

// A WeightDevice is the weight of a container on one block device.
type WeightDevice struct {
	Major      int64   `yaml:"major" min:"0" max:"4095" default:"0" doc:"Major number of the device." example:"8"`
	Minor      int64   `yaml:"minor" min:"0" max:"1048575" default:"0" doc:"Minor number of the device." example:"0"`
	Weight     *uint16 `yaml:"weight" max:"1000" doc:"Weight relative to other cgroups." example:"500"`
	LeafWeight *uint16 `yaml:"leafWeight" max:"1000" doc:"Weight relative to child cgroups (cgroup v1)." example:"500"`
}

// A ThrottleDevice is a rate limit on one block device.
type ThrottleDevice struct {
	Major int64  `yaml:"major" min:"0" max:"4095" default:"0" doc:"Major number of the device." example:"8"`
	Minor int64  `yaml:"minor" min:"0" max:"1048575" default:"0" doc:"Minor number of the device." example:"0"`
	Rate  uint64 `yaml:"rate" default:"0" doc:"Limit per second." example:"1048576"`
}

// A HugepageLimit limits huge pages of one size.
type HugepageLimit struct {
	PageSize uint64 `yaml:"pageSize" required:"true" doc:"Size of the pages, in bytes." example:"2097152"`
	Limit    uint64 `yaml:"limit" default:"0" doc:"Limit of such pages, in bytes." example:"4194304"`
}

// Network is the class and the priorities of network traffic.
type Network struct {
	ClassID    *uint32             `yaml:"classID" doc:"Class of the traffic." example:"1048577"`
	Priorities []InterfacePriority `yaml:"priorities" doc:"Priorities on single interfaces."`
}

// An InterfacePriority is the priority of traffic on one interface.
type InterfacePriority struct {
	Name     string `yaml:"name" doc:"Name of the interface." example:"eth0"`
	Priority uint32 `yaml:"priority" default:"0" doc:"Priority of the traffic." example:"5"`
}

// resources returns the limits of a container, with a rule for each of its
// devices.
func (c *Container) resources() *specs.LinuxResources {
	spec := c.Resources.spec()
	for _, d := range c.Devices {
		rule := specs.LinuxDeviceCgroup{Allow: true, Type: d.Type, Access: "rwm"}
		if d.Path != allDevices {
			rule.Major, rule.Minor = &d.Major, &d.Minor
		}
		spec.Devices = append(spec.Devices, rule)
	}
	return spec
}

func (r *Resources) spec() *specs.LinuxResources {
	if r == nil {
		return &specs.LinuxResources{}
	}
	return &specs.LinuxResources{
		Memory:         optional(r.Memory, Memory.spec),
		CPU:            optional(r.CPU, CPU.spec),
		Pids:           optional(r.Pids, Pids.spec),
		BlockIO:        optional(r.BlockIO, BlockIO.spec),
		Network:        optional(r.Network, Network.spec),
		HugepageLimits: each(r.HugepageLimits, HugepageLimit.spec),
		Devices:        each(r.Devices, DeviceRule.spec),
		Unified:        r.Unified,
	}
}

// optional converts a value that may be nil.
func optional[T, S any](v *T, convert func(T) S) *S {
	if v == nil {
		return nil
	}
	s := convert(*v)
	return &s
}

// each converts the entries of a list.
func each[T, S any](l []T, convert func(T) S) []S {
	var out []S
	for _, e := range l {
		out = append(out, convert(e))
	}
	return out
}

func (d DeviceRule) spec() specs.LinuxDeviceCgroup {
	return specs.LinuxDeviceCgroup{Allow: d.Allow, Type: d.Type, Major: d.Major, Minor: d.Minor, Access: d.Access}
}

func (m Memory) spec() specs.LinuxMemory {
	return specs.LinuxMemory{
		Limit:       m.Limit,
		Reservation: m.Reservation,
		Swap:        m.Swap,
		//lint:ignore SA1019 runtimes may ignore it, but the YAML has it
		Kernel:           m.Kernel,
		KernelTCP:        m.KernelTCP,
		Swappiness:       m.Swappiness,
		DisableOOMKiller: m.DisableOOMKiller,
	}
}

func (c CPU) spec() specs.LinuxCPU {
	return specs.LinuxCPU{
		Shares:          c.Shares,
		Quota:           c.Quota,
		Period:          c.Period,
		RealtimeRuntime: c.RealtimeRuntime,
		RealtimePeriod:  c.RealtimePeriod,
		Cpus:            c.Cpus,
		Mems:            c.Mems,
	}
}

func (p Pids) spec() specs.LinuxPids { return specs.LinuxPids{Limit: p.Limit} }

func (b BlockIO) spec() specs.LinuxBlockIO {
	return specs.LinuxBlockIO{
		Weight:                  b.Weight,
		LeafWeight:              b.LeafWeight,
		WeightDevice:            each(b.WeightDevice, WeightDevice.spec),
		ThrottleReadBpsDevice:   each(b.ThrottleReadBpsDevice, ThrottleDevice.spec),
		ThrottleWriteBpsDevice:  each(b.ThrottleWriteBpsDevice, ThrottleDevice.spec),
		ThrottleReadIOPSDevice:  each(b.ThrottleReadIOPSDevice, ThrottleDevice.spec),
		ThrottleWriteIOPSDevice: each(b.ThrottleWriteIOPSDevice, ThrottleDevice.spec),
	}
}

func (w WeightDevice) spec() specs.LinuxWeightDevice {
	var d specs.LinuxWeightDevice
	d.Major, d.Minor = w.Major, w.Minor
	d.Weight, d.LeafWeight = w.Weight, w.LeafWeight
	return d
}

func (t ThrottleDevice) spec() specs.LinuxThrottleDevice {
	var d specs.LinuxThrottleDevice
	d.Major, d.Minor, d.Rate = t.Major, t.Minor, t.Rate
	return d
}

// spec writes the page size in the form of the specification: "2MB" for
// 2097152.
func (h HugepageLimit) spec() specs.LinuxHugepageLimit {
	size, unit := h.PageSize, 0
	units := []string{"B", "KB", "MB", "GB"}
	for size >= 1024 && size%1024 == 0 && unit < len(units)-1 {
		size /= 1024
		unit++
	}
	return specs.LinuxHugepageLimit{Pagesize: strconv.FormatUint(size, 10) + units[unit], Limit: h.Limit}
}

func (n Network) spec() specs.LinuxNetwork {
	return specs.LinuxNetwork{ClassID: n.ClassID, Priorities: each(n.Priorities, InterfacePriority.spec)}
}

func (p InterfacePriority) spec() specs.LinuxInterfacePriority {
	return specs.LinuxInterfacePriority{Name: p.Name, Priority: p.Priority}
}
