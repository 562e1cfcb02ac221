package graph_test

import (
	"context"
	"fmt"
	"slices"

	"github.com/moby/buildkit/client/llb"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipway-build/slipway/exporter/format"
	"github.com/slipway-build/slipway/exporter/segment"
	graph "github.com/slipway-build/slipway/llb"
	"github.com/slipway-build/slipway/machine"
)

// The graph of a machine with one service has a vertex that packs the service and
// one that writes the format.
func Example() {
	const image = "docker.io/library/nginx:1.29"
	raw, _ := format.Lookup("raw")
	output, err := graph.Output(graph.Input{
		Plan: &machine.Plan{
			Cmdline: "console=ttyS0",
			Trees:   []machine.Tree{{Name: "services.nginx", Image: image, Rules: machine.RulesContainer}},
		},
		Images:      map[string]graph.Rootfs{image: {State: llb.Image(image)}},
		Tools:       llb.Image("docker.io/slipwaybuild/slipway:1"),
		Builder:     ocispecs.Platform{OS: "linux", Architecture: "amd64"},
		PackEntries: segment.PackEntries,
		Location:    func(machine.Range) llb.ConstraintsOpt { return llb.WithDescription(nil) },
		IgnoreCache: func(string) bool { return false },
	}, graph.Options{
		Formats:      []format.Format{raw},
		Name:         "web",
		Compression:  "zstd",
		Architecture: "amd64",
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	definition, err := output.Marshal(context.Background())
	if err != nil {
		fmt.Println(err)
		return
	}
	var names []string
	for _, m := range definition.Metadata {
		if name := m.Description["llb.customname"]; name != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Println(name)
	}
	// Output:
	// [directories] generate 0 entries
	// [internal] copy the boot loaders
	// [internal] generate cmdline
	// [raw] write web
	// [services.nginx] pack docker.io/library/nginx:1.29
}
