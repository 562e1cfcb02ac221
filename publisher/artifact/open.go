package artifact

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/slipway-build/slipway/internal/printable"
	"github.com/slipway-build/slipway/publisher/disk"
)

// maxDisks limits the manifests of an image index.
const maxDisks = 200

// A Choice says which disk of an image index is meant. Empty fields mean any.
type Choice struct {
	Architecture string // as in Go, for example amd64
	Format       string // for example raw

	// Preferred decides if several disks are left.
	Preferred Preference
}

// A Preference is the disk to choose if there are several. Empty fields mean
// that there is none.
type Preference struct {
	Architecture, Format string
}

// An Artifact is a disk in a registry. Its methods can be called concurrently.
type Artifact struct {
	Reference Reference // with the digest of what its tag named when it was opened
	Name      string    // of the file; safe as the name of one and to print
	Size      int64     // of the disk, in bytes

	Format, Architecture, BootMode string
	Annotations                    map[string]string // of the manifest

	index *Index
	data  v1.Descriptor // the layer
	*reader
}

// document is an OCI image manifest or index, of which only one has Layers and
// the other Manifests.
type document struct {
	MediaType    types.MediaType   `json:"mediaType"`
	ArtifactType string            `json:"artifactType"`
	Config       v1.Descriptor     `json:"config"`
	Layers       []v1.Descriptor   `json:"layers"`
	Manifests    []v1.Descriptor   `json:"manifests"`
	Annotations  map[string]string `json:"annotations"`
}

// Open finds a disk in a registry and reads its index. A tag is resolved once:
// what is read later is what it meant then. It fails if the choice leaves no
// disk or several. ctx also limits the later reads. The credentials are those
// of docker login.
func Open(ctx context.Context, ref Reference, choice Choice) (*Artifact, error) {
	r, err := connect(ctx, ref)
	if err != nil {
		return nil, err
	}
	a, err := r.open(ctx, choice)
	if err != nil {
		return nil, err
	}
	a.reader = newReader(ctx, r, a.data.Digest.String(), a.index)
	return a, nil
}

// open reads the documents of a disk.
func (r *registry) open(ctx context.Context, choice Choice) (*Artifact, error) {
	doc, digest, err := r.document(ctx, r.ref.identifier())
	if err != nil {
		return nil, err
	}
	r.ref.digest = digest
	var in v1.Descriptor
	if doc.MediaType == types.OCIImageIndex {
		if in, err = choice.find(doc.Manifests); err != nil {
			return nil, r.explain(err)
		}
		if doc, _, err = r.document(ctx, in.Digest.String()); err != nil {
			return nil, err
		}
	}
	a, err := newArtifact(doc)
	if err != nil {
		return nil, r.explain(err)
	}
	a.Reference = r.ref
	if in.Platform != nil && (in.Platform.Architecture != a.Architecture || in.Annotations[AnnotationFormat] != a.Format) {
		return nil, r.explain(fmt.Errorf("the index lists a disk for %s as one for %s", a.kind(), kindOf(in)))
	}
	if !choice.matches(a.Architecture, a.Format) {
		return nil, r.explain(fmt.Errorf("it is a disk for %s", a.kind()))
	}
	config, err := r.blob(ctx, doc.Config.Digest.String(), doc.Config.Size)
	if err != nil {
		return nil, err
	}
	if a.index, err = readIndex(config, a.data.Size); err != nil {
		return nil, r.explain(err)
	}
	a.Size = a.index.Size
	if content := a.disk().Digest(); doc.Annotations[AnnotationContent] != "sha256:"+content {
		return nil, r.explain(fmt.Errorf("the disk is sha256:%s, but the manifest says %q", content, doc.Annotations[AnnotationContent]))
	}
	return a, nil
}

// document reads a manifest or an image index.
func (r *registry) document(ctx context.Context, identifier string) (doc document, digest string, err error) {
	data, digest, err := r.manifest(ctx, identifier)
	if err != nil {
		return document{}, "", err
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return document{}, "", r.explain(fmt.Errorf("manifest: %w", err))
	}
	return doc, digest, nil
}

// find returns the disk of an image index that the choice means.
func (c Choice) find(manifests []v1.Descriptor) (v1.Descriptor, error) {
	if len(manifests) > maxDisks {
		return v1.Descriptor{}, fmt.Errorf("the index has %d manifests: at most %d are supported", len(manifests), maxDisks)
	}
	var all []string
	var found []v1.Descriptor
	for _, m := range manifests {
		if m.ArtifactType != TypeDisk || m.Platform == nil || m.Digest.Algorithm != "sha256" {
			continue
		}
		all = append(all, kindOf(m))
		if c.matches(m.Platform.Architecture, m.Annotations[AnnotationFormat]) {
			found = append(found, m)
		}
	}
	for _, preferred := range []Choice{{Architecture: c.Preferred.Architecture}, {Format: c.Preferred.Format}} {
		others := func(m v1.Descriptor) bool {
			return !preferred.matches(m.Platform.Architecture, m.Annotations[AnnotationFormat])
		}
		if best := slices.DeleteFunc(slices.Clone(found), others); len(best) > 0 {
			found = best
		}
	}
	switch {
	case len(all) == 0:
		return v1.Descriptor{}, fmt.Errorf("it is an image index without disks: push one with slipway push")
	case len(found) == 0:
		return v1.Descriptor{}, fmt.Errorf("it has no disk for %s, only %s", c, strings.Join(all, ", "))
	case len(found) > 1:
		var names []string
		for _, m := range found {
			names = append(names, kindOf(m))
		}
		return v1.Descriptor{}, fmt.Errorf("it has several disks (%s): choose an architecture or a format", strings.Join(names, ", "))
	}
	return found[0], nil
}

func (c Choice) matches(architecture, format string) bool {
	return (c.Architecture == "" || c.Architecture == architecture) && (c.Format == "" || c.Format == format)
}

func (c Choice) String() string {
	return cmp.Or(c.Architecture, "any architecture") + "/" + cmp.Or(c.Format, "any format")
}

// kindOf describes a disk of an image index.
func kindOf(m v1.Descriptor) string {
	return fmt.Sprintf("%.40s/%.40s", m.Platform.Architecture, m.Annotations[AnnotationFormat])
}

func (a *Artifact) kind() string { return fmt.Sprintf("%.40s/%.40s", a.Architecture, a.Format) }

// newArtifact checks a manifest and returns its disk, without the index.
func newArtifact(doc document) (*Artifact, error) {
	switch {
	case doc.MediaType != types.OCIManifestSchema1 || doc.ArtifactType != TypeDisk:
		return nil, fmt.Errorf("it is no disk: the media type is %.80q, the artifact type %.80q; push one with slipway push", doc.MediaType, doc.ArtifactType)
	case doc.Config.MediaType != TypeIndex || len(doc.Layers) != 1 || doc.Layers[0].MediaType != TypeData:
		return nil, fmt.Errorf("invalid disk: %d layers, and a config of the type %.80q", len(doc.Layers), doc.Config.MediaType)
	case doc.Config.Size <= 0 || doc.Config.Size > maxIndex:
		return nil, fmt.Errorf("the index of the disk has %d bytes: at most %d are supported", doc.Config.Size, maxIndex)
	case doc.Config.Digest.Algorithm != "sha256" || doc.Layers[0].Digest.Algorithm != "sha256":
		return nil, fmt.Errorf("the digests are not SHA-256")
	}
	format := doc.Annotations[AnnotationFormat]
	return &Artifact{
		Name:         fileName(doc.Annotations[AnnotationTitle], format),
		Format:       format,
		Architecture: doc.Annotations[AnnotationArchitecture],
		BootMode:     doc.Annotations[AnnotationBootMode],
		Annotations:  doc.Annotations,
		data:         doc.Layers[0],
	}, nil
}

// fileName returns the name of a file for the title of a disk. Titles that are
// not plain names are replaced.
func fileName(title, format string) string {
	plain := title != "" && len(title) <= 200 && title == path.Base(title) && title[0] != '.' && title[0] != '-' &&
		!strings.ContainsAny(title, `\:`) && printable.Line(title) == title
	if plain {
		return title
	}
	if slices.ContainsFunc([]byte(format), func(c byte) bool {
		return (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '.' && c != '+'
	}) {
		format = ""
	}
	return "machine." + cmp.Or(strings.Trim(format, "-."), "raw")
}

// disk returns the disk, of which only the digests are known.
func (a *Artifact) disk() *disk.Disk {
	var free []disk.Extent
	for _, e := range a.index.Free {
		free = append(free, disk.Extent(e))
	}
	return disk.New(a.Name, a.index.Size, a.index.blocks(), free, a.reader)
}

// Disk returns the disk, for a publisher. It reads the registry.
func (a *Artifact) Disk() *disk.Disk { return a.disk() }
