package artifact

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/slipway-build/slipway/publisher/disk"
)

// An Upload is a disk to push.
type Upload struct {
	Disk         *disk.Disk
	Format       string            // for example raw
	Architecture string            // as in Go, for example amd64
	BootMode     string            // of EC2, or ""
	Annotations  map[string]string // further ones
}

// Push stores disks in a registry, as one image index, and returns a reference
// to that with its digest. It compresses each disk twice, for the digest and for
// the upload, and keeps no copy. Disks that the registry has already are not
// sent. The credentials are those of docker login.
func Push(ctx context.Context, ref Reference, uploads []Upload) (Reference, error) {
	if ref.digest != "" {
		return Reference{}, fmt.Errorf("%s has a digest: push to a tag", ref)
	}
	p := newPusher(ctx, ref)
	var manifests []v1.Descriptor
	for _, u := range uploads {
		m, err := p.push(ctx, u)
		if err != nil {
			return Reference{}, p.explain(ctx, err)
		}
		manifests = append(manifests, m)
	}
	index, err := encodeIndex(manifests)
	if err != nil {
		return Reference{}, err
	}
	if err := remote.Put(ref.repository.Tag(ref.tag), index, p.options...); err != nil {
		return Reference{}, p.explain(ctx, err)
	}
	ref.digest = sha256Digest(index.content)
	return ref, nil
}

type pusher struct {
	ref     Reference
	options []remote.Option
}

func (p pusher) explain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return (&registry{ref: p.ref}).explain(err)
}

// push stores one disk and returns its descriptor.
func (p pusher) push(ctx context.Context, u Upload) (v1.Descriptor, error) {
	layer, frames, err := newLayer(ctx, u.Disk)
	if err != nil {
		return v1.Descriptor{}, err
	}
	index := Index{Version: indexVersion, Size: u.Disk.Size, Blocks: frames}
	for _, e := range u.Disk.FreeExtents() {
		index.Free = append(index.Free, Extent(e))
	}
	config, err := json.Marshal(index)
	if err != nil {
		return v1.Descriptor{}, err
	}
	if len(config) > maxIndex {
		return v1.Descriptor{}, fmt.Errorf("%s has too much data: its index has %d bytes, at most %d are supported", u.Disk.Name, len(config), maxIndex)
	}
	m, err := u.manifest(layer, config)
	if err != nil {
		return v1.Descriptor{}, err
	}
	for _, blob := range []v1.Layer{static.NewLayer(config, TypeIndex), layer} {
		if err := remote.WriteLayer(p.ref.repository, blob, p.options...); err != nil {
			return v1.Descriptor{}, err
		}
	}
	digest := sha256Digest(m.content)
	if err := remote.Put(p.ref.repository.Digest(digest), m, p.options...); err != nil {
		return v1.Descriptor{}, err
	}
	hash, err := v1.NewHash(digest)
	if err != nil {
		return v1.Descriptor{}, err
	}
	annotations := map[string]string{}
	for key, value := range u.annotations() {
		if key != AnnotationTitle { // clients would save the manifest under this name
			annotations[key] = value
		}
	}
	return v1.Descriptor{
		MediaType: types.OCIManifestSchema1, ArtifactType: TypeDisk, Digest: hash, Size: int64(len(m.content)),
		Platform:    &v1.Platform{OS: "linux", Architecture: u.Architecture},
		Annotations: annotations,
	}, nil
}

// annotations returns those of the manifest.
func (u Upload) annotations() map[string]string {
	all := map[string]string{}
	maps.Copy(all, u.Annotations)
	maps.Copy(all, map[string]string{
		AnnotationFormat:       u.Format,
		AnnotationArchitecture: u.Architecture,
		AnnotationSize:         strconv.FormatInt(u.Disk.Size, 10),
		AnnotationContent:      "sha256:" + u.Disk.Digest(),
		AnnotationTitle:        filepath.Base(u.Disk.Name),
	})
	if u.BootMode != "" {
		all[AnnotationBootMode] = u.BootMode
	}
	return all
}

// manifest returns the manifest of a disk.
func (u Upload) manifest(l *layer, config []byte) (rawManifest, error) {
	hash, err := v1.NewHash(sha256Digest(config))
	if err != nil {
		return rawManifest{}, err
	}
	return encodeManifest(types.OCIManifestSchema1, map[string]any{
		"schemaVersion": 2,
		"mediaType":     types.OCIManifestSchema1,
		"artifactType":  TypeDisk,
		"config":        v1.Descriptor{MediaType: TypeIndex, Digest: hash, Size: int64(len(config))},
		"layers": []v1.Descriptor{{
			MediaType: TypeData, Digest: l.digest, Size: l.size,
			Annotations: map[string]string{AnnotationTitle: filepath.Base(u.Disk.Name) + ".zst"},
		}},
		"annotations": u.annotations(),
	})
}

// encodeIndex returns the image index of disks. Their order does not matter.
func encodeIndex(manifests []v1.Descriptor) (rawManifest, error) {
	manifests = slices.Clone(manifests)
	slices.SortFunc(manifests, func(a, b v1.Descriptor) int {
		return cmp.Or(
			cmp.Compare(a.Platform.Architecture, b.Platform.Architecture),
			cmp.Compare(a.Annotations[AnnotationFormat], b.Annotations[AnnotationFormat]),
			cmp.Compare(a.Digest.Hex, b.Digest.Hex),
		)
	})
	for i, m := range manifests[:max(0, len(manifests)-1)] {
		if next := manifests[i+1]; kindOf(m) == kindOf(next) {
			return rawManifest{}, errors.New("there are two disks for " + kindOf(m))
		}
	}
	return encodeManifest(types.OCIImageIndex, map[string]any{
		"schemaVersion": 2,
		"mediaType":     types.OCIImageIndex,
		"artifactType":  TypeMachine,
		"manifests":     manifests,
	})
}

// A rawManifest is an encoded manifest. It implements the interfaces of
// go-containerregistry.
type rawManifest struct {
	mediaType types.MediaType
	content   []byte
}

// encodeManifest encodes a manifest with sorted keys.
func encodeManifest(mediaType types.MediaType, manifest map[string]any) (rawManifest, error) {
	content, err := json.Marshal(manifest)
	return rawManifest{mediaType, content}, err
}

func (m rawManifest) RawManifest() ([]byte, error)        { return m.content, nil }
func (m rawManifest) MediaType() (types.MediaType, error) { return m.mediaType, nil }
