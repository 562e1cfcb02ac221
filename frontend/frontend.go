// Package frontend is Slipway's BuildKit gateway frontend. It reads a machine
// YAML, resolves the images that the YAML names, and returns a graph that writes
// the machine in the formats of --target. It also answers subrequests, for example
// --check and --call=machine.plan.
//
// The frontend runs in a container that BuildKit starts, as slipway-frontend, or
// in the process of a client, as in "slipway build".
package frontend

import (
	"context"
	"time"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/frontend/dockerui"
	"github.com/moby/buildkit/frontend/gateway/client"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipway-build/slipway/exporter/format"
	graph "github.com/slipway-build/slipway/llb"
	"github.com/slipway-build/slipway/machine"
)

// Build answers one request of BuildKit. It is a [client.BuildFunc].
//
// Errors in the machine YAML, and failures of the images that it names, carry
// the affected lines (solver/errdefs.Source of BuildKit).
func Build(ctx context.Context, c client.Client) (*client.Result, error) {
	return answer(ctx, c, nil)
}

func answer(ctx context.Context, c client.Client, w Writer) (*client.Result, error) {
	req, err := newRequest(ctx, c)
	if err != nil {
		return nil, err
	}
	req.writer = w
	res, answered, err := req.subrequest(ctx)
	if !answered && err == nil {
		res, err = req.build(ctx)
	}
	return res, req.sources.locate(explainOld(req.explain(ctx, err)))
}

// newBuild prepares to make the machine, and shows warnings about the request.
func (r *request) newBuild(ctx context.Context) (*build, error) {
	m, err := r.parse(ctx)
	if err != nil {
		return nil, err
	}
	opt, err := parseOptions(r.ui.Target, r.ui.BuildArgs, r.sources.main().Filename, m.ArgValues()...)
	if err != nil {
		return nil, err
	}
	for _, w := range append(opt.warnings, r.unusedContexts(m)...) {
		r.warn(ctx, w)
	}
	m, files, err := r.findSources(ctx, m)
	if err != nil {
		return nil, err
	}
	images, err := r.newResolver(ctx)
	if err != nil {
		return nil, err
	}
	tools, err := images.tools(ctx)
	if err != nil {
		return nil, err
	}
	return &build{req: r, machine: m, files: files, options: opt, images: images, tools: tools}, nil
}

// build makes the machine for all platforms of the request.
func (r *request) build(ctx context.Context) (*client.Result, error) {
	b, err := r.newBuild(ctx)
	if err != nil {
		return nil, err
	}
	sboms := make([]client.Reference, len(r.ui.TargetPlatforms))
	rb, err := r.ui.Build(ctx, func(ctx context.Context, p *ocispecs.Platform, i int) (*dockerui.BuildResult, error) {
		res, sbom, err := b.platform(ctx, platforms.Normalize(*p), i == 0)
		sboms[i] = sbom
		return res, err
	})
	if err != nil {
		return nil, err
	}
	if b.written {
		return client.NewResult(), nil
	}
	for i, p := range r.ui.TargetPlatforms {
		if sboms[i] != nil {
			rb.AddAttestation(platforms.FormatAll(platforms.Normalize(p)), attestation(sboms[i]))
		}
	}
	return rb.Finalize()
}

// A build makes one machine, for one platform at a time.
type build struct {
	req     *request
	machine *machine.Machine
	files   *sourceFiles
	options options
	images  *resolver
	tools   tools
	written bool // by the client
}

// platform makes the machine for one platform. It returns the machine and, if
// the user asked for an attestation, its SBOM. Only the first platform shows
// warnings, because they are the same for all.
func (b *build) platform(ctx context.Context, p ocispecs.Platform, first bool) (*dockerui.BuildResult, client.Reference, error) {
	state, parts, err := b.output(ctx, p, first)
	if err != nil {
		return nil, nil, err
	}
	if b.written, err = b.local(ctx, state, parts); b.written || err != nil {
		return &dockerui.BuildResult{Image: imageConfig(p, time.Time{}, nil)}, nil, b.req.sources.locateSize(err, parts.input.Plan)
	}
	ref, err := b.req.evaluate(ctx, state, parts.imports...)
	if err != nil {
		return nil, nil, b.req.sources.locateSize(err, parts.input.Plan)
	}
	var sbom client.Reference
	if b.req.ui.SBOM != nil {
		if sbom, err = b.req.evaluate(ctx, *parts.sbom, parts.imports...); err != nil {
			return nil, nil, err
		}
	}
	created := time.Unix(b.options.time(), 0).UTC()
	config := imageConfig(p, created, b.options.formats)
	if f := b.options.formats[0]; f.Container && f.Firmware == 0 { // a root filesystem
		if err := setEntrypoint(ctx, config, ref); err != nil {
			return nil, nil, err
		}
	}
	return &dockerui.BuildResult{Reference: ref, Image: config, Epoch: &created}, sbom, nil
}

// output returns the state with the machine for one platform, and what it is made of.
func (b *build) output(ctx context.Context, p ocispecs.Platform, first bool) (state llb.State, parts *graphParts, err error) {
	resolved, err := b.images.resolveMachine(ctx, b.machine, p)
	if err != nil {
		return state, nil, err
	}
	if first {
		if err := b.req.lint.report(ctx, b.req.sources, resolved.warnings); err != nil {
			return state, nil, err
		}
	}
	if b.options.sign != graph.SignNever {
		if resolved.plan, err = b.req.signed(resolved.plan); err != nil {
			return state, nil, err
		}
	}
	b.req.components.add(resolved.plan)
	if parts, err = b.prepareGraph(ctx, resolved); err != nil {
		return state, nil, err
	}
	if first {
		if unpacks(resolved.images, parts.input.Layouts) && !b.req.keepsDevices(ctx) {
			b.req.builder.addMissing(capDevices)
		}
		for _, w := range b.req.builder.warnings() {
			b.req.warn(ctx, w)
		}
	}
	state, err = graph.Output(parts.input, parts.options)
	return state, parts, err
}

// imageConfig returns the configuration that image exporters write. Its history
// accounts for the layers, one per format. Without it, Docker Engine's classic
// image store would write the time of the build.
func imageConfig(p ocispecs.Platform, created time.Time, formats []format.Format) *dockerspec.DockerOCIImage {
	img := &dockerspec.DockerOCIImage{}
	img.Platform = p
	img.Created = &created
	img.RootFS.Type = "layers"
	for _, f := range formats {
		img.History = append(img.History, ocispecs.History{Created: &created, CreatedBy: "slipway --target " + f.Name})
	}
	return img
}

// entrypoints are the programs that start the services in a container: LinuxKit's
// and Slipway's.
var entrypoints = []struct{ dir, name string }{{"/bin/", "rc.init"}, {"/sbin/", "init"}}

// setEntrypoint makes a container of the image run the first of the entrypoints
// that the machine has.
func setEntrypoint(ctx context.Context, config *dockerspec.DockerOCIImage, ref client.Reference) error {
	config.Config.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	for _, e := range entrypoints {
		files, err := ref.ReadDir(ctx, client.ReadDirRequest{Path: e.dir, IncludePattern: e.name})
		if err == nil && len(files) > 0 {
			config.Config.Entrypoint = []string{e.dir + e.name}
			return nil
		}
		if err != nil && ctx.Err() != nil {
			return err
		}
	}
	return nil
}
