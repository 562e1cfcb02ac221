package artifact

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Media types of documents about disks.
const (
	TypeInToto    = "application/vnd.in-toto+json" // a statement: SBOM, provenance
	TypeSPDX      = "application/spdx+json"
	TypeCycloneDX = "application/vnd.cyclonedx+json"
)

// AnnotationPredicate is the predicate type of an in-toto statement.
const AnnotationPredicate = "in-toto.io/predicate-type"

// MaxAttachment limits a document about disks, in bytes.
const MaxAttachment = 64 << 20

// typeEmpty is the media type of the empty config of OCI image specification
// 1.1, "Guidance for an Empty Descriptor".
const typeEmpty = "application/vnd.oci.empty.v1+json"

// An Attachment is a document about disks, for example an SBOM.
type Attachment struct {
	Name        string // of the file
	Type        string // media type, which is the artifact type too
	Content     []byte
	Annotations map[string]string
}

// NewAttachment returns an attachment whose type follows from its content: an
// in-toto statement, or an SBOM in SPDX or CycloneDX, in JSON.
func NewAttachment(name string, content []byte) (Attachment, error) {
	a := Attachment{Name: name, Content: content, Annotations: map[string]string{}}
	var document struct {
		PredicateType string `json:"predicateType"`
		SPDXVersion   string `json:"spdxVersion"`
		BOMFormat     string `json:"bomFormat"`
	}
	if err := json.Unmarshal(content, &document); err != nil {
		return a, fmt.Errorf("%q is not JSON: name its media type", name)
	}
	switch {
	case document.PredicateType != "":
		a.Type = TypeInToto
		a.Annotations[AnnotationPredicate] = document.PredicateType
	case document.SPDXVersion != "":
		a.Type = TypeSPDX
	case document.BOMFormat == "CycloneDX":
		a.Type = TypeCycloneDX
	default:
		return a, fmt.Errorf("%q is neither an in-toto statement nor an SBOM in SPDX or CycloneDX: name its media type", name)
	}
	return a, nil
}

// Attach stores documents in a registry as referrers of what subject, which
// must have a digest, means: manifests with a subject, as in the OCI
// distribution specification 1.1. If the registry does not list referrers,
// Attach maintains the list under the tag that the specification names for
// that. A document that is attached already is not attached again.
func Attach(ctx context.Context, subject Reference, attachments []Attachment) error {
	p := newPusher(ctx, subject)
	target, err := p.descriptor()
	if err != nil {
		return p.explain(ctx, err)
	}
	for _, a := range attachments {
		if len(a.Content) > MaxAttachment {
			return fmt.Errorf("%q has %d bytes: at most %d can be attached", a.Name, len(a.Content), MaxAttachment)
		}
		blob := static.NewLayer(a.Content, types.MediaType(a.Type))
		layer, err := describe(blob, map[string]string{AnnotationTitle: a.Name})
		if err != nil {
			return err
		}
		if err := p.attach(target, a.Type, a.Annotations, []v1.Layer{blob}, []v1.Descriptor{layer}, ""); err != nil {
			return p.explain(ctx, fmt.Errorf("attach %q: %w", a.Name, err))
		}
	}
	return nil
}

func newPusher(ctx context.Context, ref Reference) pusher {
	return pusher{ref: ref, options: []remote.Option{
		remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain), remote.WithTransport(newTransport()),
	}}
}

// descriptor returns the descriptor of what the reference of p means.
func (p pusher) descriptor() (v1.Descriptor, error) {
	if !p.ref.Pinned() {
		return v1.Descriptor{}, errors.New("the reference has no digest")
	}
	found, err := remote.Get(p.ref.repository.Digest(p.ref.digest), p.options...)
	if err != nil {
		return v1.Descriptor{}, err
	}
	return v1.Descriptor{MediaType: found.MediaType, Digest: found.Digest, Size: found.Size}, nil
}

// attach stores a referrer of a subject, whose blobs are all of its layers that
// the repository may lack, under its digest and, if tag is not empty, under that.
func (p pusher) attach(subject v1.Descriptor, artifactType string, annotations map[string]string, blobs []v1.Layer, layers []v1.Descriptor, tag string) error {
	empty := static.NewLayer([]byte("{}"), typeEmpty)
	for _, blob := range append(blobs, empty) {
		if err := remote.WriteLayer(p.ref.repository, blob, p.options...); err != nil {
			return err
		}
	}
	config, err := describe(empty, nil)
	if err != nil {
		return err
	}
	manifest := map[string]any{
		"schemaVersion": 2,
		"mediaType":     types.OCIManifestSchema1,
		"artifactType":  artifactType,
		"config":        config,
		"layers":        layers,
		"subject":       subject,
	}
	if len(annotations) > 0 {
		manifest["annotations"] = maps.Clone(annotations)
	}
	m, err := encodeManifest(types.OCIManifestSchema1, manifest)
	if err != nil {
		return err
	}
	if err := remote.Put(p.ref.repository.Digest(sha256Digest(m.content)), m, p.options...); err != nil || tag == "" {
		return err
	}
	return remote.Put(p.ref.repository.Tag(tag), m, p.options...)
}

// describe returns the descriptor of a blob.
func describe(blob v1.Layer, annotations map[string]string) (d v1.Descriptor, err error) {
	d.Annotations = annotations
	if d.MediaType, err = blob.MediaType(); err != nil {
		return d, err
	}
	if d.Size, err = blob.Size(); err != nil {
		return d, err
	}
	d.Digest, err = blob.Digest()
	return d, err
}
