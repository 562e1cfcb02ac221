package machine

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipway-build/slipway/internal/contract"
)

// Image is a resolved image.
type Image struct {
	Digest string              // of its manifest for the machine's platform
	Config ocispec.ImageConfig // OCI image specification, config
}

// Plan is what the root filesystem of a machine is made of, in the order of its segments: Dirs, the tree of the kernel,
// Trees, Layouts, Configs, Files. Where a path occurs twice, the later one holds.
type Plan struct {
	Cmdline  string      // of the kernel, byte for byte
	Kernel   *Kernel     // nil without kernel image
	Dirs     []Entry     // every directory that must exist whatever the images bring, parents first
	Trees    []Tree      // files of images: init, volumes, onboot, onshutdown, services
	Layouts  []Layout    // volumes with format oci
	Configs  []Entry     // config.json, runtime.json and the empty directories of containers
	Files    []Entry     // the section files, each path once
	Warnings Diagnostics // that need the images, besides [Machine.Warnings]
}

// Kernel says what to take from the kernel image.
type Kernel struct {
	Image       string // canonical name
	Binary      string // path of the kernel in the image
	Tar         string // path of a tar for the root filesystem in the image; empty: none
	Ucode       string // path of a microcode archive in the image, left out if the image lacks it; empty: none
	Range       Range  // of the image
	BinaryRange Range  // of the key that names the path, or of the image if none does
	TarRange    Range
}

// Tree is the root filesystem of an image at its place in the machine.
type Tree struct {
	Name   string // of the component: "init[0]", "volumes.data", "onboot.dhcpcd", "onshutdown.bye", "services.sshd"
	Image  string // canonical name
	Prefix string // directory in the machine, without leading slash; empty: the root
	Rules  string // which of LinuxKit's rules for images hold: RulesInit, RulesVolume or RulesContainer
	Range  Range  // of the image
}

// The rules for the files of images.
const (
	RulesInit      = contract.RulesInit
	RulesVolume    = contract.RulesVolume
	RulesContainer = contract.RulesContainer
)

// Layout is an image as an OCI image layout (OCI image specification, image layout) at its place in the machine.
type Layout struct {
	Name      string   // of the component: "volumes.images"
	Image     string   // canonical name
	Prefix    string   // directory in the machine, without leading slash
	Platforms []string // to hold, as OS/ARCH[/VARIANT]; none: every manifest, attestations included
	Range     Range    // of the image
}

// Entry is a generated file, directory or symbolic link of the machine. Its JSON
// is the [contract.Entry] that slipway-packer reads. Source is the path as
// written in the YAML, relative to the build context.
type Entry struct {
	contract.Entry

	Secret   string `json:"-"` // id of a build secret with the contents
	SBOM     bool   `json:"-"` // the contents are the machine's SBOM
	Optional bool   `json:"-"` // left out if the source does not exist
	Range    Range  `json:"-"` // of the source or secret, else of the entry; none for what no single entry asks for
}

// The types of entries.
const (
	File      = contract.File
	Directory = contract.Directory
	Symlink   = contract.Symlink
)

// planner holds what is known while a plan is made.
type planner struct {
	*Machine
	*report
	images map[string]Image
	labels map[string]*container // by image, nil if it cannot be read
	trees  map[string]string     // image to the directory that holds its tree for containers
	after  map[string][]string   // service to those that it waits for
	plan   Plan
}

// Plan lays out the machine. The map holds an image for each name of [Machine.ImageRefs]; it must be complete. The error
// is [Diagnostics] when labels of images are at fault, each with the place where the YAML uses the image.
func (m *Machine) Plan(images map[string]Image) (*Plan, error) {
	for _, ref := range m.ImageRefs() {
		if _, ok := images[ref.Name]; !ok {
			return nil, fmt.Errorf("cannot plan the machine: image %s of %s is not resolved", ref.Name, ref.Section)
		}
	}
	p := &planner{
		Machine: m,
		report:  &report{names: m.names},
		images:  images,
		labels:  map[string]*container{},
		trees:   map[string]string{},
		after:   map[string][]string{},
	}
	p.kernel()
	p.init()
	p.volumes()
	for _, s := range m.sections() {
		for i, c := range s.containers {
			p.container(s, i, c.V)
		}
	}
	p.plan.Files = p.entries()
	p.plan.Dirs = p.dirs()
	mistakes, warnings := p.split()
	if len(mistakes) > 0 {
		return nil, mistakes
	}
	p.plan.Warnings = warnings
	return &p.plan, nil
}

// noTar is what kernel.tar says, besides an empty text, when there is none.
const noTar = "none"

func (p *planner) kernel() {
	k := p.Kernel.V
	if k.Image.V.name == "" {
		return
	}
	plan := &Kernel{
		Image:       k.Image.V.name,
		Binary:      k.Binary.or("kernel"),
		Tar:         k.Tar.or("kernel.tar"),
		Ucode:       k.Ucode.V,
		Range:       k.Image.At,
		BinaryRange: k.Image.At,
		TarRange:    k.Image.At,
	}
	if plan.Tar == noTar {
		plan.Tar = ""
	}
	if k.Binary.set() {
		plan.BinaryRange = k.Binary.At
	}
	if k.Tar.set() {
		plan.TarRange = k.Tar.At
	}
	p.plan.Kernel, p.plan.Cmdline = plan, k.Cmdline.V
}

func (p *planner) init() {
	for i, ref := range p.Init.V {
		p.plan.Trees = append(p.plan.Trees, Tree{initName(i), ref.V.name, "", RulesInit, ref.At})
	}
}

func (p *planner) volumes() {
	for _, v := range p.Volumes.V {
		ref, prefix := v.V.Image, v.V.directory()+"/"+contract.Lower
		switch {
		case v.V.layout():
			var platforms []string
			for _, platform := range v.V.Platforms.V {
				platforms = append(platforms, string(platform.V))
			}
			p.plan.Layouts = append(p.plan.Layouts, Layout{v.V.component(), ref.V.name, prefix, platforms, ref.At})
		case ref.V.name != "":
			p.plan.Trees = append(p.plan.Trees, Tree{v.V.component(), ref.V.name, prefix, RulesVolume, ref.At})
		}
	}
}

// container plans a container and its bundle.
func (p *planner) container(s section, index int, c container) {
	all, ok := p.labelled(s, c)
	if !ok {
		return
	}
	if s.name == contract.Services {
		p.order(&all)
	}
	image := p.images[c.Image.V.name].Config
	p.warnContainer(s, c, all, image)
	dir := contract.Bundle(s.name, index, string(c.Name.V))
	rootfs := dir + "/" + contract.Rootfs
	tree := dir + "/" + contract.Lower
	if all.Readonly.V {
		tree = rootfs
	}
	holder, shared := p.trees[c.Image.V.name]
	if !shared {
		holder = tree
		p.trees[c.Image.V.name] = tree
		p.plan.Trees = append(p.plan.Trees, Tree{s.component(c), c.Image.V.name, tree, RulesContainer, c.Image.At})
	}
	p.file(dir+"/"+contract.Config, p.spec(&all, image))
	p.file(dir+"/"+contract.Runtime, runtimeSpec(&all, dir, holder))
	if !all.Readonly.V {
		p.directory(dir + "/" + contract.Tmp)
	}
	if holder != rootfs {
		p.directory(rootfs)
	}
}

// labelled gives the container with what the label of its image says.
func (p *planner) labelled(section section, c container) (container, bool) {
	image := c.Image.V.name
	text := p.images[image].Config.Labels[Label]
	if text == "" {
		return c.over(container{}), true
	}
	where := fmt.Sprintf("label %s of image %s for %s", Label, c.Image.V.text, section.title(c))
	label, ok := p.labels[image]
	if !ok {
		before := len(p.found)
		read := readLabel(p.report, text, where, c.Image.At)
		checker{p.Machine, p.report, section.name, where, c.Image.At}.capabilityLists(&read)
		if len(p.found) == before {
			label = &read
		}
		p.labels[image] = label
	}
	if label == nil {
		return c, false
	}
	before := len(p.found)
	all := c.over(*label)
	checker{p.Machine, p.report, section.name, where, c.Image.At}.container(&all)
	return all, len(p.found) == before
}

func (p *planner) directory(path string) {
	p.plan.Configs = append(p.plan.Configs, Entry{Entry: contract.Entry{Path: path, Type: Directory, Mode: 0o755}})
}

func (p *planner) file(path string, contents []byte) {
	p.plan.Configs = append(p.plan.Configs, Entry{Entry: contract.Entry{Path: path, Type: File, Mode: 0o644, Contents: contents}})
}

// dirs returns the directories that must exist before anything is put into
// them. A machine with an init image needs the system directories, which
// LinuxKit adds to each such image that lacks them.
func (p *planner) dirs() []Entry {
	all := map[string]Entry{}
	add := func(dir string, uid, gid uint32) {
		if _, ok := all[dir]; !ok && dir != "" {
			all[dir] = Entry{Entry: contract.Entry{Path: dir, Type: Directory, Mode: 0o755, UID: uid, GID: gid}}
		}
	}
	if len(p.Init.V) > 0 {
		for _, dir := range contract.SystemDirectories() {
			add(dir, 0, 0)
		}
	}
	for _, v := range p.Volumes.V {
		for _, part := range []string{contract.Lower, contract.Tmp, contract.Merged} {
			add(v.V.directory()+"/"+part, 0, 0)
		}
	}
	for _, t := range p.plan.Trees {
		add(t.Prefix, 0, 0)
	}
	for _, dir := range slices.Concat(slices.Collect(maps.Keys(all)), paths(p.plan.Configs)) {
		for _, parent := range parents(dir) {
			add(parent, 0, 0)
		}
	}
	for _, e := range p.plan.Files {
		for _, parent := range parents(e.Path) {
			add(parent, e.UID, e.GID)
		}
	}
	return slices.SortedFunc(maps.Values(all), func(a, b Entry) int { return strings.Compare(a.Path, b.Path) })
}

func paths(entries []Entry) []string {
	out := make([]string, len(entries))
	for i, e := range entries {
		out[i] = e.Path
	}
	return out
}
