package graph

import (
	"fmt"
	"maps"
	"path"
	"slices"

	"github.com/moby/buildkit/client/llb"
)

// SBOMName is the file name of an SBOM.
const SBOMName = "sbom.spdx.json"

// ScansPath is the directory in which [SBOM] puts the results of scans.
const ScansPath = "/scans"

// Scan returns the state that contains a description of the packages in an image.
func Scan(in Input, component, name string, image Rootfs) llb.State {
	return builder{in: in}.run(vertex{
		component: component,
		name:      "scan " + name,
		program:   sbomPath,
		args:      []string{"scan", "--in", "/in"},
		mounts:    []mount{{at: "/in", state: image.State, keyedByDefinition: image.Pinned}},
	})
}

// SBOM returns the state whose file [SBOMName] describes the machine. The spec is
// the JSON that slipway-sbom reads. The results of the scans are in directories
// with their names below [ScansPath].
func SBOM(in Input, spec []byte, scans map[string]llb.State) llb.State {
	b := builder{in: in}
	mounts := []mount{{at: "/spec", state: b.file("machine.json", spec)}}
	for _, name := range slices.Sorted(maps.Keys(scans)) {
		mounts = append(mounts, mount{at: path.Join(ScansPath, name), state: scans[name]})
	}
	return b.run(vertex{
		component: "sbom",
		name:      fmt.Sprintf("describe %d images", len(scans)),
		program:   sbomPath,
		args:      []string{"machine", "--spec", "/spec/machine.json"},
		mounts:    mounts,
	})
}
