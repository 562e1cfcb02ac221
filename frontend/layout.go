package frontend

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
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

// imageLayout finds an image for some platforms, or for all: its blobs in an OCI
// layout, or else its files. Registries do not serve the manifests to a frontend.
func (r *resolver) imageLayout(ctx context.Context, ref machine.ImageRef, selected []string, p ocispecs.Platform) (graph.ImageLayout, error) {
	if scheme, value := r.req.namedContext(ref.Name, p); scheme == "oci-layout" {
		return r.storedLayout(ctx, value, selected)
	}
	return r.unpackedLayout(ctx, ref, selected, p)
}

// storedLayout finds the blobs of an image in an OCI layout of the client.
func (r *resolver) storedLayout(ctx context.Context, value string, selected []string) (graph.ImageLayout, error) {
	var out graph.ImageLayout
	stored, err := parseLayout(value)
	if err != nil {
		return out, err
	}
	if err := r.req.builder.require(pb.CapSourceImageBlob); err != nil {
		return out, errors.New("the builder cannot read the blobs of an OCI layout, which format oci requires: " +
			"use BuildKit 0.28 or newer, for example from docker buildx create, or an image of a registry")
	}
	store := &blobStore{r.req.ui.BuildOpts().SessionID, stored.Name()}
	root, err := r.descriptors(ctx, store, stored.Digest())
	if err != nil {
		return out, err
	}
	out.Digest = stored.Digest().String()
	out.Index = store.blobs([]ocispecs.Descriptor{{Digest: stored.Digest()}})[0]
	existing := root.Manifests
	if len(existing) == 0 {
		// The layout contains a manifest without an index.
		var p ocispecs.Platform
		config, err := r.readBlob(ctx, store, root.Config.Digest)
		if err != nil {
			return out, err
		}
		if err := json.Unmarshal(config, &p); err != nil {
			return out, fmt.Errorf("read its configuration: %w", err)
		}
		existing = []ocispecs.Descriptor{{Digest: stored.Digest(), Platform: &p}}
		out.Blobs = store.blobs(append([]ocispecs.Descriptor{root.Config}, root.Layers...))
	}
	manifests, err := selectManifests(existing, selected)
	if err != nil {
		return out, err
	}
	if len(root.Manifests) == 0 {
		manifests = nil
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

// parseLayout parses the value of a named context with an OCI layout.
func parseLayout(value string) (reference.Canonical, error) {
	stored, err := reference.Parse(value)
	if err != nil {
		return nil, err
	}
	canonical, ok := stored.(reference.Canonical)
	if !ok {
		return nil, fmt.Errorf("OCI layout %s has no name or no digest", value)
	}
	return canonical, nil
}

// unpackedLayout finds the files of an image.
func (r *resolver) unpackedLayout(ctx context.Context, ref machine.ImageRef, selected []string, p ocispecs.Platform) (graph.ImageLayout, error) {
	var out graph.ImageLayout
	if named, err := reference.ParseNormalizedNamed(ref.Name); err == nil {
		if _, pinned := named.(reference.Digested); pinned {
			return out, errors.New("format oci cannot keep the digest of an image of a registry: " +
				"remove the digest from the YAML and use a lock, or pass the image as an OCI layout (--build-context IMAGE=oci-layout://…)")
		}
	}
	images, err := r.forPlatforms(ctx, ref, selected, p)
	if err != nil {
		return out, err
	}
	out.Digest = images[0].digest.String()
	for _, i := range images {
		config := i.config
		if config.OS == "" && config.Architecture == "" {
			config.Platform = p
		}
		config.RootFS, config.History = ocispecs.RootFS{}, nil // of the original layers
		data, err := json.Marshal(config)
		if err != nil {
			return out, err
		}
		out.Unpacked = append(out.Unpacked, graph.UnpackedImage{Rootfs: i.rootfs(), Config: data})
	}
	return out, nil
}

// forPlatforms returns an image for some platforms, or for all that exist. A
// package folder exists for the platform of the machine.
func (r *resolver) forPlatforms(ctx context.Context, ref machine.ImageRef, selected []string, p ocispecs.Platform) ([]image, error) {
	all := len(selected) == 0
	resolve := r.find
	switch {
	case strings.HasPrefix(ref.Name, packageScheme):
		resolve = r.buildPackage
		if all {
			selected = []string{platforms.FormatAll(p)}
		}
	case all:
		resolve = r.locate
		selected = probed
	}
	found := make([]image, len(selected))
	errs := make([]error, len(selected))
	var group sync.WaitGroup
	for n, name := range selected {
		group.Go(func() {
			p, err := platforms.Parse(name)
			if err != nil {
				errs[n] = err
				return
			}
			found[n], errs[n] = resolve(ctx, ref, platforms.Normalize(p))
		})
	}
	group.Wait()
	if !all {
		return found, errors.Join(errs...)
	}
	var out []image
	seen := map[string]bool{}
	for n, i := range found {
		// Without an index, there is one image for all.
		if name := platforms.FormatAll(platforms.Normalize(i.config.Platform)); errs[n] == nil && !seen[name] {
			seen[name] = true
			out = append(out, i)
		}
	}
	if len(out) == 0 {
		return nil, errs[0]
	}
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
			return nil, notFor(p, manifestPlatforms(manifests))
		}
		out = append(out, manifests[i])
	}
	return out, nil
}

// manifestPlatforms returns the platforms of manifests, except of attestations.
func manifestPlatforms(manifests []ocispecs.Descriptor) []string {
	var out []string
	for _, d := range manifests {
		if d.Platform != nil && d.Platform.OS != "unknown" {
			out = append(out, platforms.FormatAll(platforms.Normalize(*d.Platform)))
		}
	}
	return out
}
