package graph

import (
	"path"
	"slices"

	"github.com/moby/buildkit/client/llb"
)

// Paths of the programs and of their inputs and outputs, in the image of the
// frontend and in the containers.
const (
	packerPath   = "/slipway-packer"
	exporterPath = "/slipway-exporter"
	sbomPath     = "/slipway-sbom"
	loadersPath  = "/loaders"
	sourcesPath  = "/sources"
	outPath      = "/out"
)

// vertex is one run of a program in a container.
type vertex struct {
	component string
	name      string
	program   string   // path
	args      []string // a subcommand and its arguments, without --out
	mounts    []mount
	secrets   []llb.RunOption
	opts      []llb.ConstraintsOpt
}

type mount struct {
	at    string
	state llb.State
	path  string // within state

	// keyedByDefinition makes the definition of the state the key of the mount,
	// and not the content. This is right if a digest names the state or the
	// definition contains the files, and necessary if no exported cache may contain what
	// is made of the state.
	keyedByDefinition bool
}

// run runs a program and returns its output directory. The root filesystem of the
// container is empty, so the key contains the bytes of the program but not the
// version of the frontend.
func (b builder) run(v vertex) llb.State {
	opts := []llb.RunOption{
		llb.Args(slices.Concat([]string{v.program, v.args[0], "--out", outPath}, v.args[1:])),
		llb.AddMount(v.program, b.in.Tools, llb.SourcePath(v.program), llb.Readonly),
		llb.Network(llb.NetModeNone),
		b.name(v.component, v.name),
	}
	for _, m := range v.mounts {
		mountOpts := []llb.MountOption{llb.Readonly}
		if m.path != "" {
			mountOpts = append(mountOpts, llb.SourcePath(m.path))
		}
		if m.keyedByDefinition {
			mountOpts = append(mountOpts, llb.ContentCache(llb.MountContentCacheOff))
		}
		opts = append(opts, llb.AddMount(m.at, m.state, mountOpts...))
	}
	opts = append(opts, v.secrets...)
	for _, o := range v.opts {
		opts = append(opts, o)
	}
	if b.in.IgnoreCache(v.component) {
		opts = append(opts, llb.IgnoreCache)
	}
	return llb.Scratch().Platform(b.in.Builder).Run(opts...).AddMount(outPath, llb.Scratch())
}

// file returns a state with one file.
func (b builder) file(name string, data []byte) llb.State {
	return llb.Scratch().Platform(b.in.Builder).File(
		llb.Mkfile(path.Join("/", name), 0o644, data),
		b.name("internal", "generate "+name))
}

// name names a vertex for progress output.
func (b builder) name(component, action string) llb.ConstraintsOpt {
	return llb.WithCustomName("[" + b.in.Label + component + "] " + action)
}
