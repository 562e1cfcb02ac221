package artifact

import (
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/static"
)

// Types of signed statements, from Cosign's ATTESTATION_SPEC.md. The envelope is a
// media type and an artifact type.
const (
	TypeEnvelope = "application/vnd.dsse.envelope.v1+json"

	annotationPredicateType = "predicateType"
)

// An envelope is a signed document (DSSE 1.0, "JSON Envelope").
type envelope struct {
	PayloadType string              `json:"payloadType"`
	Payload     []byte              `json:"payload"`
	Signatures  []envelopeSignature `json:"signatures"`
}

type envelopeSignature struct {
	KeyID     string `json:"keyid"`
	Signature []byte `json:"sig"`
}

// attestationTag is where Cosign looks for the signed statements about a digest.
func attestationTag(digest string) string { return strings.Replace(digest, ":", "-", 1) + ".att" }

// Attest signs an in-toto statement and stores it as a referrer of what subject,
// which must have a digest, means, as "cosign attest" does with a key and without
// a transparency log. The statement must have the digest as a subject. Statements
// that are there remain, and the same key makes the same signature (RFC 6979).
func Attest(ctx context.Context, subject Reference, statement []byte, key *ecdsa.PrivateKey) error {
	var document struct {
		PredicateType string `json:"predicateType"`
	}
	if err := json.Unmarshal(statement, &document); err != nil || document.PredicateType == "" {
		return errors.New("it is not an in-toto statement")
	}
	content, err := sealEnvelope(statement, key)
	if err != nil {
		return err
	}
	p := newPusher(ctx, subject)
	target, err := p.descriptor()
	if err != nil {
		return p.explain(ctx, err)
	}
	blob := static.NewLayer(content, TypeEnvelope)
	// Cosign requires the annotation of the signature, which is in the envelope.
	layer, err := describe(blob, map[string]string{annotationSignature: "", annotationPredicateType: document.PredicateType})
	if err != nil {
		return err
	}
	r, err := connect(ctx, subject)
	if err != nil {
		return err
	}
	doc, _, err := r.document(ctx, attestationTag(subject.digest))
	if err != nil && !isNotFound(err) {
		return err
	}
	layers := slices.DeleteFunc(doc.Layers, func(l v1.Descriptor) bool { return l.MediaType != TypeEnvelope })
	if slices.ContainsFunc(layers, func(l v1.Descriptor) bool { return l.Digest == layer.Digest }) {
		return nil
	}
	if len(layers) >= maxSignatures {
		return p.explain(ctx, fmt.Errorf("there are %d signed statements: at most %d are supported", len(layers), maxSignatures))
	}
	layers = append(layers, layer)
	slices.SortFunc(layers, func(a, b v1.Descriptor) int { return cmp.Compare(a.Digest.String(), b.Digest.String()) })
	return p.explain(ctx, p.attach(target, TypeEnvelope, nil, []v1.Layer{blob}, layers, attestationTag(subject.digest)))
}

// sealEnvelope returns a statement in a signed envelope.
func sealEnvelope(statement []byte, key *ecdsa.PrivateKey) ([]byte, error) {
	// What is signed has the lengths of its parts (DSSE 1.0, "Signature Definition").
	sum := sha256.Sum256(fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(TypeInToto), TypeInToto, len(statement), statement))
	signature, err := key.Sign(nil, sum[:], crypto.SHA256) // nil: deterministic
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return json.Marshal(envelope{TypeInToto, statement, []envelopeSignature{{Signature: signature}}})
}
