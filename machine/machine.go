// Package machine turns machine YAML into a plan of a root filesystem.
//
// A machine YAML describes one machine in LinuxKit's format: its kernel, its
// init images, its containers, its files and its volumes. [Parse] reads one or
// several of them and reports every error with its line. [Machine.ImageRefs]
// lists the images that the caller must resolve. [Machine.Plan] combines the
// machine with the configs of these images: which trees and generated files
// make up the root filesystem, in which order.
//
// The package is pure: it reads no files, no network and no clock, so the
// plans of equal input are equal.
package machine

import (
	"github.com/slipway-build/slipway/internal/contract"
	"github.com/slipway-build/slipway/internal/schema"
)

// A Machine is what one or several machine YAMLs describe. Its fields are the
// sections of the YAML. A Machine comes from [Parse] and must not be modified,
// because Parse records beside the fields which of them are set, and where.
//
// To add a key to the YAML, add a field and use it. The tags of the fields are
// their schema (see internal/schema): decoding, checks, suggestions, merging,
// the JSON Schema and the reference page follow from them.
type Machine struct {
	Args       []Arg       `yaml:"args" merge:"join" noun:"arg" doc:"Values that the build can set. With this section, ${NAME} in the values of all files stands for the value of an arg. LinuxKit does not know this section."`
	Include    []Include   `yaml:"include" doc:"Files that are merged before this one, in this order. LinuxKit does not know this section."`
	Kernel     Kernel      `yaml:"kernel" merge:"keys" doc:"The kernel and its command line."`
	Init       []Reference `yaml:"init" merge:"join" doc:"Images that make up the root filesystem. They are unpacked over each other in this order. Their labels are ignored." example:"[slipwaybuild/init:v1, slipwaybuild/runc:v1]"`
	Prefix     Path        `yaml:"prefix" doc:"Directory of the machine below which the files of the init images and the system directories are. Other sections are not affected. Only LinuxKit's fork in the tools for AWS Nitro Enclaves knows this section." example:"rootfs/"`
	Onboot     []Container `yaml:"onboot" merge:"join" noun:"onboot" also:"system" doc:"Containers that run one after another, each until it exits, before the services start."`
	Onshutdown []Container `yaml:"onshutdown" merge:"join" noun:"onshutdown" doc:"Containers that run one after another, each until it exits, when the machine shuts down."`
	Services   []Container `yaml:"services" merge:"join" unique:"true" noun:"service" also:"daemon" doc:"Containers that run as long as the machine does. Their names must be unique."`
	Files      []File      `yaml:"files" merge:"join" noun:"file" doc:"Files, directories and symbolic links. They are written over all images in this order."`
	Volumes    []Volume    `yaml:"volumes" merge:"join" unique:"true" noun:"volume" doc:"Directories that containers share. A container binds a volume by its name."`
	Trust      Trust       `yaml:"trust" merge:"keys" doc:"Ignored. Accepted for compatibility with old files."`

	node     *schema.Node // where everything stands
	names    []string     // of the sources
	args     []ArgValue
	index    *index
	missing  map[string]bool // sources of files that do not exist
	warnings Diagnostics
}

// Retired returns the sections of 2017 that no longer exist and have no
// successor in the YAML, with what to do instead.
func (Machine) Retired() map[string]string {
	return map[string]string{
		"outputs": "choose the format with --target of docker buildx build, or --format of slipway build",
	}
}

// Trust is the section of Docker Content Trust, which no longer exists.
type Trust struct {
	Image []string `yaml:"image" doc:"Ignored." example:"[linuxkit/kernel]"`
	Org   []string `yaml:"org" doc:"Ignored." example:"[linuxkit, library]"`
}

// Kernel is the kernel of a machine.
type Kernel struct {
	Image   Reference `yaml:"image" empty:"keep" doc:"Image that contains the kernel. If it is not set, the machine has no kernel and the other keys are ignored." example:"slipwaybuild/kernel:v1"`
	Cmdline string    `yaml:"cmdline" empty:"keep" doc:"Command line of the kernel, passed on byte for byte." example:"console=ttyS0"`
	Binary  string    `yaml:"binary" empty:"keep" default:"kernel" doc:"Path of the kernel in the image." example:"vmlinuz"`
	Tar     *string   `yaml:"tar" default:"kernel.tar" doc:"Path in the image of a tar archive to unpack into the root filesystem, usually the modules. Use none or an empty string for no archive." example:"none"`
	Ucode   string    `yaml:"ucode" doc:"Path in the image of a cpio archive with microcode, which is put before the initrd. It is skipped if the image does not contain it." example:"intel-ucode.cpio"`
}

// JSONSchema returns the machine YAML as an indented JSON Schema (draft 7). The
// schema accepts what [Parse] accepts without a [NotPortable] warning, and
// more, because it cannot express every check.
func JSONSchema() []byte {
	return schema.JSONSchema(schema.Of[Machine](), SchemaURL, "Slipway machine YAML")
}

// SchemaURL is where the current JSON Schema is, which is also its id.
const SchemaURL = "https://raw.githubusercontent.com/slipway-build/slipway/main/docs/reference/machine.schema.json"

// A section is a list of containers.
type section struct {
	name, noun string
	containers []Container
	node       *schema.Node
}

// sections returns all containers in the order in which they get their ids and
// share trees.
func (m *Machine) sections() []section {
	return []section{
		{name: contract.Onboot, noun: "onboot", containers: m.Onboot, node: m.node.Key(contract.Onboot)},
		{name: contract.Onshutdown, noun: "onshutdown", containers: m.Onshutdown, node: m.node.Key(contract.Onshutdown)},
		{name: contract.Services, noun: "service", containers: m.Services, node: m.node.Key(contract.Services)},
	}
}

// component returns the name of a container among the components of the
// machine.
func (s section) component(c *Container) string { return s.name + "." + string(c.Name) }

// title is what diagnostics call a container.
func (s section) title(c *Container) string {
	if c.Name == "" {
		return s.noun + " without name"
	}
	return s.noun + " " + schema.Quote(string(c.Name))
}
