package frontend

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/frontend/dockerui"
	"github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipway-build/slipway/internal/suggest"
	"github.com/slipway-build/slipway/machine"
)

// A request is what the user asks BuildKit for: the options of the command line
// and the text of the machine.
type request struct {
	gateway client.Client
	ui      *dockerui.Client // parses the options that all frontends share
	sources sources
	lint    lint
	builder *capabilities
	writer  Writer // nil if BuildKit makes all files

	components components // for messages
}

func newRequest(ctx context.Context, c client.Client) (*request, error) {
	ui, err := dockerui.NewClient(c)
	if err != nil {
		return nil, err
	}
	if len(ui.TargetPlatforms) == 0 {
		ui.TargetPlatforms = ui.BuildPlatforms[:1] // by default, dockerui takes the platform of this process
	}
	if err := checkPlatforms(ui.TargetPlatforms); err != nil {
		return nil, err
	}
	r := &request{gateway: c, ui: ui, builder: newCapabilities(ui.BuildOpts().LLBCaps)}
	if r.sources, err = readSources(ctx, c, ui); err != nil {
		return nil, err
	}
	if r.lint, err = newLint(ui.LinterConfig, r.sources.main().Data); err != nil {
		return nil, err
	}
	return r, nil
}

// parse parses the machine YAML. It reports all errors of the text at once,
// including required sources of files that are in no build context.
func (r *request) parse(ctx context.Context) (*machine.Machine, error) {
	texts := make([]machine.Source, len(r.sources))
	for i, src := range r.sources {
		texts[i] = machine.Source{Name: src.Filename, Data: src.Data}
	}
	options := machine.Options{Args: r.ui.BuildArgs, Reserved: isReserved, Include: func(name string) (machine.Source, error) {
		src, err := readBeside(ctx, r.gateway, r.sources.main(), name)
		if err != nil {
			return machine.Source{}, err
		}
		r.sources = append(r.sources, src)
		return machine.Source{Name: src.Filename, Data: src.Data}, nil
	}}
	m, err := options.Parse(texts...)
	var diags machine.Diagnostics
	if err != nil && !errors.As(err, &diags) {
		return nil, err
	}
	for _, s := range m.Sources() {
		if _, _, err := r.splitSource(s.Source); err != nil && !s.Optional {
			diags = append(diags, r.sources.errorAt(s.Range, "file %q: %v", s.Path, err))
		}
	}
	return m, sorted(diags)
}

// warnings returns the warnings about a machine that do not depend on its
// images.
func (r *request) warnings(m *machine.Machine) machine.Diagnostics {
	return slices.Concat(m.Warnings(), r.outsideSources(m))
}

// platform returns the first platform of the request.
func (r *request) platform() ocispecs.Platform {
	return platforms.Normalize(r.ui.TargetPlatforms[0])
}

// buildPlatform returns the platform of the builder, on which the tools run.
func (r *request) buildPlatform() ocispecs.Platform {
	return r.ui.BuildPlatforms[0]
}

// solve submits a state. BuildKit executes it when something needs the result.
func (r *request) solve(ctx context.Context, st llb.State, imports ...client.CacheOptionsEntry) (client.Reference, error) {
	return r.submit(ctx, st, client.SolveRequest{CacheImports: imports})
}

// evaluate executes a state. If a step fails, [request.explain] knows why, which
// it does not if BuildKit executes the state after the frontend has ended.
func (r *request) evaluate(ctx context.Context, st llb.State, imports ...client.CacheOptionsEntry) (client.Reference, error) {
	return r.submit(ctx, st, client.SolveRequest{CacheImports: imports, Evaluate: true})
}

func (r *request) submit(ctx context.Context, st llb.State, req client.SolveRequest) (client.Reference, error) {
	var err error
	if req.Definition, err = r.marshal(ctx, st); err != nil {
		return nil, err
	}
	res, err := r.gateway.Solve(ctx, req)
	if err != nil {
		return nil, err
	}
	return res.SingleRef()
}

// marshal returns the graph of a state as BuildKit accepts it.
func (r *request) marshal(ctx context.Context, st llb.State) (*pb.Definition, error) {
	def, err := st.Marshal(ctx, llb.WithCaps(r.ui.BuildOpts().LLBCaps))
	if err != nil {
		return nil, fmt.Errorf("marshal the graph: %w", err)
	}
	out := def.ToPB()
	if size := out.SizeVT(); size > maxMessage {
		return nil, tooLargeError{size}
	}
	return out, nil
}

// contextOption starts the option of a named context.
const contextOption = "context:"

// contextName returns the name of the named context that replaces an image, or
// "" if the reference is invalid.
func contextName(ref string) string {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(reference.FamiliarString(named), ":latest")
}

// unusedContexts returns a warning for each named context that the machine does
// not use: most likely its name is misspelled.
func (r *request) unusedContexts(m *machine.Machine) []string {
	used := []string{toolsContext, contextName(r.sources.frontendRef().Name)}
	for _, ref := range m.AllImageRefs() {
		if strings.HasPrefix(ref.Name, packageScheme) {
			return nil // its Dockerfile can use any context
		}
		used = append(used, contextName(ref.Name))
	}
	for _, s := range m.Sources() {
		if name, _, err := r.splitSource(s.Source); err == nil {
			used = append(used, name)
		}
	}
	var warnings []string
	for _, option := range slices.Sorted(maps.Keys(r.ui.BuildOpts().Opts)) {
		name, ok := strings.CutPrefix(option, contextOption)
		name, _, _ = strings.Cut(name, "::") // without the platform
		if ok && !slices.Contains(used, name) {
			warnings = append(warnings, fmt.Sprintf("build context %q has no effect: the machine has no image of this name%s",
				name, suggest.Among(name, used)))
		}
	}
	return slices.Compact(warnings)
}

// namedContext returns scheme and value of the named context that replaces an
// image, or empty strings if none does.
func (r *request) namedContext(name string, p ocispecs.Platform) (scheme, value string) {
	key := contextOption + contextName(name)
	if key == contextOption {
		return "", ""
	}
	opts := r.ui.BuildOpts().Opts
	text, ok := opts[key+"::"+platforms.FormatAll(p)]
	if !ok {
		text = opts[key]
	}
	scheme, value, _ = strings.Cut(text, ":")
	return scheme, strings.TrimPrefix(value, "//")
}

// loadNamed loads a named context.
func loadNamed(ctx context.Context, nc *dockerui.NamedContext) (*llb.State, *dockerspec.DockerOCIImage, error) {
	st, config, err := nc.Load(ctx)
	if err != nil && strings.Contains(err.Error(), "unknown scheme oci-layout") {
		err = errors.New("this builder cannot read OCI layouts, for example a Docker Engine with the classic image store: " +
			"enable the containerd image store of the engine, use a builder of docker buildx create, or push the image to a registry and use docker-image://")
	}
	return st, config, err
}

// warn shows a warning that is not about a line of the YAML.
func (r *request) warn(ctx context.Context, text string) {
	r.sources.main().Warn(ctx, text, client.WarnOpts{})
}
