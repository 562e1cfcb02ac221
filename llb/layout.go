package graph

import (
	"fmt"
	"path"
	"slices"

	"github.com/moby/buildkit/client/llb"

	"github.com/slipway-build/slipway/machine"
)

// layout packs an image as an OCI image layout.
func (b builder) layout(l machine.Layout, image ImageLayout) llb.State {
	if len(image.Unpacked) > 0 {
		return b.repack(l, image.Unpacked)
	}
	args := slices.Concat([]string{"layout", "--prefix", l.Prefix, "--name", l.Image, "--index", "/index"}, b.encoding())
	mounts := []mount{{at: "/index", state: image.Index.State, path: image.Index.Name, keyedByDefinition: true}}
	for _, p := range l.Platforms {
		args = append(args, "--platform", p)
	}
	for _, blob := range image.Blobs {
		at := path.Join("/blobs", blob.Name)
		args = append(args, "--blob", at)
		mounts = append(mounts, mount{at: at, state: blob.State, path: blob.Name, keyedByDefinition: true})
	}
	return b.packLayout(l, args, mounts)
}

// repack packs unpacked images as an OCI image layout.
func (b builder) repack(l machine.Layout, images []UnpackedImage) llb.State {
	args := slices.Concat([]string{"repack", "--prefix", l.Prefix, "--name", l.Image}, b.encoding())
	var mounts []mount
	for n, i := range images {
		image, config := fmt.Sprintf("/images/%03d", n), fmt.Sprintf("/configs/%03d", n)
		args = append(args, "--image", image, "--config", config)
		const name = "config.json"
		mounts = append(mounts,
			mount{at: image, state: i.State, keyedByDefinition: i.Pinned},
			mount{at: config, state: b.file(name, i.Config), path: name, keyedByDefinition: true})
	}
	return b.packLayout(l, args, mounts)
}

func (b builder) packLayout(l machine.Layout, args []string, mounts []mount) llb.State {
	return b.run(vertex{
		component: l.Name,
		name:      "pack " + l.Image,
		program:   packerPath,
		args:      args,
		mounts:    mounts,
		opts:      []llb.ConstraintsOpt{b.in.Location(l.Range)},
	})
}
