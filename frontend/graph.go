package frontend

import (
	"context"
	"fmt"
	"maps"
	"path"
	"slices"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"

	"github.com/slipway-build/slipway/exporter/disk"
	"github.com/slipway-build/slipway/exporter/format"
	"github.com/slipway-build/slipway/exporter/segment"
	graph "github.com/slipway-build/slipway/llb"
	"github.com/slipway-build/slipway/machine"
)

// graphParts are what the graph of a machine is made of.
type graphParts struct {
	input   graph.Input
	options graph.Options
	sbom    *llb.State // nil if neither the user nor the machine asks for one
	imports []client.CacheOptionsEntry
}

// prepareGraph gathers the inputs of the graph, and the SBOM, which can be one of
// them.
func (b *build) prepareGraph(ctx context.Context, m *resolvedMachine) (*graphParts, error) {
	for _, f := range b.options.formats {
		if err := f.Check(m.platform.Architecture); err != nil {
			return nil, fmt.Errorf("--target: %w", err)
		}
		if b.options.sign != graph.SignNever {
			if err := f.CheckSign(m.platform.Architecture); err != nil {
				return nil, fmt.Errorf("--build-arg SIGN: %w", err)
			}
		}
		firmware := f.FirmwareOn(m.platform.Architecture)
		if firmware == 0 || m.plan.Kernel == nil {
			continue
		}
		if err := disk.CheckCmdline(m.plan.Cmdline, firmware.Has(format.BIOS)); err != nil {
			return nil, machine.Diagnostics{b.req.sources.errorAt(m.plan.CmdlineRange, "%s: %v", f.Name, err)}
		}
	}
	in, err := b.graphInput(ctx, m)
	if err != nil {
		return nil, err
	}
	out := &graphParts{input: in, options: b.graphOptions(m), imports: b.cacheImports(m)}
	holdsSBOM := slices.ContainsFunc(in.Plan.Files, func(e machine.Entry) bool { return e.SBOM })
	if b.req.ui.SBOM != nil || holdsSBOM {
		sbom, err := b.sbom(ctx, m, in)
		if err != nil {
			return nil, err
		}
		out.sbom = &sbom
	}
	if holdsSBOM {
		in.Contexts[sbomContext] = *out.sbom
		for i := range in.Plan.Files {
			if in.Plan.Files[i].SBOM {
				in.Plan.Files[i].Source = path.Join(sbomContext, graph.SBOMName)
			}
		}
	}
	return out, nil
}

func (b *build) graphInput(ctx context.Context, m *resolvedMachine) (in graph.Input, err error) {
	layouts, err := b.images.layouts(ctx, m.plan.Layouts, m.platform)
	if err != nil {
		return in, err
	}
	// The keys of the firmware come from the client as the one that signs.
	keys := b.options.sign == graph.SignNow || b.options.pcrs && b.options.sign != graph.SignNever
	session, err := b.req.sessionState(ctx, m.plan, keys)
	if err != nil {
		return in, err
	}
	plan := *m.plan // which keeps the sources as the YAML names them
	plan.Files = slices.Clone(plan.Files)
	for i, f := range plan.Files {
		plan.Files[i].Source = b.files.paths[f.Source]
		if f.OSRelease {
			if plan.Files[i].Contents, err = b.osRelease(m, layouts); err != nil {
				return in, err
			}
		}
	}
	if b.req.lint.skips(machine.NeverStarts) {
		plan.Starts = nil
	}
	label := ""
	if b.req.ui.MultiPlatformRequested {
		label = platforms.FormatAll(m.platform) + " "
	}
	return graph.Input{
		Plan:        &plan,
		Images:      m.images.sources(),
		Layouts:     layouts,
		Contexts:    maps.Clone(b.files.contexts),
		Session:     session,
		Tools:       b.tools.state,
		Builder:     b.req.buildPlatform(),
		PackEntries: segment.PackEntries,
		Location:    b.req.sources.location,
		IgnoreCache: b.req.ui.IsNoCache,
		Merge:       len(b.options.formats) > 1 && b.req.builder.use(pb.CapMergeOp),
		Label:       label,
	}, nil
}

func (b *build) graphOptions(m *resolvedMachine) graph.Options {
	compression := b.options.compression
	if compression == "" {
		compression = m.images.compression(m.plan.Kernel)
	}
	return graph.Options{
		Formats:      b.options.formats,
		Name:         b.options.name,
		Size:         b.options.size,
		Map:          b.options.diskMap,
		Reserve:      b.options.reserve,
		Compression:  compression,
		Architecture: m.platform.Architecture,
		Epoch:        b.options.epoch,
		Sign:         b.options.sign,
		PCRs:         b.options.pcrs,
		Role:         b.options.role,
		Instance:     b.options.instance,
	}
}
