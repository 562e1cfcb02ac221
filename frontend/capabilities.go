package frontend

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/apicaps"
)

// capDevices is missing in rootless builders. BuildKit itself has no id for it.
const capDevices apicaps.CapID = "devices in images"

// fallbacks describes what a build does instead if the builder lacks a
// capability. Every builder since BuildKit 0.13 has all other capabilities that
// Slipway uses; TestBuilders checks the oldest one.
var fallbacks = map[apicaps.CapID]string{
	pb.CapSourceImageBlob: "images of OCI layouts are unpacked on the builder before they are packed, which takes longer; a newer BuildKit has it",
	pb.CapMergeOp:         "the formats are copied together, which takes time and space for a second copy; Docker has it with the containerd image store",
	capDevices: "it runs without root, and the machine has no device nodes from package images of a registry; " +
		"if it needs them, pass the image as an OCI layout (--build-context IMAGE=oci-layout://…) or use a builder with root",
}

// explainOld adds to an error about a missing capability which builders have all
// of them.
func explainOld(err error) error {
	var missing *apicaps.CapError
	if !errors.As(err, &missing) {
		return err
	}
	return fmt.Errorf("the builder is too old: it requires BuildKit 0.13, which Docker Engine 26 has, or later: %w", err)
}

// capabilities are those of the builder. It collects the missing ones that the
// machine would use. It is safe for concurrent use.
type capabilities struct {
	caps apicaps.CapSet

	mu      sync.Mutex
	missing map[apicaps.CapID]bool
}

func newCapabilities(caps apicaps.CapSet) *capabilities {
	return &capabilities{caps: caps, missing: map[apicaps.CapID]bool{}}
}

// require returns an error if the builder lacks a capability for which there is
// no fallback.
func (c *capabilities) require(id apicaps.CapID) error {
	return c.caps.Supports(id)
}

// use reports whether the builder has a capability that the machine uses.
func (c *capabilities) use(id apicaps.CapID) bool {
	if c.caps.Supports(id) == nil {
		return true
	}
	c.addMissing(id)
	return false
}

func (c *capabilities) addMissing(id apicaps.CapID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.missing[id] = true
}

// warnings returns one warning for each missing capability that was used so far.
func (c *capabilities) warnings() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for _, id := range slices.Sorted(maps.Keys(c.missing)) {
		out = append(out, "the builder lacks "+string(id)+": "+fallbacks[id])
	}
	return out
}
