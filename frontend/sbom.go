package frontend

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"strings"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	scanners "github.com/moby/buildkit/frontend/attestations/sbom"
	"github.com/moby/buildkit/frontend/gateway/client"
	gatewaypb "github.com/moby/buildkit/frontend/gateway/pb"
	attest "github.com/moby/buildkit/solver/result"

	"github.com/slipway-build/slipway/internal/sbom"
	graph "github.com/slipway-build/slipway/llb"
)

// sbomContext is the context of files whose contents are the SBOM.
const sbomContext = "sbom"

// sbom returns the state that describes a machine. Every image is scanned by a
// vertex of its own, so that a rebuild scans only the images that changed.
func (b *build) sbom(ctx context.Context, m *resolvedMachine, in graph.Input) (llb.State, error) {
	scan, err := b.scanner(ctx, in)
	if err != nil {
		return llb.State{}, err
	}
	doc := sbom.Machine{Name: b.options.name, Platform: platforms.FormatAll(m.platform), Epoch: b.options.time()}
	scans := map[string]llb.State{}
	folders := map[string]string{} // in scans, by image
	add := func(component, name string) error {
		if folders[name] == "" {
			folders[name] = fmt.Sprintf("%03d", len(scans))
			if scans[folders[name]], err = scan(ctx, component, name, in.Images[name]); err != nil {
				return err
			}
		}
		c := m.images[name].component(component, name)
		c.Scan = path.Join(graph.ScansPath, folders[name])
		doc.Components = append(doc.Components, c)
		return nil
	}
	if k := m.plan.Kernel; k != nil {
		if err := add("kernel", k.Image); err != nil {
			return llb.State{}, err
		}
	}
	for _, t := range m.plan.Trees {
		if err := add(t.Name, t.Image); err != nil {
			return llb.State{}, err
		}
	}
	for _, l := range m.plan.Layouts {
		// Not scanned, because it may hold several platforms.
		doc.Components = append(doc.Components, sbom.Component{Name: l.Name, Image: familiar(l.Image), Digest: in.Layouts[l.Name].Digest})
	}
	spec, err := json.Marshal(doc)
	if err != nil {
		return llb.State{}, err
	}
	return graph.SBOM(in, spec, scans), nil
}

// component describes an image at its place in the machine.
func (i image) component(component, name string) sbom.Component {
	c := sbom.Component{Name: component, Image: familiar(name), Digest: i.digest.String()}
	if i.named != nil {
		tag := ""
		if tagged, ok := i.named.(reference.Tagged); ok {
			tag = tagged.Tag()
		}
		c.URL = sbom.ImageURL(i.named.Name(), tag, c.Digest)
	}
	return c
}

// A scanner returns the state with the result of scanning an image.
type scanner func(ctx context.Context, component, name string, image graph.Rootfs) (llb.State, error)

// scanner returns Slipway's own scanner, or the one that the user named.
func (b *build) scanner(ctx context.Context, in graph.Input) (scanner, error) {
	requested := b.req.ui.SBOM
	if requested == nil || !strings.Contains(b.req.ui.BuildOpts().Opts["attest:sbom"], "generator=") {
		return func(_ context.Context, component, name string, image graph.Rootfs) (llb.State, error) {
			return graph.Scan(in, component, name, image), nil
		}, nil
	}
	foreign, err := scanners.CreateSBOMScanner(ctx, b.req.gateway, requested.Generator, in.Builder, sourceresolver.Opt{
		ImageOpt: &sourceresolver.ResolveImageOpt{ResolveMode: b.req.resolveMode(), Platform: &in.Builder},
	}, requested.Parameters)
	if err != nil {
		return nil, fmt.Errorf("sbom generator %s: %w", requested.Generator, err)
	}
	return func(ctx context.Context, component, _ string, image graph.Rootfs) (llb.State, error) {
		var opts []llb.ConstraintsOpt
		if in.IgnoreCache(component) {
			opts = append(opts, llb.IgnoreCache)
		}
		att, err := foreign(ctx, in.Label+component, image.State, nil, opts...)
		if err != nil {
			return llb.State{}, err
		}
		return *att.Ref, nil
	}, nil
}

// attestation returns an SBOM in the form that BuildKit attaches to a result.
func attestation(ref client.Reference) client.Attestation {
	return client.Attestation{
		Kind: gatewaypb.AttestationKind_InToto,
		Ref:  ref,
		Path: graph.SBOMName,
		Metadata: map[string][]byte{
			attest.AttestationReasonKey: []byte(attest.AttestationReasonSBOM),
			attest.AttestationSBOMCore:  []byte(scanners.CoreSBOMName),
		},
		InToto: attest.InTotoAttestation{PredicateType: sbom.PredicateType},
	}
}
