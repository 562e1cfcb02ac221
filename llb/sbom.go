package llb

import (
	"fmt"
	"maps"
	"path"
	"slices"

	"github.com/moby/buildkit/client/llb"
)

// SBOMName is the file that an SBOM is.
const SBOMName = "sbom.spdx.json"

// sbomPath is where the program for SBOMs lies, in the frontend image and in the containers.
const sbomPath = "/slipway-sbom"

// ScansPath is where [SBOM] puts the results of scans.
const ScansPath = "/scans"

// Scan returns the state that holds what is known of the packages in an image.
func Scan(in Input, component, name string, image Image) llb.State {
	g := graph{Input: in}
	return g.run(vertex{
		tool:      sbomPath,
		component: component,
		name:      "scan " + name,
		args:      []string{"scan", "--in", "/in"},
		mounts:    []mount{{at: "/in", state: image.Root, unread: image.Pinned}},
	})
}

// SBOM returns the state whose file [SBOMName] describes the machine: what spec
// says, with the results of the scans in folders of their names below [ScansPath].
func SBOM(in Input, spec []byte, scans map[string]llb.State) llb.State {
	g := graph{Input: in}
	v := vertex{
		tool:      sbomPath,
		component: "sbom",
		name:      fmt.Sprintf("describe %d images", len(scans)),
		args:      []string{"machine", "--spec", "/spec/machine.json"},
		mounts:    []mount{{at: "/spec", state: g.file("machine.json", spec)}},
	}
	for _, name := range slices.Sorted(maps.Keys(scans)) {
		v.mounts = append(v.mounts, mount{at: path.Join(ScansPath, name), state: scans[name]})
	}
	return g.run(v)
}
