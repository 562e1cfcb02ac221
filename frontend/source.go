package frontend

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/frontend/dockerui"
	"github.com/moby/buildkit/frontend/gateway/client"

	"github.com/slipway-build/slipway/machine"
)

// readSources reads the machine YAML and the overlays that the build argument
// OVERLAYS names, relative to it, in the order in which they are merged.
func readSources(ctx context.Context, c client.Client, bc *dockerui.Client) ([]*dockerui.Source, error) {
	src, err := readMachine(ctx, c, bc)
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

// readMachine reads the machine YAML. Its lock comes along, where there is one.
func readMachine(ctx context.Context, c client.Client, bc *dockerui.Client) (*dockerui.Source, error) {
	filename := cmp.Or(c.BuildOpts().Opts["filename"], dockerui.DefaultDockerfileName)
	return bc.ReadEntrypoint(ctx, "YAML", llb.FollowPaths([]string{filename, filename + ".dockerignore", LockName(filename)}))
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

// parse reads the machine. Its mistakes, and sources of files that no context
// holds, are told together.
func (b *builder) parse() (*machine.Machine, error) {
	texts := make([]machine.Source, len(b.sources))
	for i, src := range b.sources {
		texts[i] = machine.Source{Name: src.Filename, Data: src.Data}
	}
	m, err := machine.Parse(texts...)
	var mistakes machine.Diagnostics
	if err != nil && !errors.As(err, &mistakes) {
		return nil, err
	}
	for _, s := range m.Sources() {
		if _, _, err := b.origin(s.Source); err != nil {
			mistakes = append(mistakes, b.mistake(s.Range, "file %q: %v", s.Path, err))
		}
	}
	return m, sorted(mistakes)
}

// sorted gives mistakes in the order of the text, or nil if there are none.
func sorted(mistakes machine.Diagnostics) error {
	if len(mistakes) == 0 {
		return nil
	}
	slices.SortStableFunc(mistakes, func(a, b machine.Diagnostic) int {
		return cmp.Or(cmp.Compare(a.Range.Source, b.Range.Source), cmp.Compare(a.Range.Start, b.Range.Start))
	})
	return mistakes
}
