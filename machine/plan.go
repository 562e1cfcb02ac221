package machine

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipway-build/slipway/internal/contract"
	"github.com/slipway-build/slipway/internal/schema"
)

// An Image is a resolved image.
type Image struct {
	Digest string              // of its manifest for the platform of the machine
	Config ocispec.ImageConfig // OCI image specification, config
}

// A Plan says what makes up the root filesystem of a machine, in the order of
// its segments: Dirs, the tree of the kernel, Trees, Layouts, Configs, Files.
// Where a path occurs twice, the later one wins.
type Plan struct {
	Cmdline  string       // of the kernel, byte for byte
	Kernel   *KernelFiles // nil without a kernel image
	Dirs     []Entry      // all directories that must exist whatever the images contain, parents first
	Trees    []Tree       // files of images: init, volumes, onboot, onshutdown, services
	Layouts  []Layout     // volumes with format oci
	Configs  []Entry      // config.json, runtime.json and the empty directories of containers
	Files    []Entry      // the section files, each path once; see also [Machine.WithoutSources]
	Starts   []Start      // what containers need to start
	Warnings Diagnostics  // those that depend on the images; see also [Machine.Warnings]

	CmdlineRange Range // of the key with the command line, or of the image of the kernel
}

// KernelFiles says what to take from the kernel image.
type KernelFiles struct {
	Image       string // canonical name
	Binary      string // path of the kernel in the image
	Tar         string // path in the image of a tar archive for the root filesystem; empty: none
	Ucode       string // path in the image of a microcode archive, skipped if the image does not contain it; empty: none
	Range       Range  // of the image
	BinaryRange Range  // of the key with the path, or of the image
	TarRange    Range  // likewise
}

// A Tree is the root filesystem of an image at its place in the machine.
type Tree struct {
	Name   string // of the component: "init[0]", "volumes.data", "onboot.dhcpcd", "onshutdown.bye", "services.sshd"
	Image  string // canonical name
	Prefix string // directory in the machine, without a leading slash; empty: the root
	Rules  string // which of LinuxKit's rules for images apply: RulesInit, RulesVolume or RulesContainer
	Range  Range  // of the image
}

// The rules for the files of images.
const (
	RulesInit      = contract.RulesInit
	RulesVolume    = contract.RulesVolume
	RulesContainer = contract.RulesContainer
)

// A Layout is an image, as an OCI image layout (OCI image specification, image
// layout), at its place in the machine.
type Layout struct {
	Name      string   // of the component: "volumes.images"
	Image     string   // canonical name
	Prefix    string   // directory in the machine, without a leading slash
	Platforms []string // to include, as OS/ARCH[/VARIANT]; empty: every manifest, including attestations
	Range     Range    // of the image
}

// An Entry is a generated file, directory or symbolic link of the machine. Its
// JSON is the [contract.Entry] that slipway-packer reads. Source is the path as
// written in the YAML, relative to the build context.
type Entry struct {
	contract.Entry

	Secret    string `json:"-"` // id of a build secret with the contents
	SBOM      bool   `json:"-"` // the contents are the SBOM of the machine
	OSRelease bool   `json:"-"` // the contents are those of os-release(5)
	Range     Range  `json:"-"` // of the source or secret, else of the entry; zero if the entry does not come from the section files
}

// The types of entries.
const (
	TypeFile      = contract.File
	TypeDirectory = contract.Directory
	TypeSymlink   = contract.Symlink
)

// planner is the state of making a plan.
type planner struct {
	*Machine
	*report
	images  map[string]Image
	labels  map[string]*schema.Decoded[Container] // by image, nil if invalid
	trees   map[string]string                     // by image: the directory that holds its tree for containers
	after   map[string][]string                   // by service: those that it waits for
	waiting map[string]waiting
	sources []boundSource
	made    []string // directories that the init creates or mounts on for containers
	written []Entry  // the section files in order, also paths that occur again
	plan    Plan
}

// Plan lays out the machine. The map must hold an image for each name in
// [Machine.ImageRefs]. If labels of images are invalid, the error is
// [Diagnostics] at the places where the YAML uses these images.
func (m *Machine) Plan(images map[string]Image) (*Plan, error) {
	if m.node == nil {
		return nil, errors.New("cannot plan the machine: it does not come from Parse")
	}
	for _, ref := range m.ImageRefs() {
		if _, ok := images[ref.Name]; !ok {
			return nil, fmt.Errorf("cannot plan the machine: image %s of %s is not resolved", ref.Name, ref.Section)
		}
	}
	p := &planner{
		Machine: m,
		report:  &report{names: m.names},
		images:  images,
		labels:  map[string]*schema.Decoded[Container]{},
		trees:   map[string]string{},
		after:   map[string][]string{},
		waiting: map[string]waiting{},
	}
	p.kernel()
	p.init()
	p.volumes()
	for _, s := range m.sections() {
		for i := range s.containers {
			p.container(s, i)
		}
	}
	p.order()
	p.files()
	p.warnSources()
	p.plan.Dirs = p.dirs()
	failed, warnings := p.split()
	if len(failed) > 0 {
		return nil, failed
	}
	p.plan.Warnings = warnings
	return &p.plan, nil
}

// The defaults of the keys of the kernel, and the value of kernel.tar that
// means no archive.
const (
	defaultBinary = "kernel"
	defaultTar    = "kernel.tar"
	noTar         = "none"
)

func (p *planner) kernel() {
	k, node := &p.Kernel, p.node.Key("kernel")
	if k.Image.Name == "" {
		return
	}
	image := at(node.Key("image"))
	plan := &KernelFiles{
		Image:       k.Image.Name,
		Binary:      cmp.Or(k.Binary, defaultBinary),
		Tar:         defaultTar,
		Ucode:       k.Ucode,
		Range:       image,
		BinaryRange: cmp.Or(at(node.Key("binary")), image),
		TarRange:    cmp.Or(at(node.Key("tar")), image),
	}
	if k.Tar != nil {
		plan.Tar = *k.Tar
	}
	if plan.Tar == noTar {
		plan.Tar = ""
	}
	p.plan.Kernel, p.plan.Cmdline = plan, k.Cmdline
	p.plan.CmdlineRange = cmp.Or(at(node.Key("cmdline")), image)
}

func (p *planner) init() {
	for i, ref := range p.Init {
		p.plan.Trees = append(p.plan.Trees, Tree{contract.InitComponent(i), ref.Name, p.Prefix.Clean, RulesInit, at(p.node.Key("init").Index(i))})
	}
}

func (p *planner) volumes() {
	for i := range p.Volumes {
		v := &p.Volumes[i]
		place, prefix := at(p.node.Key("volumes").Index(i).Key("image")), v.directory()+"/"+contract.Lower
		switch {
		case v.layout():
			p.plan.Layouts = append(p.plan.Layouts, Layout{v.component(), v.Image.Name, prefix, each(v.Platforms, Platform.String), place})
		case v.Image.Name != "":
			p.plan.Trees = append(p.plan.Trees, Tree{v.component(), v.Image.Name, prefix, RulesVolume, place})
		}
	}
}

// container plans a container and its bundle.
func (p *planner) container(s section, i int) {
	own := schema.Decoded[Container]{Value: s.containers[i], Node: s.node.Index(i)}
	all, ok := p.labelled(s, own)
	if !ok {
		return
	}
	c := &all.Value
	p.useless(s, c, own.Node)
	p.sandbox(s, c, all.Node)
	if s.name == contract.Services {
		p.wait(c, cmp.Or(at(own.Node.Key("annotations")), at(own.Node.Key("image"))))
	}
	image := p.images[c.Image.Name].Config
	p.warnContainer(s, own, all, image)
	dir := contract.Bundle(s.name, i, string(c.Name))
	rootfs := dir + "/" + contract.Rootfs
	tree := dir + "/" + contract.Lower
	if c.Readonly {
		tree = rootfs
	}
	holder, shared := p.trees[c.Image.Name]
	if !shared {
		holder = tree
		p.trees[c.Image.Name] = tree
		p.plan.Trees = append(p.plan.Trees, Tree{s.component(c), c.Image.Name, tree, RulesContainer, at(own.Node.Key("image"))})
	}
	spec := p.spec(c, image)
	p.file(dir+"/"+contract.Config, indented(spec))
	p.file(dir+"/"+contract.Runtime, runtimeSpec(c, dir, holder))
	p.start(s, own, c, spec, holder)
	if !c.Readonly {
		p.directory(dir + "/" + contract.Tmp)
	}
	if holder != rootfs {
		p.directory(rootfs)
	}
}

// labelled returns a container with the label of its image applied. It reports
// false if the label is invalid.
func (p *planner) labelled(s section, own schema.Decoded[Container]) (schema.Decoded[Container], bool) {
	image := own.Value.Image
	text := p.images[image.Name].Config.Labels[Label]
	if text == "" {
		return withLabel(own, schema.Decoded[Container]{}), true
	}
	k := checker{
		Machine: p.Machine,
		report:  p.report,
		section: s.name,
		where:   fmt.Sprintf("label %s of image %s for %s", Label, image.Text, s.title(&own.Value)),
		image:   own.Node.Key("image"),
	}
	label, ok := p.labels[image.Name]
	if !ok {
		before := len(p.found)
		read := readLabel(p.report, text, k.where, k.image)
		k.capabilityLists(&read.Value, read.Node)
		if len(p.found) == before {
			label = &read
		}
		p.labels[image.Name] = label
	}
	if label == nil {
		return own, false
	}
	before := len(p.found)
	all := withLabel(own, *label)
	k.container(&all.Value, all.Node)
	return all, len(p.found) == before
}

func (p *planner) directory(path string) {
	p.plan.Configs = append(p.plan.Configs, Entry{Entry: contract.Entry{Path: path, Type: TypeDirectory, Mode: 0o755}})
}

func (p *planner) file(path string, contents []byte) {
	p.plan.Configs = append(p.plan.Configs, Entry{Entry: contract.Entry{Path: path, Type: TypeFile, Mode: 0o644, Contents: contents}})
}

// dirs returns the directories that must exist before anything is put into
// them. A machine with an init image needs the system directories, which
// LinuxKit adds to each such image that does not contain them.
func (p *planner) dirs() []Entry {
	all := map[string]Entry{}
	add := func(dir string, uid, gid uint32) {
		if _, ok := all[dir]; !ok && dir != "" {
			all[dir] = Entry{Entry: contract.Entry{Path: dir, Type: TypeDirectory, Mode: 0o755, UID: uid, GID: gid}}
		}
	}
	if len(p.Init) > 0 {
		for _, dir := range contract.SystemDirectories() {
			add(path.Join(p.Prefix.Clean, dir), 0, 0)
		}
	}
	for _, v := range p.Volumes {
		for _, part := range []string{contract.Lower, contract.Tmp, contract.Merged} {
			add(v.directory()+"/"+part, 0, 0)
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
	for _, e := range p.written {
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
