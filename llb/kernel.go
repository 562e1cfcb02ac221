package graph

import (
	"slices"

	"github.com/moby/buildkit/client/llb"

	"github.com/slipway-build/slipway/machine"
)

// kernel extracts the kernel and the microcode from an image and packs the
// archive with the modules.
func (b builder) kernel(k *machine.KernelFiles, rootfs Rootfs) llb.State {
	args, mounts := rootfs.inputs()
	opts := []llb.ConstraintsOpt{b.in.Location(k.BinaryRange)}
	if k.TarRange != k.BinaryRange {
		opts = append(opts, b.in.Location(k.TarRange))
	}
	return b.run(vertex{
		component: "kernel",
		name:      "pack " + k.Image,
		program:   packerPath,
		args:      slices.Concat([]string{"kernel", "--binary", k.Binary, "--tar", k.Tar, "--ucode", k.Ucode}, b.encoding(), args),
		mounts:    mounts,
		opts:      opts,
	})
}
