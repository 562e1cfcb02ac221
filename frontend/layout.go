package frontend

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/solver/pb"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	graph "github.com/slipway-build/slipway/llb"
	"github.com/slipway-build/slipway/machine"
)

// layouts finds the blobs of the images that the machine holds as OCI image
// layouts. The result is by component.
func (r *resolver) layouts(ctx context.Context, layouts []machine.Layout, p ocispecs.Platform) (map[string]graph.ImageLayout, error) {
	out := make(map[string]graph.ImageLayout, len(layouts))
	var diags machine.Diagnostics
	for _, l := range layouts {
		ref := machine.ImageRef{Name: l.Image, Text: l.Image, Range: l.Range, Section: l.Name}
		layout, err := r.imageLayout(ctx, ref, l.Platforms, p)
		if err != nil {
			diags = append(diags, r.req.sources.imageError(ref, err))
		}
		out[l.Name] = layout
	}
	return out, sorted(diags)
}

// imageLayout finds the blobs of an image for some platforms, or for all.
func (r *resolver) imageLayout(ctx context.Context, ref machine.ImageRef, selected []string, p ocispecs.Platform) (graph.ImageLayout, error) {
	var out graph.ImageLayout
	image, err := r.locate(ctx, ref, p)
	if err != nil {
		return out, err
	}
	store := image.blobs
	if store == nil {
		return out, errors.New("format oci requires an image of a registry or of an OCI layout")
	}
	if err := r.req.builder.require(pb.CapSourceImageBlob); err != nil {
		return out, fmt.Errorf("format oci: %w", err)
	}
	root, err := r.descriptors(ctx, store, image.digest)
	if err != nil {
		return out, err
	}
	out.Index = store.blobs([]ocispecs.Descriptor{{Digest: image.digest}})[0]
	manifests, err := selectManifests(root.Manifests, selected)
	if err != nil {
		return out, err
	}
	if len(root.Manifests) == 0 {
		out.Blobs = store.blobs(append([]ocispecs.Descriptor{root.Config}, root.Layers...))
	}
	for _, d := range manifests {
		m, err := r.descriptors(ctx, store, d.Digest)
		if err != nil {
			return out, err
		}
		out.Blobs = append(out.Blobs, store.blobs(slices.Concat([]ocispecs.Descriptor{d, m.Config}, m.Layers))...)
	}
	slices.SortFunc(out.Blobs, func(a, b graph.Blob) int { return cmp.Compare(a.Name, b.Name) })
	out.Blobs = slices.CompactFunc(out.Blobs, func(a, b graph.Blob) bool { return a.Name == b.Name })
	return out, nil
}

// selectManifests returns the manifests for platforms, or all manifests if no
// platform is named.
func selectManifests(manifests []ocispecs.Descriptor, names []string) ([]ocispecs.Descriptor, error) {
	if len(names) == 0 {
		return manifests, nil
	}
	var out []ocispecs.Descriptor
	for _, name := range names {
		p, err := platforms.Parse(name)
		if err != nil {
			return nil, err
		}
		matcher := platforms.OnlyStrict(p)
		i := slices.IndexFunc(manifests, func(d ocispecs.Descriptor) bool { return d.Platform != nil && matcher.Match(*d.Platform) })
		if i < 0 {
			return nil, fmt.Errorf("no manifest for %s", name)
		}
		out = append(out, manifests[i])
	}
	return out, nil
}
