package machine

import (
	"io/fs"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/slipway-build/slipway/internal/schema"
)

// A Device is a device of a container.
type Device struct {
	Path  string `yaml:"path" required:"true" doc:"Path of the device node. all creates no node, but allows the use of every device of the type." example:"/dev/kvm"`
	Type  string `yaml:"type" enum:"a b c u p" doc:"b for a block device, c or u for a character device, p for a FIFO, a for all types (only if path is all)." example:"c"`
	Major int64  `yaml:"major" min:"0" max:"4095" default:"0" doc:"Major number of the device." example:"10"`
	Minor int64  `yaml:"minor" min:"0" max:"1048575" default:"0" doc:"Minor number of the device." example:"232"`
	Mode  *Mode  `yaml:"mode" doc:"Permissions of the node, in octal digits. Required unless path is all." example:"\"0660\""`
}

// allDevices is the path that stands for all devices of a type.
const allDevices = "all"

func (c *Container) devices() []specs.LinuxDevice {
	var out []specs.LinuxDevice
	for _, d := range c.Devices {
		if d.Path == allDevices {
			continue
		}
		// The specification takes the octal digits, not Go's mode bits.
		permissions := fs.FileMode(*d.Mode)
		out = append(out, specs.LinuxDevice{
			Path:     d.Path,
			Type:     d.Type,
			Major:    d.Major,
			Minor:    d.Minor,
			FileMode: &permissions,
		})
	}
	return out
}

func (k checker) device(d *Device, node *schema.Node) {
	switch {
	case d.Path == allDevices:
	case d.Type == "" || d.Type == "a":
		k.errorf(node, "device %s in %s needs a type: b, c, u or p", schema.Quote(d.Path), k.where)
	case d.Mode == nil:
		k.errorf(node, `device %s in %s needs a mode (for example "0660")`, schema.Quote(d.Path), k.where)
	}
}
