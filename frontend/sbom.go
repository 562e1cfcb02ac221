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
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipway-build/slipway/internal/sbom"
	graph "github.com/slipway-build/slipway/llb"
	"github.com/slipway-build/slipway/machine"
)

// sbomContext is what the file of an SBOM is found in, as if it were a context.
const sbomContext = "sbom"

// sbom describes a machine: its images are scanned one by one, so that a changed
// component is the only one that is scanned again.
func (b *builder) sbom(ctx context.Context, plan *machine.Plan, images images, in graph.Input, opt options, p ocispecs.Platform) (llb.State, error) {
	scan, err := b.scanner(ctx, in)
	if err != nil {
		return llb.State{}, err
	}
	m := sbom.Machine{Name: opt.name, Platform: platforms.FormatAll(p), Epoch: opt.time()}
	scans := map[string]llb.State{}
	folders := map[string]string{} // by image
	add := func(component, name string) error {
		c := sbom.Component{Name: component, Image: familiar(name)}
		i := images[name]
		c.Digest = i.digest.String()
		if folders[name] == "" {
			folders[name] = fmt.Sprintf("%03d", len(scans))
			if scans[folders[name]], err = scan(ctx, component, name, in.Images[name]); err != nil {
				return err
			}
		}
		c.Scan = path.Join(graph.ScansPath, folders[name])
		if i.named != nil {
			tag := ""
			if tagged, ok := i.named.(reference.Tagged); ok {
				tag = tagged.Tag()
			}
			c.URL = sbom.ImageURL(i.named.Name(), tag, c.Digest)
		}
		m.Components = append(m.Components, c)
		return nil
	}
	if k := plan.Kernel; k != nil {
		if err := add("kernel", k.Image); err != nil {
			return llb.State{}, err
		}
	}
	for _, t := range plan.Trees {
		if err := add(t.Name, t.Image); err != nil {
			return llb.State{}, err
		}
	}
	for _, l := range plan.Layouts {
		// Not scanned: it may hold several platforms. Blobs are named by their digests.
		m.Components = append(m.Components, sbom.Component{
			Name: l.Name, Image: familiar(l.Image), Digest: "sha256:" + in.Layouts[l.Name].Index.Name,
		})
	}
	spec, err := json.Marshal(m)
	if err != nil {
		return llb.State{}, err
	}
	return graph.SBOM(in, spec, scans), nil
}

type scan func(ctx context.Context, component, name string, image graph.Image) (llb.State, error)

// scanner gives Slipway's own, or the one that the user named.
func (b *builder) scanner(ctx context.Context, in graph.Input) (scan, error) {
	if b.ui.SBOM == nil || !strings.Contains(b.ui.BuildOpts().Opts["attest:sbom"], "generator=") {
		return func(_ context.Context, component, name string, image graph.Image) (llb.State, error) {
			return graph.Scan(in, component, name, image), nil
		}, nil
	}
	foreign, err := scanners.CreateSBOMScanner(ctx, b.client, b.ui.SBOM.Generator, in.Builder, sourceresolver.Opt{
		ImageOpt: &sourceresolver.ResolveImageOpt{
			ResolveMode: b.ui.BuildOpts().Opts["image-resolve-mode"],
			Platform:    &in.Builder,
		},
	}, b.ui.SBOM.Parameters)
	if err != nil {
		return nil, fmt.Errorf("sbom generator %s: %w", b.ui.SBOM.Generator, err)
	}
	return func(ctx context.Context, component, _ string, image graph.Image) (llb.State, error) {
		var opts []llb.ConstraintsOpt
		if in.IgnoreCache(component) {
			opts = append(opts, llb.IgnoreCache)
		}
		att, err := foreign(ctx, in.Label+component, image.Root, nil, opts...)
		if err != nil {
			return llb.State{}, err
		}
		return *att.Ref, nil
	}, nil
}

// attestation is an SBOM as BuildKit attaches it to a result.
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
