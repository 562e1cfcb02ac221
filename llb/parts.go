package graph

import (
	"fmt"
	"slices"

	"github.com/moby/buildkit/client/llb"

	"github.com/slipway-build/slipway/exporter/segment"
	"github.com/slipway-build/slipway/machine"
)

// parts are what a format is made of.
type parts struct {
	boot     llb.State // kernel and microcode; scratch without a kernel
	segments []packed  // lower ones first
}

// packed is the segment of a component.
type packed struct {
	component string
	state     llb.State
	files     map[string][]byte // of the state, if its definition contains them; otherwise nil
	boot      bool              // the state is that of the kernel
}

// parts returns the parts of the machine.
func (b builder) parts() (parts, error) {
	p := parts{boot: llb.Scratch()}
	plan := b.in.Plan

	directories, err := b.entries("directories", plan.Dirs)
	if err != nil {
		return p, err
	}
	p.segments = append(p.segments, directories)

	if k := plan.Kernel; k != nil {
		rootfs, err := b.rootfs(k.Image)
		if err != nil {
			return p, err
		}
		p.boot = b.kernel(k, rootfs)
		if k.Tar != "" {
			p.segments = append(p.segments, packed{component: "kernel", state: p.boot, boot: true})
		}
	}
	for _, tree := range plan.Trees {
		rootfs, err := b.rootfs(tree.Image)
		if err != nil {
			return p, err
		}
		p.segments = append(p.segments, packed{component: tree.Name, state: b.image(tree, rootfs)})
	}
	for _, layout := range plan.Layouts {
		image, ok := b.in.Layouts[layout.Name]
		if !ok {
			return p, fmt.Errorf("image %s of %s is not resolved", layout.Image, layout.Name)
		}
		p.segments = append(p.segments, packed{component: layout.Name, state: b.layout(layout, image)})
	}
	for _, generated := range []struct {
		component string
		entries   []machine.Entry
	}{
		{"configuration", plan.Configs},
		{"files", slices.DeleteFunc(slices.Clone(plan.Files), isSecret)},
		{"secrets", slices.DeleteFunc(slices.Clone(plan.Files), func(e machine.Entry) bool { return !isSecret(e) })},
	} {
		if len(generated.entries) == 0 {
			continue
		}
		s, err := b.entries(generated.component, generated.entries)
		if err != nil {
			return p, err
		}
		p.segments = append(p.segments, s)
	}
	return p, nil
}

func (b builder) rootfs(name string) (Rootfs, error) {
	rootfs, ok := b.in.Images[name]
	if !ok {
		return rootfs, fmt.Errorf("image %s is not resolved", name)
	}
	return rootfs, nil
}

// encoding returns the arguments of slipway-packer for the form of the segments.
func (b builder) encoding() []string {
	if b.archive == segment.CPIO {
		return []string{"--compression", b.opt.Compression}
	}
	return []string{"--archive", string(b.archive)}
}

func isSecret(e machine.Entry) bool { return e.Secret != "" }

// private reports whether the machine contains secrets. Exported caches must
// not contain what is made of them.
func (b builder) private() bool { return slices.ContainsFunc(b.in.Plan.Files, isSecret) }
