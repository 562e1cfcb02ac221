// Package frontend is the door to Slipway: a BuildKit gateway frontend that
// reads a machine YAML, resolves the images it names and answers with a graph
// that writes the machine in the format of --target.
package frontend

import (
	"context"
	"fmt"
	"path"
	"slices"
	"sync"
	"time"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerui"
	"github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/apicaps"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	graph "github.com/slipway-build/slipway/llb"
	"github.com/slipway-build/slipway/machine"
)

// toolsContext is the named context that replaces the frontend's image as the
// home of packer, exporter and boot loaders.
const toolsContext = "slipway-tools"

// defaultFrontend is the image of a machine YAML that names none.
const defaultFrontend = "slipwaybuild/slipway:1"

// Build answers one request of BuildKit. It is a [client.BuildFunc]: it runs
// in the frontend image or inside a client.
//
// Mistakes in the machine YAML and failures of the images it names come back
// as errors that carry the lines at fault (solver/errdefs.Source).
func Build(ctx context.Context, c client.Client) (*client.Result, error) {
	bc, err := dockerui.NewClient(c)
	if err != nil {
		return nil, err
	}
	if len(bc.TargetPlatforms) == 0 {
		bc.TargetPlatforms = bc.BuildPlatforms[:1] // not those of this process
	}
	b := &builder{client: c, ui: bc}
	if b.sources, err = readSources(ctx, c, bc); err != nil {
		return nil, err
	}
	b.lock = sync.OnceValues(func() (*lock, error) { return readLock(ctx, c, b.yaml()) })
	if b.lint, err = newLint(bc.LinterConfig, b.yaml().Data); err != nil {
		return nil, err
	}
	if res, ok, err := b.request(ctx); ok || err != nil {
		return res, b.locate(err)
	}

	m, err := b.parse()
	if err != nil {
		return nil, b.locate(err)
	}
	opt, err := parseOptions(bc.Target, bc.BuildArgs, b.yaml().Filename)
	if err != nil {
		return nil, err
	}
	for _, w := range opt.warnings {
		b.yaml().Warn(ctx, w, client.WarnOpts{})
	}
	tools, err := b.tools(ctx)
	if err != nil {
		return nil, b.locate(err)
	}
	rb, err := bc.Build(ctx, func(ctx context.Context, platform *ocispecs.Platform, i int) (*dockerui.BuildResult, error) {
		res, err := b.machine(ctx, m, opt, tools, b.target(platform), i == 0)
		return res, b.locate(err)
	})
	if err != nil {
		return nil, err
	}
	b.sboms.Range(func(platform, ref any) bool {
		rb.AddAttestation(platform.(string), attestation(ref.(client.Reference)))
		return true
	})
	return rb.Finalize()
}

type builder struct {
	client  client.Client
	ui      *dockerui.Client
	sources []*dockerui.Source // the machine YAML, then its overlays
	lint    *lint
	lock    func() (*lock, error) // nil if there is none
	sboms   sync.Map              // references of SBOMs by platform

	mu   sync.Mutex
	lost map[apicaps.CapID]bool // capabilities that the builder lacks
}

// yaml is the file that the user named.
func (b *builder) yaml() *dockerui.Source { return b.sources[0] }

// target is the machine's platform: the one asked for, or the builder's own.
func (b *builder) target(p *ocispecs.Platform) ocispecs.Platform {
	if p == nil {
		p = &b.ui.BuildPlatforms[0]
	}
	return platforms.Normalize(*p)
}

// machine builds one platform's output.
func (b *builder) machine(ctx context.Context, m *machine.Machine, opt options, tools llb.State, platform ocispecs.Platform, warn bool) (*dockerui.BuildResult, error) {
	plan, images, err := b.planned(ctx, m, platform)
	if err != nil {
		return nil, err
	}
	if warn {
		if err := b.lint.warn(ctx, b.sources, slices.Concat(m.Warnings(), plan.Warnings)); err != nil {
			return nil, err
		}
	}
	in, choices, err := b.graph(ctx, plan, images, opt, tools, platform)
	if err != nil {
		return nil, err
	}
	if warn {
		for _, w := range b.lacks() {
			b.yaml().Warn(ctx, w, client.WarnOpts{})
		}
	}
	state, err := graph.Machine(in, choices)
	if err != nil {
		return nil, err
	}
	ref, err := b.solve(ctx, state, b.ui.CacheImports...)
	if err != nil {
		return nil, err
	}
	if b.ui.SBOM != nil {
		st, err := b.sbom(ctx, plan, images, in, opt, platform)
		if err != nil {
			return nil, err
		}
		described, err := b.solve(ctx, st, b.ui.CacheImports...)
		if err != nil {
			return nil, err
		}
		b.sboms.Store(platforms.FormatAll(platform), described)
	}
	created := time.Unix(opt.time(), 0).UTC()
	config := imageConfig(platform, created)
	if opt.formats[0].Image {
		if err := setEntrypoint(ctx, config, ref); err != nil {
			return nil, err
		}
	}
	return &dockerui.BuildResult{Reference: ref, Image: config, Epoch: &created}, nil
}

// setEntrypoint lets a container of the image run what starts the services in it:
// LinuxKit's /bin/rc.init, or /sbin/init.
func setEntrypoint(ctx context.Context, config *dockerspec.DockerOCIImage, ref client.Reference) error {
	config.Config.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	for _, program := range []string{"/bin/rc.init", "/sbin/init"} {
		dir, name := path.Split(program)
		files, err := ref.ReadDir(ctx, client.ReadDirRequest{Path: dir, IncludePattern: name})
		if err == nil && len(files) > 0 {
			config.Config.Entrypoint = []string{program}
			return nil
		}
		if err != nil && ctx.Err() != nil {
			return err
		}
	}
	return nil
}

// graph gathers what the graph of a plan is made of.
func (b *builder) graph(ctx context.Context, plan *machine.Plan, images images, opt options, tools llb.State, platform ocispecs.Platform) (in graph.Input, choices graph.Options, err error) {
	for _, f := range opt.formats {
		if err := f.Check(platform.Architecture); err != nil {
			return in, choices, fmt.Errorf("--target: %w", err)
		}
	}
	layouts, err := b.layouts(ctx, plan.Layouts, platform)
	if err != nil {
		return in, choices, err
	}
	session, err := b.session(ctx, plan)
	if err != nil {
		return in, choices, err
	}
	located := *plan // its sources are found; the plan keeps them as written
	contexts, err := b.files(ctx, &located)
	if err != nil {
		return in, choices, err
	}
	compression := opt.compression
	if compression == "" {
		compression = images.compression(plan.Kernel)
	}
	label := ""
	if b.ui.MultiPlatformRequested {
		label = platforms.FormatAll(platform) + " "
	}
	in = graph.Input{
		Plan:        &located,
		Images:      images.sources(),
		Layouts:     layouts,
		Contexts:    contexts,
		Session:     session,
		Tools:       tools,
		Builder:     b.ui.BuildPlatforms[0],
		Location:    b.location,
		IgnoreCache: b.ui.IsNoCache,
		Merge:       len(opt.formats) > 1 && b.can(pb.CapMergeOp),
		Label:       label,
	}
	for i, f := range located.Files {
		if f.SBOM {
			if contexts[sbomContext], err = b.sbom(ctx, plan, images, in, opt, platform); err != nil {
				return in, choices, err
			}
			located.Files[i].Source = path.Join(sbomContext, graph.SBOMName)
		}
	}
	choices = graph.Options{
		Formats:      opt.formats,
		Name:         opt.name,
		Size:         opt.size,
		Map:          opt.diskMap,
		Compression:  compression,
		Architecture: platform.Architecture,
		Epoch:        opt.epoch,
	}
	return in, choices, nil
}

// planned resolves the images and plans the machine.
func (b *builder) planned(ctx context.Context, m *machine.Machine, p ocispecs.Platform) (*machine.Plan, images, error) {
	if err := b.checkLock(m); err != nil {
		return nil, nil, err
	}
	images, err := b.resolve(ctx, m.ImageRefs(), p)
	if err != nil {
		return nil, nil, err
	}
	plan, err := m.Plan(images.configs())
	return plan, images, err
}

// imageConfig describes the output where an image exporter is asked for it.
func imageConfig(p ocispecs.Platform, created time.Time) *dockerspec.DockerOCIImage {
	img := &dockerspec.DockerOCIImage{}
	img.Platform = p
	img.Created = &created
	img.RootFS.Type = "layers"
	return img
}

// solve submits a state. BuildKit works on it when its result is needed.
func (b *builder) solve(ctx context.Context, st llb.State, imports ...client.CacheOptionsEntry) (client.Reference, error) {
	def, err := st.Marshal(ctx, llb.WithCaps(b.ui.BuildOpts().LLBCaps))
	if err != nil {
		return nil, fmt.Errorf("marshal the graph: %w", err)
	}
	res, err := b.client.Solve(ctx, client.SolveRequest{Definition: def.ToPB(), CacheImports: imports})
	if err != nil {
		return nil, err
	}
	return res.SingleRef()
}

// tools finds packer, exporter and boot loaders: in a named context when there
// is one, else in the image that this very process was started from, else in the one
// that the machine YAML names.
func (b *builder) tools(ctx context.Context) (llb.State, error) {
	nc, err := b.ui.NamedContext(toolsContext, dockerui.ContextOpt{NoDockerignore: true, Platform: &b.ui.BuildPlatforms[0]})
	if err != nil {
		return llb.State{}, err
	}
	if nc != nil {
		st, _, err := nc.Load(ctx)
		if err != nil {
			return llb.State{}, fmt.Errorf("load build context %s: %w", toolsContext, err)
		}
		return *st, nil
	}
	if self, ok := b.client.(interface{ CurrentFrontend() (*llb.State, error) }); ok {
		st, err := self.CurrentFrontend()
		if err != nil {
			return llb.State{}, fmt.Errorf("read the frontend's own image: %w", err)
		}
		if st != nil {
			return *st, b.checkFrontend(ctx, st)
		}
	}
	ref := b.frontendRef()
	found, err := b.resolve(ctx, []machine.ImageRef{ref}, b.ui.BuildPlatforms[0])
	return found[ref.Name].state, err
}

// frontendRef is the frontend's image, as docker buildx would find it.
func (b *builder) frontendRef() machine.ImageRef {
	ref := machine.ImageRef{Text: defaultFrontend, Section: "frontend"}
	if name, _, lines, ok := parser.DetectSyntax(b.yaml().Data); ok {
		ref.Text = name
		ref.Range = machine.Range{Start: lines[0].Start.Line, End: lines[0].End.Line}
	}
	ref.Name = ref.Text
	if named, err := reference.ParseNormalizedNamed(ref.Text); err == nil {
		ref.Name = named.String()
	}
	return ref
}

// location ties a vertex to the YAML, for the errors of BuildKit itself.
func (b *builder) location(r machine.Range) llb.ConstraintsOpt {
	if r.Start == 0 {
		return llb.WithDescription(nil)
	}
	return b.sources[r.Source].Location([]*pb.Range{pbRange(r)})
}

// mistake is an error at a place in the YAML.
func (b *builder) mistake(at machine.Range, format string, args ...any) machine.Diagnostic {
	return machine.Diagnostic{Range: at, File: b.sources[at.Source].Filename, Message: fmt.Sprintf(format, args...)}
}
