// Package machine says what a machine is: it reads machine YAML, finds every mistake in it, and plans from it and the
// configs of its images what is in the machine's root filesystem.
//
// The YAML is that of LinuxKit. The package is pure: it reads no file, no network and no clock, so the same input gives
// the same plan.
package machine

import (
	"fmt"

	"github.com/slipway-build/slipway/internal/contract"
)

// Machine is what one or several machine YAMLs describe.
type Machine struct {
	model
	names    []string // of the sources
	ids      map[string]uint32
	warnings Diagnostics
}

// model is the schema of the machine YAML: its fields are the keys, their types say what may stand there, and their
// tags hold the rest, see [Field]. Whoever adds a key adds a field and uses it; reading, checking, suggestions, merging
// and reference pages follow.
type model struct {
	Kernel     value[kernel]   `yaml:"kernel" merge:"keys" doc:"The kernel and its command line."`
	Init       list[reference] `yaml:"init" merge:"join" doc:"Images that make the root filesystem, unpacked over each other in this order. Their labels have no effect." example:"[slipwaybuild/init:v1, slipwaybuild/runc:v1]"`
	Onboot     list[container] `yaml:"onboot" merge:"join" noun:"onboot" also:"system" doc:"Containers that run to their end, one after another, before the services start."`
	Onshutdown list[container] `yaml:"onshutdown" merge:"join" noun:"onshutdown" doc:"Containers that run to their end, one after another, when the machine shuts down."`
	Services   list[container] `yaml:"services" merge:"join" noun:"service" also:"daemon" doc:"Containers that run as long as the machine does. Their names are unique."`
	Files      list[file]      `yaml:"files" merge:"join" noun:"file" doc:"Files, directories and symbolic links, written over all images in this order."`
	Volumes    list[volume]    `yaml:"volumes" merge:"join" noun:"volume" doc:"Directories that containers share. A container binds one by its name."`
	Trust      value[trust]    `yaml:"trust" merge:"keys" doc:"Accepted for old files; has no effect."`
}

// trust is the section about Docker Content Trust, which no longer exists.
type trust struct {
	Image list[string] `yaml:"image" doc:"No effect." example:"[linuxkit/kernel]"`
	Org   list[string] `yaml:"org" doc:"No effect." example:"[linuxkit, library]"`
}

// kernel is the kernel of a machine.
type kernel struct {
	Image   value[reference] `yaml:"image" empty:"keep" doc:"Image with the kernel. Without it the machine has no kernel and the other keys have no effect." example:"slipwaybuild/kernel:v1"`
	Cmdline value[string]    `yaml:"cmdline" empty:"keep" doc:"Command line of the kernel, taken byte for byte." example:"console=ttyS0"`
	Binary  value[string]    `yaml:"binary" empty:"keep" default:"kernel" doc:"Path of the kernel in the image." example:"vmlinuz"`
	Tar     value[string]    `yaml:"tar" default:"kernel.tar" doc:"Path in the image of a tar that is unpacked into the root filesystem, usually with the modules. none or an empty text: there is none." example:"none"`
	Ucode   value[string]    `yaml:"ucode" doc:"Path in the image of a cpio archive with microcode, put before the initrd. One that the image lacks is left out." example:"intel-ucode.cpio"`
}

// sections are all containers in the order in which they get their ids and share trees.
func (m *model) sections() []section {
	return []section{
		{name: contract.Onboot, noun: "onboot", containers: m.Onboot.V},
		{name: contract.Onshutdown, noun: "onshutdown", containers: m.Onshutdown.V},
		{name: contract.Services, noun: "service", containers: m.Services.V},
	}
}

// section is a list of containers.
type section struct {
	name, noun string
	containers []value[container]
}

// component is the name of a container among the components of the machine.
func (s section) component(c container) string { return s.name + "." + string(c.Name.V) }

// title is what diagnostics call a container.
func (s section) title(c container) string {
	if c.Name.V == "" {
		return s.noun + " without name"
	}
	return s.noun + " " + quote(string(c.Name.V))
}

// initName is the name of an init image among the components of the machine.
func initName(i int) string { return fmt.Sprintf("init[%d]", i) }
