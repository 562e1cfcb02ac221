package frontend

import (
	"context"
	"fmt"
	"maps"
	"path"
	"strings"

	"github.com/moby/buildkit/frontend/dockerui"
	"github.com/moby/buildkit/frontend/gateway/client"

	"github.com/slipway-build/slipway/machine"
)

// readSources reads the machine YAML and the overlays that the build argument
// OVERLAYS names, relative to it, in the order in which they are merged.
func readSources(ctx context.Context, c client.Client, bc *dockerui.Client) ([]*dockerui.Source, error) {
	src, err := bc.ReadEntrypoint(ctx, "YAML")
	if err != nil {
		return nil, err
	}
	sources := []*dockerui.Source{src}
	for _, name := range strings.FieldsFunc(bc.BuildArgs["OVERLAYS"], func(r rune) bool { return r == ',' }) {
		overlay, err := dockerui.NewClient(entrypoint{c, path.Join(path.Dir(src.Filename), name)})
		if err != nil {
			return nil, err
		}
		src, err := overlay.ReadEntrypoint(ctx, "YAML")
		if err != nil {
			// Not wrapped: on its way to the user, a status of BuildKit's keeps its own text alone.
			return nil, fmt.Errorf("--build-arg OVERLAYS: read %s, in the folder of the machine YAML: %v", name, err)
		}
		sources = append(sources, src)
	}
	return sources, nil
}

// entrypoint is a client whose user named another file.
type entrypoint struct {
	client.Client
	filename string
}

func (e entrypoint) BuildOpts() client.BuildOpts {
	opts := e.Client.BuildOpts()
	opts.Opts = maps.Clone(opts.Opts)
	opts.Opts["filename"] = e.filename
	return opts
}

func (b *builder) parse() (*machine.Machine, error) {
	texts := make([]machine.Source, len(b.sources))
	for i, src := range b.sources {
		texts[i] = machine.Source{Name: src.Filename, Data: src.Data}
	}
	return machine.Parse(texts...)
}
