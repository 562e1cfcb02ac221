package frontend

import (
	"context"
	"fmt"
	"strings"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerui"
	"github.com/moby/buildkit/solver/pb"

	"github.com/slipway-build/slipway/machine"
)

// toolsContext is the named context that replaces the frontend image as the
// source of packer, exporter and boot loaders.
const toolsContext = "slipway-tools"

// DefaultImage is the frontend image of a machine YAML that names none.
const DefaultImage = "slipwaybuild/slipway:1"

// tools are the programs and boot loaders of the frontend image.
type tools struct {
	state      llb.State
	writesSame bool // as the exporter in this process
	cache      releaseCache
}

// tools returns the state that holds packer, exporter and boot loaders: the
// named context, or else the image that this process was started from, or else
// the frontend image that the machine YAML names.
func (r *resolver) tools(ctx context.Context) (tools, error) {
	p := r.req.buildPlatform()
	nc, err := r.req.ui.NamedContext(toolsContext, dockerui.ContextOpt{NoDockerignore: true, Platform: &p})
	if err != nil {
		return tools{}, err
	}
	if nc != nil {
		st, config, err := loadNamed(ctx, nc)
		if err != nil {
			return tools{}, fmt.Errorf("load build context %s: %w", toolsContext, err)
		}
		return tools{state: *st, writesSame: config != nil && writesSame(config.Config.Labels)}, nil
	}
	running, err := r.req.runningFrontend()
	if err != nil {
		return tools{}, fmt.Errorf("read the frontend's own image: %w", err)
	}
	if running != nil {
		return tools{state: *running, cache: runningReleaseCache()}, r.checkFrontend(ctx, running)
	}
	ref := r.req.sources.frontendRef()
	found, err := r.resolve(ctx, []machine.ImageRef{ref}, p)
	config := found[ref.Name].config.Config
	return tools{found[ref.Name].state, writesSame(config.Labels), newReleaseCache(config.Env)}, err
}

// runningFrontend returns the image that the builder started this process from,
// or nil if the process is a client.
func (r *request) runningFrontend() (*llb.State, error) {
	c, ok := r.gateway.(interface{ CurrentFrontend() (*llb.State, error) })
	if !ok {
		return nil, nil
	}
	return c.CurrentFrontend()
}

// frontendRef returns the frontend image that docker buildx uses for the machine
// YAML.
func (s sources) frontendRef() machine.ImageRef {
	ref := machine.ImageRef{Text: DefaultImage, Section: "frontend"}
	if name, _, lines, ok := parser.DetectSyntax(s.main().Data); ok {
		ref.Text = name
		ref.Range = machine.Range{Start: lines[0].Start.Line, End: lines[0].End.Line}
	}
	ref.Name = ref.Text
	if named, err := reference.ParseNormalizedNamed(ref.Text); err == nil {
		ref.Name = named.String()
	}
	return ref
}

// checkFrontend returns an error if the lock names another frontend than the
// running one.
func (r *resolver) checkFrontend(ctx context.Context, running *llb.State) error {
	ref := r.req.sources.frontendRef()
	if scheme, _ := r.req.namedContext(ref.Name, r.req.buildPlatform()); scheme != "" || r.lock == nil {
		return nil
	}
	locked, err := r.lock.digest(ref)
	if err != nil {
		return machine.Diagnostics{r.req.sources.imageError(ref, err)}
	}
	def, err := running.Marshal(ctx)
	if err != nil {
		return err
	}
	for _, data := range def.Def {
		var op pb.Op
		if err := op.UnmarshalVT(data); err != nil {
			return err
		}
		image, ok := strings.CutPrefix(op.GetSource().GetIdentifier(), registryScheme)
		if !ok {
			continue
		}
		_, actual, ok := strings.Cut(image, "@")
		if !ok {
			return machine.Diagnostics{r.req.sources.imageError(ref, fmt.Errorf(
				"the Docker Engine has it in an image store without digests, so it cannot be compared with %s: remove it with docker image rm %s",
				r.lock.name, ref.Text))}
		}
		if actual != locked.String() {
			return machine.Diagnostics{r.req.sources.imageError(ref, fmt.Errorf(
				"is now %s, but %s has %s: slipway lock --update %s %s updates it; to keep the locked one, write %s@%s there and in the YAML",
				actual, r.lock.name, locked, familiar(ref.Name), r.lock.yml, ref.Text, locked))}
		}
	}
	return nil
}
