// Package llb turns a machine's plan into a BuildKit graph.
//
// The graph has one vertex per component, which packs that component's image
// into a segment; and one per output format, which takes the segments in order. A vertex is keyed by the bytes it reads, so that a
// changed component runs its own pack and the format again, and
// nothing else. Everything runs in containers that hold one tool alone,
// without network, on mounts that are read-only but for the output.
package llb

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/client/llb"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipway-build/slipway/exporter/format"
	"github.com/slipway-build/slipway/exporter/segment"
	"github.com/slipway-build/slipway/machine"
)

// Where the tools lie in the frontend image and in the containers.
const (
	packerPath   = "/slipway-packer"
	exporterPath = "/slipway-exporter"
	loadersPath  = "/loaders"
	sourcesPath  = "/sources"
	outPath      = "/out"
)

// Input is what a graph is made of besides the plan itself.
type Input struct {
	Plan   *machine.Plan
	Images map[string]Image // by canonical name
	// Layouts are the images that the machine holds as OCI image layouts, by component.
	Layouts map[string]Layout
	// Contexts hold the files that [machine.Entry.Source] names, each below
	// the name of its context.
	Contexts map[string]llb.State
	// Tools holds packer, exporter and boot loaders: the frontend's own image.
	Tools llb.State
	// Builder is the platform of the worker: nothing of the machine is executed.
	Builder ocispecs.Platform
	// Session is a state that no other session has. A vertex whose key depends on
	// it is in no exported cache, and neither is what depends on that vertex.
	Session llb.State
	// Location gives the place in the machine YAML that a vertex comes from.
	Location func(machine.Range) llb.ConstraintsOpt
	// IgnoreCache tells whether a component is to be made anew.
	IgnoreCache func(component string) bool
	// Merge tells whether the builder can put states over each other without a copy.
	Merge bool
	// Label precedes every vertex name, e.g. with the platform.
	Label string
}

// Image is where an image's files come from.
type Image struct {
	Root   llb.State // the root filesystem
	Pinned bool      // Root is named by a digest, which is its key
	Layers []Blob    // the same as layers, bottom first; preferred where there are any
}

// Layout is an image as it was published, for some or all platforms.
type Layout struct {
	Index Blob
	Blobs []Blob // manifests, configurations and layers
}

// Blob is a file in the root of a state.
type Blob struct {
	State llb.State
	Name  string
}

// Options are the user's choices for one output.
type Options struct {
	Formats      []format.Format
	Name         string // prefix of the output files
	Size         int64  // of a disk, in bytes; 0 for the smallest that fits
	Map          bool   // write the map of a disk beside it
	Compression  string // of the segments: an algorithm, or algorithm:level
	Architecture string // of the machine, in Go's spelling
	Epoch        *int64 // SOURCE_DATE_EPOCH, in seconds; nil for the exporter's own constant
}

// Machine returns the state whose root folder holds the output files of all
// formats.
func Machine(in Input, opt Options) (llb.State, error) {
	type parts struct {
		graph
		boot     llb.State
		segments []packed
	}
	made := map[segment.Archive]*parts{}
	var written []llb.State
	for _, f := range opt.Formats {
		p := made[f.Segments]
		if p == nil {
			p = &parts{graph: graph{Input: in, Options: opt, archive: f.Segments}}
			var err error
			if p.boot, p.segments, err = p.graph.segments(); err != nil {
				return llb.State{}, err
			}
			made[f.Segments] = p
		}
		state := p.write(f, p.boot, p.segments)
		if f.Container {
			state = p.unpack(f, state)
		}
		written = append(written, state)
	}
	if len(written) == 1 {
		return written[0], nil
	}
	name := llb.WithCustomName("[" + in.Label + "internal] gather the formats")
	if in.Merge {
		return llb.Merge(written, name), nil
	}
	all := llb.Scratch().Platform(in.Builder)
	for _, w := range written {
		all = all.File(llb.Copy(w, "/", "/", &llb.CopyInfo{CopyDirContentsOnly: true}), name)
	}
	return all, nil
}

// Segments returns the states whose file [segment.FileName] is a component's part
// of the initrd, by component.
func Segments(in Input, opt Options) (map[string]llb.State, error) {
	g := graph{Input: in, Options: opt, archive: segment.CPIO}
	_, segments, err := g.segments()
	out := make(map[string]llb.State, len(segments))
	for _, s := range segments {
		out[s.component] = s.state
	}
	return out, err
}

// segments makes the parts of the machine, and what the kernel's image has for
// the boot.
func (g *graph) segments() (boot llb.State, segments []packed, err error) {
	in := g.Input
	boot = llb.Scratch()
	dirs, err := g.entries("directories", in.Plan.Dirs)
	if err != nil {
		return boot, nil, err
	}
	segments = append(segments, dirs)

	if k := in.Plan.Kernel; k != nil {
		image, err := g.image(k.Image)
		if err != nil {
			return boot, nil, err
		}
		boot = g.kernel(k, image)
		if k.Tar != "" {
			segments = append(segments, packed{component: "kernel", state: boot})
		}
	}
	for _, tree := range in.Plan.Trees {
		image, err := g.image(tree.Image)
		if err != nil {
			return boot, nil, err
		}
		segments = append(segments, packed{component: tree.Name, state: g.pack(tree, image)})
	}
	for _, layout := range in.Plan.Layouts {
		blobs, ok := in.Layouts[layout.Name]
		if !ok {
			return boot, nil, fmt.Errorf("image %s of %s is not resolved", layout.Image, layout.Name)
		}
		segments = append(segments, packed{component: layout.Name, state: g.layout(layout, blobs)})
	}
	for _, generated := range []struct {
		name    string
		entries []machine.Entry
	}{
		{"configuration", in.Plan.Configs},
		{"files", entriesWith(in.Plan.Files, false)},
		{"secrets", entriesWith(in.Plan.Files, true)},
	} {
		if len(generated.entries) == 0 {
			continue
		}
		s, err := g.entries(generated.name, generated.entries)
		if err != nil {
			return boot, nil, err
		}
		segments = append(segments, s)
	}
	return boot, segments, nil
}

type graph struct {
	Input
	Options
	archive segment.Archive
	private bool // there are secrets, of which exported caches must be free
}

func (g *graph) image(name string) (Image, error) {
	image, ok := g.Images[name]
	if !ok {
		return image, fmt.Errorf("image %s is not resolved", name)
	}
	return image, nil
}

// reads makes an image the input of a vertex.
func (v *vertex) reads(image Image) {
	if len(image.Layers) == 0 {
		v.args = append(v.args, "--in", "/in")
		v.mounts = append(v.mounts, mount{at: "/in", state: image.Root, unread: image.Pinned})
	}
	for i, l := range image.Layers {
		at := fmt.Sprintf("/layers/%03d", i)
		v.args = append(v.args, "--layer", at)
		v.mounts = append(v.mounts, mount{at: at, state: l.State, path: l.Name, unread: true})
	}
}

// pack makes one component's segment.
func (g *graph) pack(t machine.Tree, image Image) llb.State {
	v := vertex{
		component: t.Name,
		name:      "pack " + t.Image,
		tool:      packerPath,
		args:      slices.Concat([]string{"pack", "--prefix", t.Prefix, "--rules", t.Rules}, g.encoding()),
		opts:      []llb.ConstraintsOpt{g.Location(t.Range)},
	}
	v.reads(image)
	return g.run(v)
}

// kernel takes kernel, microcode and the kernel's own tar out of their image.
func (g *graph) kernel(k *machine.KernelFiles, image Image) llb.State {
	v := vertex{
		component: "kernel",
		name:      "pack " + k.Image,
		tool:      packerPath,
		args:      slices.Concat([]string{"kernel", "--binary", k.Binary, "--tar", k.Tar, "--ucode", k.Ucode}, g.encoding()),
		opts:      []llb.ConstraintsOpt{g.Location(k.BinaryRange)},
	}
	if k.TarRange != k.BinaryRange {
		v.opts = append(v.opts, g.Location(k.TarRange))
	}
	v.reads(image)
	return g.run(v)
}

// layout puts an image as it was published into a segment.
func (g *graph) layout(l machine.Layout, image Layout) llb.State {
	v := vertex{
		component: l.Name,
		name:      "pack " + l.Image,
		tool:      packerPath,
		args:      slices.Concat([]string{"layout", "--prefix", l.Prefix, "--name", l.Image, "--index", "/index"}, g.encoding()),
		mounts:    []mount{{at: "/index", state: image.Index.State, path: image.Index.Name, unread: true}},
		opts:      []llb.ConstraintsOpt{g.Location(l.Range)},
	}
	for _, p := range l.Platforms {
		v.args = append(v.args, "--platform", p)
	}
	for _, b := range image.Blobs {
		at := path.Join("/blobs", b.Name)
		v.args = append(v.args, "--blob", at)
		v.mounts = append(v.mounts, mount{at: at, state: b.State, path: b.Name, unread: true})
	}
	return g.run(v)
}

// encoding says how segments are written: compressed for an initrd, else as
// archives that the writer of a format can look into.
func (g *graph) encoding() []string {
	if g.archive == segment.Tar {
		return []string{"--archive", "tar"}
	}
	return []string{"--compression", g.Compression}
}

// entriesWith gives the entries whose contents are secret, or the others.
func entriesWith(entries []machine.Entry, secret bool) []machine.Entry {
	return slices.DeleteFunc(slices.Clone(entries), func(e machine.Entry) bool { return (e.Secret != "") != secret })
}

// entries makes a segment of generated files, of files of contexts and of
// secrets. What is known already needs no container.
func (g *graph) entries(name string, entries []machine.Entry) (packed, error) {
	v := vertex{
		component: name,
		name:      fmt.Sprintf("pack %d entries", len(entries)),
		tool:      packerPath,
		args:      slices.Concat([]string{"entries", "--spec", "/spec/entries.json"}, g.encoding(), []string{"--source", sourcesPath}),
	}
	spec := slices.Clone(entries)
	contexts := map[string]bool{}
	for i, e := range entries {
		switch {
		case e.Secret != "":
			spec[i].Source = path.Join("secrets", strconv.Itoa(i))
			v.secrets = append(v.secrets, llb.AddSecret(path.Join(sourcesPath, spec[i].Source), llb.SecretID(e.Secret)))
			g.private = true
		case e.Source != "":
			context, _, _ := strings.Cut(e.Source, "/")
			contexts[context] = true
		default:
			continue
		}
		v.opts = append(v.opts, g.Location(e.Range))
	}
	data, err := json.Marshal(spec)
	if err != nil {
		return packed{}, fmt.Errorf("encode %s: %w", name, err)
	}
	if len(v.opts) == 0 {
		return g.generate(name, len(entries), data)
	}
	v.mounts = append(v.mounts, mount{at: "/spec", state: g.file("entries.json", data), unread: true})
	if len(v.secrets) > 0 {
		v.mounts = append(v.mounts, mount{at: "/session", state: g.Session, unread: true})
	}
	for _, context := range slices.Sorted(maps.Keys(contexts)) {
		v.mounts = append(v.mounts, mount{at: path.Join(sourcesPath, context), state: g.Contexts[context]})
	}
	return packed{component: name, state: g.run(v)}, nil
}

// generate makes a segment of entries whose contents the plan has.
func (g *graph) generate(component string, entries int, spec []byte) (packed, error) {
	packer := segment.Packer{Archive: g.archive}
	if g.archive == segment.CPIO {
		var err error
		if packer.Compression, err = segment.ParseCompression(g.Compression); err != nil {
			return packed{}, err
		}
	}
	files, err := packer.Files(bytes.NewReader(spec))
	if err != nil {
		return packed{}, fmt.Errorf("%s: %w", component, err)
	}
	var action *llb.FileAction
	for _, name := range slices.Sorted(maps.Keys(files)) {
		action = action.Mkfile("/"+name, 0o644, files[name])
	}
	name := fmt.Sprintf("[%s%s] generate %d entries", g.Label, component, entries)
	return packed{component, llb.Scratch().Platform(g.Builder).File(action, llb.WithCustomName(name)), true}, nil
}

// packed is the segment of a component. The name is for messages.
type packed struct {
	component string
	state     llb.State
	known     bool // the key of the state is made of its contents
}

// write makes a format. Its key has all segments, in order.
func (g *graph) write(f format.Format, boot llb.State, segments []packed) llb.State {
	v := vertex{
		component: f.Name,
		name:      "write " + g.Name,
		tool:      exporterPath,
		args:      []string{"write", "--format", f.Name, "--name", g.Name, "--arch", g.Architecture, "--cmdline", "/cmdline/cmdline"},
		mounts:    []mount{{at: "/cmdline", state: g.file("cmdline", []byte(g.Plan.Cmdline)), unread: true}},
	}
	if k := g.Plan.Kernel; k != nil {
		v.args = append(v.args, "--kernel", "/kernel/kernel")
		if k.Ucode != "" {
			v.args = append(v.args, "--ucode", "/kernel/ucode.cpio")
		}
		v.mounts = append(v.mounts, mount{at: "/kernel", state: boot})
	}
	if g.Epoch != nil {
		v.args = append(v.args, "--epoch", strconv.FormatInt(*g.Epoch, 10))
	}
	if f.Options.Has(format.Size) && g.Size > 0 {
		v.args = append(v.args, "--size", strconv.FormatInt(g.Size, 10))
	}
	if f.Options.Has(format.Map) && g.Map {
		v.args = append(v.args, "--map")
	}
	if f.Options.Has(format.Compression) {
		v.args = append(v.args, "--compression", g.Compression)
	}
	if f.Firmware != 0 {
		v.args = append(v.args, "--loaders", loadersPath)
		v.mounts = append(v.mounts, mount{at: loadersPath, state: g.Tools, path: loadersPath})
	}
	for i, s := range segments {
		at := fmt.Sprintf("/segments/%03d", i)
		v.args = append(v.args, s.component+"="+at)
		v.mounts = append(v.mounts, mount{at: at, state: s.state, unread: g.private || s.known})
	}
	return g.run(v)
}

// unpack turns an archive into the files of an image. BuildKit itself does that, and
// keeps owners, devices and extended attributes as far as the builder can.
func (g *graph) unpack(f format.Format, archive llb.State) llb.State {
	return llb.Scratch().Platform(g.Builder).File(
		llb.Copy(archive, "/"+f.Files(g.Name)[0], "/", &llb.CopyInfo{AttemptUnpack: true}),
		llb.WithCustomName("["+g.Label+"docker] unpack"))
}

type vertex struct {
	component string
	name      string
	tool      string // path of the program
	args      []string
	mounts    []mount
	secrets   []llb.RunOption
	opts      []llb.ConstraintsOpt
}

type mount struct {
	at    string
	state llb.State
	path  string // within state

	// The key is that of the state, not of its content: because the state is named
	// by its digest or has its contents in its definition, or because no cache is to
	// have what is made of it.
	unread bool
}

// run executes a tool and returns its output folder. The root is empty, so that
// the frontend's version is not part of the key: only the tool's own bytes are.
func (g *graph) run(v vertex) llb.State {
	opts := []llb.RunOption{
		llb.Args(slices.Concat([]string{v.tool, v.args[0], "--out", outPath}, v.args[1:])),
		llb.AddMount(v.tool, g.Tools, llb.SourcePath(v.tool), llb.Readonly),
		llb.Network(llb.NetModeNone),
		llb.WithCustomName("[" + g.Label + v.component + "] " + v.name),
	}
	for _, m := range v.mounts {
		mo := []llb.MountOption{llb.Readonly}
		if m.path != "" {
			mo = append(mo, llb.SourcePath(m.path))
		}
		if m.unread {
			mo = append(mo, llb.ContentCache(llb.MountContentCacheOff))
		}
		opts = append(opts, llb.AddMount(m.at, m.state, mo...))
	}
	opts = append(opts, v.secrets...)
	for _, o := range v.opts {
		opts = append(opts, o)
	}
	if g.IgnoreCache(v.component) {
		opts = append(opts, llb.IgnoreCache)
	}
	return llb.Scratch().Platform(g.Builder).Run(opts...).AddMount(outPath, llb.Scratch())
}

// file is a state with one generated file.
func (g *graph) file(name string, data []byte) llb.State {
	return llb.Scratch().Platform(g.Builder).File(
		llb.Mkfile(path.Join("/", name), 0o644, data),
		llb.WithCustomName("["+g.Label+"internal] generate "+name))
}
