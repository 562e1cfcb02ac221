package frontend

import (
	"bytes"
	"maps"
	"os"
	"slices"

	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/apicaps"
)

// devices is what builders without root lack. It is ours: BuildKit has no word for it.
const devices apicaps.CapID = "devices in images"

// losses tells what a build does without, where the builder lacks a capability that the machine would use. Whatever
// is not listed here, every builder from BuildKit 0.13 has, which hack/oldest and its test see to.
var losses = map[apicaps.CapID]string{
	pb.CapSourceImageBlob: "images of OCI layouts are unpacked on the builder before they are packed, which takes longer; a newer BuildKit has it",
	pb.CapMergeOp:         "the formats are copied together, which takes time and room for a second copy; Docker has it with the containerd image store",
	devices: "it runs without root, and device nodes that package images of a registry may have are not in the machine; " +
		"where they are needed, give the image as an OCI layout (--build-context IMAGE=oci-layout://…) or use a builder with root",
}

// can tells whether the builder has a capability that this machine would use. The user hears of it if not.
func (b *builder) can(id apicaps.CapID) bool {
	caps := b.ui.BuildOpts().LLBCaps
	if caps.Supports(id) == nil {
		return true
	}
	b.lose(id)
	return false
}

func (b *builder) lose(id apicaps.CapID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.lost == nil {
		b.lost = map[apicaps.CapID]bool{}
	}
	b.lost[id] = true
}

// lacks lists what the build had to do without so far, as text for the user.
func (b *builder) lacks() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []string
	for _, id := range slices.Sorted(maps.Keys(b.lost)) {
		out = append(out, "the builder lacks "+string(id)+": "+losses[id])
	}
	return out
}

// rootless tells whether the builder runs in a user namespace, which the frontend's container is in, too. The first
// namespace is the one with all 2³²-1 users.
func rootless() bool {
	users, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && !bytes.Equal(bytes.Join(bytes.Fields(users), []byte(" ")), []byte("0 0 4294967295"))
}
