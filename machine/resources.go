package machine

import (
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// resources are the limits of a container by cgroups. The keys are those of the OCI runtime specification, except
// blockio (blockIO) and pageSize, which is a number of bytes.
type resources struct {
	Devices        list[deviceRule]    `yaml:"devices" doc:"Rules for the use of devices, before those that devices of the container gives."`
	Memory         value[memory]       `yaml:"memory" doc:"Limits of memory."`
	CPU            value[cpu]          `yaml:"cpu" doc:"Limits of processor time."`
	Pids           value[pids]         `yaml:"pids" doc:"Limits of tasks."`
	BlockIO        value[blockIO]      `yaml:"blockio" doc:"Limits of block devices."`
	HugepageLimits list[hugepageLimit] `yaml:"hugepageLimits" doc:"Limits of huge pages."`
	Network        value[network]      `yaml:"network" doc:"Class and priorities of network traffic, cgroup v1."`
	Unified        dict                `yaml:"unified" doc:"Files of cgroup v2 and their values. Not known to LinuxKit." example:"{memory.high: \"67108864\"}"`
}

type deviceRule struct {
	Allow  value[bool]   `yaml:"allow" default:"false" doc:"Whether the rule allows or denies."`
	Type   value[string] `yaml:"type" enum:"a b c u p" default:"all" doc:"a: all, b: block, c: character." example:"c"`
	Major  value[int64]  `yaml:"major" default:"all" doc:"Major number of the devices." example:"10"`
	Minor  value[int64]  `yaml:"minor" default:"all" doc:"Minor number of the devices." example:"200"`
	Access value[string] `yaml:"access" doc:"r: read, w: write, m: make nodes." example:"rwm"`
}

type memory struct {
	Limit            value[int64]  `yaml:"limit" doc:"Bytes of memory." example:"67108864"`
	Reservation      value[int64]  `yaml:"reservation" doc:"Bytes of memory that the container falls back to when memory is short." example:"33554432"`
	Swap             value[int64]  `yaml:"swap" doc:"Bytes of memory and swap together." example:"134217728"`
	Kernel           value[int64]  `yaml:"kernel" doc:"Bytes of kernel memory, cgroup v1." example:"16777216"`
	KernelTCP        value[int64]  `yaml:"kernelTCP" doc:"Bytes of kernel memory for TCP, cgroup v1." example:"8388608"`
	Swappiness       value[uint64] `yaml:"swappiness" max:"100" doc:"How readily memory is swapped, cgroup v1." example:"10"`
	DisableOOMKiller value[bool]   `yaml:"disableOOMKiller" doc:"Whether the container waits instead of being killed when memory is short, cgroup v1."`
}

type cpu struct {
	Shares          value[uint64] `yaml:"shares" doc:"Weight against other cgroups." example:"512"`
	Quota           value[int64]  `yaml:"quota" doc:"Microseconds of processor time in a period." example:"50000"`
	Period          value[uint64] `yaml:"period" doc:"Length of the period in microseconds." example:"100000"`
	RealtimeRuntime value[int64]  `yaml:"realtimeRuntime" doc:"Microseconds of realtime scheduling in a period, cgroup v1." example:"10000"`
	RealtimePeriod  value[uint64] `yaml:"realtimePeriod" doc:"Length of the realtime period in microseconds, cgroup v1." example:"1000000"`
	Cpus            value[string] `yaml:"cpus" doc:"Processors to use." example:"\"0-1\""`
	Mems            value[string] `yaml:"mems" doc:"Memory nodes to use." example:"\"0\""`
}

type pids struct {
	Limit value[int64] `yaml:"limit" doc:"How many tasks there may be." example:"100"`
}

type blockIO struct {
	Weight                  value[uint16]        `yaml:"weight" max:"1000" doc:"Weight against other cgroups." example:"500"`
	LeafWeight              value[uint16]        `yaml:"leafWeight" max:"1000" doc:"Weight against child cgroups, cgroup v1." example:"500"`
	WeightDevice            list[weightDevice]   `yaml:"weightDevice" doc:"Weights for single devices."`
	ThrottleReadBpsDevice   list[throttleDevice] `yaml:"throttleReadBpsDevice" doc:"Bytes read a second."`
	ThrottleWriteBpsDevice  list[throttleDevice] `yaml:"throttleWriteBpsDevice" doc:"Bytes written a second."`
	ThrottleReadIOPSDevice  list[throttleDevice] `yaml:"throttleReadIOPSDevice" doc:"Read operations a second."`
	ThrottleWriteIOPSDevice list[throttleDevice] `yaml:"throttleWriteIOPSDevice" doc:"Write operations a second."`
}

type weightDevice struct {
	Major      value[int64]  `yaml:"major" min:"0" max:"4095" default:"0" doc:"Major number of the device." example:"8"`
	Minor      value[int64]  `yaml:"minor" min:"0" max:"1048575" default:"0" doc:"Minor number of the device." example:"0"`
	Weight     value[uint16] `yaml:"weight" max:"1000" doc:"Weight against other cgroups." example:"500"`
	LeafWeight value[uint16] `yaml:"leafWeight" max:"1000" doc:"Weight against child cgroups, cgroup v1." example:"500"`
}

type throttleDevice struct {
	Major value[int64]  `yaml:"major" min:"0" max:"4095" default:"0" doc:"Major number of the device." example:"8"`
	Minor value[int64]  `yaml:"minor" min:"0" max:"1048575" default:"0" doc:"Minor number of the device." example:"0"`
	Rate  value[uint64] `yaml:"rate" default:"0" doc:"How many a second." example:"1048576"`
}

type hugepageLimit struct {
	PageSize value[uint64] `yaml:"pageSize,required" doc:"Size of the pages in bytes." example:"2097152"`
	Limit    value[uint64] `yaml:"limit" default:"0" doc:"Bytes of such pages." example:"4194304"`
}

type network struct {
	ClassID    value[uint32]           `yaml:"classID" doc:"Class of the traffic." example:"1048577"`
	Priorities list[interfacePriority] `yaml:"priorities" doc:"Priorities on single interfaces."`
}

type interfacePriority struct {
	Name     value[string] `yaml:"name" doc:"Name of the interface." example:"eth0"`
	Priority value[uint32] `yaml:"priority" default:"0" doc:"Priority of the traffic." example:"5"`
}

// resources gives the limits of a container with a rule for each of its devices.
func (c *container) resources() *specs.LinuxResources {
	r := &c.Resources.V
	spec := &specs.LinuxResources{
		Memory:         converted(r.Memory, memory.spec),
		CPU:            converted(r.CPU, cpu.spec),
		Pids:           converted(r.Pids, pids.spec),
		BlockIO:        converted(r.BlockIO, blockIO.spec),
		Network:        converted(r.Network, network.spec),
		HugepageLimits: each(r.HugepageLimits, hugepageLimit.spec),
		Devices:        each(r.Devices, deviceRule.spec),
		Unified:        texts(r.Unified),
	}
	for _, d := range c.Devices.V {
		rule := specs.LinuxDeviceCgroup{Allow: true, Type: d.V.Type.V, Access: "rwm"}
		if d.V.Path.V != allDevices {
			rule.Major, rule.Minor = &d.V.Major.V, &d.V.Minor.V
		}
		spec.Devices = append(spec.Devices, rule)
	}
	return spec
}

// converted gives what a function makes of a value, nil if it is not written.
func converted[T, S any](v value[T], convert func(T) S) *S {
	if !v.set() {
		return nil
	}
	s := convert(v.V)
	return &s
}

// each gives what a function makes of the entries of a list.
func each[T, S any](l list[T], convert func(T) S) []S {
	var out []S
	for _, e := range l.V {
		out = append(out, convert(e.V))
	}
	return out
}

func (d deviceRule) spec() specs.LinuxDeviceCgroup {
	return specs.LinuxDeviceCgroup{Allow: d.Allow.V, Type: d.Type.V, Major: d.Major.pointer(), Minor: d.Minor.pointer(), Access: d.Access.V}
}

func (m memory) spec() specs.LinuxMemory {
	return specs.LinuxMemory{
		Limit:       m.Limit.pointer(),
		Reservation: m.Reservation.pointer(),
		Swap:        m.Swap.pointer(),
		//lint:ignore SA1019 runtimes may ignore it, but the YAML has it
		Kernel:           m.Kernel.pointer(),
		KernelTCP:        m.KernelTCP.pointer(),
		Swappiness:       m.Swappiness.pointer(),
		DisableOOMKiller: m.DisableOOMKiller.pointer(),
	}
}

func (c cpu) spec() specs.LinuxCPU {
	return specs.LinuxCPU{
		Shares:          c.Shares.pointer(),
		Quota:           c.Quota.pointer(),
		Period:          c.Period.pointer(),
		RealtimeRuntime: c.RealtimeRuntime.pointer(),
		RealtimePeriod:  c.RealtimePeriod.pointer(),
		Cpus:            c.Cpus.V,
		Mems:            c.Mems.V,
	}
}

func (p pids) spec() specs.LinuxPids { return specs.LinuxPids{Limit: p.Limit.pointer()} }

func (b blockIO) spec() specs.LinuxBlockIO {
	return specs.LinuxBlockIO{
		Weight:                  b.Weight.pointer(),
		LeafWeight:              b.LeafWeight.pointer(),
		WeightDevice:            each(b.WeightDevice, weightDevice.spec),
		ThrottleReadBpsDevice:   each(b.ThrottleReadBpsDevice, throttleDevice.spec),
		ThrottleWriteBpsDevice:  each(b.ThrottleWriteBpsDevice, throttleDevice.spec),
		ThrottleReadIOPSDevice:  each(b.ThrottleReadIOPSDevice, throttleDevice.spec),
		ThrottleWriteIOPSDevice: each(b.ThrottleWriteIOPSDevice, throttleDevice.spec),
	}
}

func (w weightDevice) spec() specs.LinuxWeightDevice {
	var d specs.LinuxWeightDevice
	d.Major, d.Minor = w.Major.V, w.Minor.V
	d.Weight, d.LeafWeight = w.Weight.pointer(), w.LeafWeight.pointer()
	return d
}

func (t throttleDevice) spec() specs.LinuxThrottleDevice {
	var d specs.LinuxThrottleDevice
	d.Major, d.Minor, d.Rate = t.Major.V, t.Minor.V, t.Rate.V
	return d
}

// spec writes the page size as the specification wants it: "2MB" for 2097152.
func (h hugepageLimit) spec() specs.LinuxHugepageLimit {
	size, unit := h.PageSize.V, 0
	units := []string{"B", "KB", "MB", "GB"}
	for size >= 1024 && size%1024 == 0 && unit < len(units)-1 {
		size /= 1024
		unit++
	}
	return specs.LinuxHugepageLimit{Pagesize: strconv.FormatUint(size, 10) + units[unit], Limit: h.Limit.V}
}

func (n network) spec() specs.LinuxNetwork {
	return specs.LinuxNetwork{ClassID: n.ClassID.pointer(), Priorities: each(n.Priorities, interfacePriority.spec)}
}

func (p interfacePriority) spec() specs.LinuxInterfacePriority {
	return specs.LinuxInterfacePriority{Name: p.Name.V, Priority: p.Priority.V}
}
