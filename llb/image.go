package graph

import (
	"fmt"
	"slices"

	"github.com/moby/buildkit/client/llb"

	"github.com/slipway-build/slipway/machine"
)

// image packs the root filesystem of an image.
func (b builder) image(t machine.Tree, rootfs Rootfs) llb.State {
	args, mounts := rootfs.inputs()
	return b.run(vertex{
		component: t.Name,
		name:      "pack " + t.Image,
		program:   packerPath,
		args:      slices.Concat([]string{"pack", "--prefix", t.Prefix, "--rules", t.Rules}, b.encoding(), args),
		mounts:    mounts,
		opts:      []llb.ConstraintsOpt{b.in.Location(t.Range)},
	})
}

// inputs returns the mounts of the files of an image, and the arguments that name
// them. Equal layers are one mount, for the reason that builder.loaders has.
func (r Rootfs) inputs() (args []string, mounts []mount) {
	if len(r.Layers) == 0 {
		return []string{"--in", "/in"}, []mount{{at: "/in", state: r.State, keyedByDefinition: r.Pinned}}
	}
	mounted := map[string]string{}
	for i, l := range r.Layers {
		at, ok := mounted[l.Name]
		if !ok {
			at = fmt.Sprintf("/layers/%03d", i)
			mounted[l.Name] = at
			mounts = append(mounts, mount{at: at, state: l.State, path: l.Name, keyedByDefinition: true})
		}
		args = append(args, "--layer", at)
	}
	return args, mounts
}
