package artifact

import (
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/static"

	"github.com/slipway-build/slipway/internal/pemfile"
)

// Types of signatures, from Cosign's SIGNATURE_SPEC.md.
const (
	TypeSignature = "application/vnd.dev.cosign.artifact.sig.v1+json" // artifact type
	typePayload   = "application/vnd.dev.cosign.simplesigning.v1+json"

	annotationSignature = "dev.cosignproject.cosign/signature"
	payloadKind         = "cosign container image signature"
)

// Limits of signatures that are read.
const (
	maxSignatures = 100
	maxPayload    = 64 << 10 // bytes
)

// A payload is what is signed: "simple signing" of containers/image.
type payload struct {
	Critical struct {
		Identity struct {
			Reference string `json:"docker-reference"`
		} `json:"identity"`
		Image struct {
			Digest string `json:"docker-manifest-digest"`
		} `json:"image"`
		Type string `json:"type"`
	} `json:"critical"`
	Optional map[string]any `json:"optional"`
}

// ParseKey parses a private key on an elliptic curve, in PEM.
func ParseKey(text []byte) (*ecdsa.PrivateKey, error) {
	key, err := pemfile.PrivateKey(text)
	if err != nil {
		return nil, err
	}
	if key, ok := key.(*ecdsa.PrivateKey); ok {
		return key, nil
	}
	return nil, errors.New("the private key is not on an elliptic curve: make one with openssl ecparam -genkey -name prime256v1")
}

// ParsePublicKey parses a public key on an elliptic curve in PEM (PKIX).
func ParsePublicKey(text []byte) (*ecdsa.PublicKey, error) {
	key, err := pemfile.PublicKey(text)
	if err != nil {
		return nil, err
	}
	if key, ok := key.(*ecdsa.PublicKey); ok {
		return key, nil
	}
	return nil, errors.New("the public key is not on an elliptic curve")
}

// signatureTag is where Cosign looks for the signatures of a digest.
func signatureTag(digest string) string { return strings.Replace(digest, ":", "-", 1) + ".sig" }

// Sign signs what subject, which must have a digest, means, as "cosign sign"
// does with a key and without a transparency log. The signature is a referrer
// of the subject, and under the tag where Cosign looks for it. Signatures that
// are there remain. The same key makes the same signature (RFC 6979).
func Sign(ctx context.Context, subject Reference, key *ecdsa.PrivateKey) error {
	p := newPusher(ctx, subject)
	target, err := p.descriptor()
	if err != nil {
		return p.explain(ctx, err)
	}
	var claim payload
	claim.Critical.Identity.Reference = subject.repository.Name()
	claim.Critical.Image.Digest = subject.digest
	claim.Critical.Type = payloadKind
	content, err := json.Marshal(claim)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(content)
	signature, err := key.Sign(nil, sum[:], crypto.SHA256) // nil: deterministic
	if err != nil {
		return fmt.Errorf("sign: %w", err)
	}
	blob := static.NewLayer(content, typePayload)
	layer, err := describe(blob, map[string]string{annotationSignature: base64.StdEncoding.EncodeToString(signature)})
	if err != nil {
		return err
	}
	r, err := connect(ctx, subject)
	if err != nil {
		return err
	}
	layers, err := r.signatures(ctx)
	if err != nil || contains(layers, layer) {
		return err
	}
	layers = append(layers, layer)
	slices.SortFunc(layers, func(a, b v1.Descriptor) int {
		return cmp.Compare(a.Annotations[annotationSignature], b.Annotations[annotationSignature])
	})
	return p.explain(ctx, p.attach(target, TypeSignature, nil, []v1.Layer{blob}, layers, signatureTag(subject.digest)))
}

// signatures returns the signatures of a reference with a digest: those under
// Cosign's tag, and those of referrers, which a copy may have alone.
func (r *registry) signatures(ctx context.Context) ([]v1.Descriptor, error) {
	sources := []string{signatureTag(r.ref.digest)}
	referrers, err := r.referrers(ctx)
	if err != nil {
		return nil, err
	}
	for _, m := range referrers {
		if m.ArtifactType == TypeSignature && m.Digest.Algorithm == "sha256" {
			sources = append(sources, m.Digest.String())
		}
	}
	if len(sources) > maxSignatures {
		return nil, r.explain(fmt.Errorf("there are %d signatures: at most %d are supported", len(sources), maxSignatures))
	}
	var all []v1.Descriptor
	for _, source := range sources {
		doc, _, err := r.document(ctx, source)
		if isNotFound(err) {
			continue
		} else if err != nil {
			return nil, err
		}
		for _, l := range doc.Layers {
			if l.MediaType == typePayload && l.Digest.Algorithm == "sha256" && l.Size > 0 && l.Size <= maxPayload && !contains(all, l) {
				all = append(all, l)
			}
		}
		if len(all) > maxSignatures {
			return nil, r.explain(fmt.Errorf("there are %d signatures: at most %d are supported", len(all), maxSignatures))
		}
	}
	return all, nil
}

// contains reports whether a signature is among others.
func contains(signatures []v1.Descriptor, s v1.Descriptor) bool {
	return slices.ContainsFunc(signatures, func(o v1.Descriptor) bool {
		return o.Annotations[annotationSignature] == s.Annotations[annotationSignature]
	})
}

// Verify returns the reference with the digest that it means now, if the owner of
// the key has signed that. Identities in signatures do not matter, so a copy in
// another repository is as good as the original.
func Verify(ctx context.Context, ref Reference, key *ecdsa.PublicKey) (Reference, error) {
	r, err := connect(ctx, ref)
	if err != nil {
		return Reference{}, err
	}
	_, digest, err := r.manifest(ctx, ref.identifier())
	if err != nil {
		return Reference{}, err
	}
	ref.digest = digest
	r.ref = ref
	layers, err := r.signatures(ctx)
	if err != nil {
		return Reference{}, err
	}
	for _, l := range layers {
		signature, err := base64.StdEncoding.DecodeString(l.Annotations[annotationSignature])
		if err != nil {
			continue // of others
		}
		content, err := r.blob(ctx, l.Digest.String(), l.Size)
		if err != nil {
			return Reference{}, err
		}
		sum := sha256.Sum256(content)
		if ecdsa.VerifyASN1(key, sum[:], signature) && claims(content, digest) {
			return ref, nil
		}
	}
	return Reference{}, r.explain(fmt.Errorf("none of its %d signatures is by the key", len(layers)))
}

// claims reports whether a signed payload is about an image with a digest.
func claims(content []byte, digest string) bool {
	var claim payload
	err := json.Unmarshal(content, &claim)
	return err == nil && claim.Critical.Type == payloadKind && claim.Critical.Image.Digest == digest
}
