package frontend

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	graph "github.com/slipway-build/slipway/llb"
	"github.com/slipway-build/slipway/machine"
)

// store gives the blobs of one repository or OCI layout, each as a state.
type store struct {
	layout bool // an OCI layout of the client
	blob   func(digest.Digest, ...llb.ImageBlobOption) llb.State
}

func registryStore(repository reference.Named) *store {
	return &store{false, func(d digest.Digest, opts ...llb.ImageBlobOption) llb.State {
		return llb.ImageBlob(repository.Name()+"@"+d.String(), opts...)
	}}
}

func layoutStore(session, name string) *store {
	return &store{true, func(d digest.Digest, opts ...llb.ImageBlobOption) llb.State {
		// The host of the name is for the reference's form alone.
		return llb.OCILayoutBlob("layout.invalid/"+name+"@"+d.String(), append(opts, llb.ImageBlobOCIStore(session, name))...)
	}}
}

// layers lists the layers of an image, bottom first.
func (b *builder) layers(ctx context.Context, i image, p ocispecs.Platform) ([]graph.Blob, error) {
	caps := b.ui.BuildOpts().LLBCaps
	if err := caps.Supports(pb.CapSourceImageBlob); err != nil {
		return nil, err
	}
	m, err := b.manifest(ctx, i.store, i.digest, p)
	if err != nil {
		return nil, err
	}
	return i.store.blobs(m.Layers), nil
}

func (s *store) blobs(ds []ocispecs.Descriptor) []graph.Blob {
	var out []graph.Blob
	for _, d := range ds {
		name := llb.WithCustomName("[layer] " + d.Digest.String())
		out = append(out, graph.Blob{State: s.blob(d.Digest, name), Name: d.Digest.Encoded()})
	}
	return out
}

// layouts finds the blobs of the images that the machine holds as they were
// published.
func (b *builder) layouts(ctx context.Context, layouts []machine.Layout, p ocispecs.Platform) (map[string]graph.Layout, error) {
	out := make(map[string]graph.Layout, len(layouts))
	var mistakes machine.Diagnostics
	for _, l := range layouts {
		layout, err := b.published(ctx, l, p)
		if err != nil {
			mistakes = append(mistakes, b.mistake(l.Range, "image %s: %v", l.Image, err))
		}
		out[l.Name] = layout
	}
	return out, sorted(mistakes)
}

func (b *builder) published(ctx context.Context, l machine.Layout, p ocispecs.Platform) (graph.Layout, error) {
	var out graph.Layout
	image, err := b.locateImage(ctx, machine.ImageRef{Name: l.Image, Text: l.Image, Range: l.Range, Section: l.Name}, p)
	if err != nil {
		return out, err
	}
	caps, s := b.ui.BuildOpts().LLBCaps, image.store
	if s == nil {
		return out, errors.New("format oci needs an image of a registry or of an OCI layout")
	}
	if err := caps.Supports(pb.CapSourceImageBlob); err != nil {
		return out, fmt.Errorf("format oci: %w", err)
	}
	index, err := b.descriptors(ctx, s, image.digest)
	if err != nil {
		return out, err
	}
	out.Index = s.blobs([]ocispecs.Descriptor{{Digest: image.digest}})[0]
	manifests, err := chosen(index.Manifests, l.Platforms)
	if err != nil {
		return out, err
	}
	if len(index.Manifests) == 0 {
		out.Blobs = s.blobs(append([]ocispecs.Descriptor{index.Config}, index.Layers...))
	}
	for _, d := range manifests {
		m, err := b.descriptors(ctx, s, d.Digest)
		if err != nil {
			return out, err
		}
		out.Blobs = append(out.Blobs, s.blobs(slices.Concat([]ocispecs.Descriptor{d, m.Config}, m.Layers))...)
	}
	slices.SortFunc(out.Blobs, func(a, b graph.Blob) int { return cmp.Compare(a.Name, b.Name) })
	out.Blobs = slices.CompactFunc(out.Blobs, func(a, b graph.Blob) bool { return a.Name == b.Name })
	return out, nil
}

// chosen keeps the manifests of the platforms, or all.
func chosen(manifests []ocispecs.Descriptor, names []string) ([]ocispecs.Descriptor, error) {
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

// descriptors is what an index and a manifest have (OCI image specification).
type descriptors struct {
	specs.Versioned
	Manifests []ocispecs.Descriptor `json:"manifests"`
	Config    ocispecs.Descriptor   `json:"config"`
	Layers    []ocispecs.Descriptor `json:"layers"`
}

// manifest finds the manifest for a platform, behind an index if there is one.
func (b *builder) manifest(ctx context.Context, s *store, root digest.Digest, p ocispecs.Platform) (*descriptors, error) {
	m, err := b.descriptors(ctx, s, root)
	if err != nil || len(m.Manifests) == 0 {
		return m, err
	}
	matcher := platforms.Only(p)
	var best *ocispecs.Descriptor
	for _, d := range m.Manifests {
		if d.Platform == nil || !matcher.Match(*d.Platform) {
			continue
		}
		if best == nil || matcher.Less(*d.Platform, *best.Platform) {
			best = &d
		}
	}
	if best == nil {
		return nil, fmt.Errorf("no manifest for %s", platforms.FormatAll(p))
	}
	return b.descriptors(ctx, s, best.Digest)
}

func (b *builder) descriptors(ctx context.Context, s *store, d digest.Digest) (*descriptors, error) {
	data, err := b.readBlob(ctx, s, d)
	if err != nil {
		return nil, err
	}
	var out descriptors
	if err := json.Unmarshal(data, &out); err != nil {
		return nil, fmt.Errorf("read manifest %s: %w", d, err)
	}
	if len(out.Manifests) == 0 && out.Config.Digest == "" {
		return nil, errors.New("neither an image manifest nor an index")
	}
	return &out, nil
}

func (b *builder) readBlob(ctx context.Context, s *store, d digest.Digest) ([]byte, error) {
	ref, err := b.solve(ctx, s.blob(d, llb.WithCustomName("[internal] read manifest "+d.String())))
	if err != nil {
		return nil, err
	}
	return ref.ReadFile(ctx, client.ReadRequest{Filename: d.Encoded()})
}
