package machine

import (
	"io/fs"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// device is a device of a container.
type device struct {
	Path  value[string] `yaml:"path,required" doc:"Path of the device node. all: no node, but the right to use every device of the type." example:"/dev/kvm"`
	Type  value[string] `yaml:"type" enum:"a b c u p" doc:"b: block, c or u: character, p: FIFO, a: all of them (with path all)." example:"c"`
	Major value[int64]  `yaml:"major" min:"0" max:"4095" default:"0" doc:"Major number of the device." example:"10"`
	Minor value[int64]  `yaml:"minor" min:"0" max:"1048575" default:"0" doc:"Minor number of the device." example:"232"`
	Mode  value[mode]   `yaml:"mode" doc:"Permissions of the node, in octal digits. Needed unless path is all." example:"\"0660\""`
}

// allDevices is the path of a device that stands for all of a type.
const allDevices = "all"

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

func (k checker) device(d value[device]) {
	switch path := d.V.Path.V; {
	case path == allDevices:
	case d.V.Type.V == "" || d.V.Type.V == "a":
		k.wrong(d.At, "device %s in %s needs a type: b, c, u or p", quote(path), k.where)
	case !d.V.Mode.set():
		k.wrong(d.At, `device %s in %s needs a mode, such as "0660"`, quote(path), k.where)
	}
}
