package frontend

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	graph "github.com/slipway-build/slipway/llb"
)

// A blobStore holds the blobs of an OCI layout of the client.
type blobStore struct {
	session, name string
}

func (s *blobStore) blob(d digest.Digest, opts ...llb.ImageBlobOption) llb.State {
	// BuildKit requires a host in the reference and ignores it.
	return llb.OCILayoutBlob("layout.invalid/"+s.name+"@"+d.String(), append(opts, llb.ImageBlobOCIStore(s.session, s.name))...)
}

// blobs returns the states of blobs.
func (s *blobStore) blobs(ds []ocispecs.Descriptor) []graph.Blob {
	var out []graph.Blob
	for _, d := range ds {
		name := llb.WithCustomName("[layer] " + d.Digest.String())
		out = append(out, graph.Blob{State: s.blob(d.Digest, name), Name: d.Digest.Encoded()})
	}
	return out
}

// layers returns the layers of an image, bottom first.
func (r *resolver) layers(ctx context.Context, i image, p ocispecs.Platform) ([]graph.Blob, error) {
	if err := r.req.builder.require(pb.CapSourceImageBlob); err != nil {
		return nil, err
	}
	m, err := r.manifest(ctx, i.blobs, i.digest, p)
	if err != nil {
		return nil, err
	}
	return i.blobs.blobs(m.Layers), nil
}

// descriptors are those of an index and of a manifest (OCI Image Specification,
// "Image Index" and "Image Manifest").
type descriptors struct {
	specs.Versioned
	Manifests []ocispecs.Descriptor `json:"manifests"`
	Config    ocispecs.Descriptor   `json:"config"`
	Layers    []ocispecs.Descriptor `json:"layers"`
}

// manifest reads the manifest for a platform. The root is the manifest itself or
// an index.
func (r *resolver) manifest(ctx context.Context, s *blobStore, root digest.Digest, p ocispecs.Platform) (*descriptors, error) {
	m, err := r.descriptors(ctx, s, root)
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
	return r.descriptors(ctx, s, best.Digest)
}

func (r *resolver) descriptors(ctx context.Context, s *blobStore, d digest.Digest) (*descriptors, error) {
	data, err := r.readBlob(ctx, s, d)
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

func (r *resolver) readBlob(ctx context.Context, s *blobStore, d digest.Digest) ([]byte, error) {
	ref, err := r.req.solve(ctx, s.blob(d, llb.WithCustomName("[internal] read manifest "+d.String())))
	if err != nil {
		return nil, err
	}
	return ref.ReadFile(ctx, client.ReadRequest{Filename: d.Encoded()})
}
