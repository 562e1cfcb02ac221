package uki

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"

	"github.com/smallstep/pkcs7"

	"github.com/slipway-build/slipway/internal/pemfile"
)

// ErrSignature is the error for a signature that does not fit the program.
var ErrSignature = errors.New("invalid signature")

// A Signer signs programs for UEFI with an RSA key, the only kind that all
// firmware verifies. One without a key reserves room, see Sign.
type Signer struct {
	Certificate *x509.Certificate
	Key         crypto.Signer
}

// Sizes of RSA keys in bits that firmware verifies (UEFI 2.10, section 32.2.4 and
// EDK II, CryptRsaBasic.c).
const (
	minKeyBits = 2048
	maxKeyBits = 4096
)

// NewSigner returns a signer. It fails if the certificate is for another key, or
// firmware cannot verify signatures by it.
func NewSigner(certificate *x509.Certificate, key crypto.Signer) (*Signer, error) {
	public, ok := key.Public().(*rsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("signing key: it is a %T, but UEFI firmware verifies RSA only", key.Public())
	}
	if bits := public.N.BitLen(); bits < minKeyBits || bits > maxKeyBits {
		return nil, fmt.Errorf("signing key: RSA keys must have %d to %d bits, not %d", minKeyBits, maxKeyBits, bits)
	}
	if !public.Equal(certificate.PublicKey) {
		return nil, errors.New("signing key: the certificate is for another key")
	}
	return &Signer{certificate, key}, nil
}

// ParseSigner returns the signer for a private key and a certificate, both in PEM
// (RFC 7468). The errors contain nothing of the key.
func ParseSigner(key, certificate []byte) (*Signer, error) {
	c, err := pemfile.Certificate(certificate)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	k, err := pemfile.PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	return NewSigner(c, k)
}

// Object identifiers (RFC 5652, RFC 8017, and Windows Authenticode Portable
// Executable Signature Format, "Authenticode-Specific Structures").
var (
	oidSignedData      = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
	oidContentType     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 3}
	oidMessageDigest   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 4}
	oidSHA256          = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
	oidRSA             = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}
	oidIndirectData    = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, 4}
	oidPEImageData     = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, 15}
	sha256WithNull     = pkix.AlgorithmIdentifier{Algorithm: oidSHA256, Parameters: asn1.NullRawValue}
	rsaWithNull        = pkix.AlgorithmIdentifier{Algorithm: oidRSA, Parameters: asn1.NullRawValue}
	peImageDataContent = []byte{ // SpcPeImageData: no flags, and the file name <<<Obsolete>>>
		0x30, 0x25, 0x03, 0x01, 0x00, 0xa0, 0x20, 0xa2, 0x1e, 0x80, 0x1c,
		0, '<', 0, '<', 0, '<', 0, 'O', 0, 'b', 0, 's', 0, 'o', 0, 'l', 0, 'e', 0, 't', 0, 'e', 0, '>', 0, '>', 0, '>',
	}
)

// indirectData is SpcIndirectDataContent, what a signature is about.
type indirectData struct {
	Data   indirectValue
	Digest digestInfo
}

type indirectValue struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue
}

type digestInfo struct {
	Algorithm pkix.AlgorithmIdentifier
	Digest    []byte
}

// signedData is SignedData of PKCS #7 (RFC 2315, section 9.1). In CMS, its
// successor, contents are octet strings, which firmware does not accept.
type signedData struct {
	Version      int
	Algorithms   []pkix.AlgorithmIdentifier `asn1:"set"`
	Content      contentInfo
	Certificates asn1.RawValue
	Signers      []signerInfo `asn1:"set"`
}

type contentInfo struct {
	Type    asn1.ObjectIdentifier
	Content asn1.RawValue
}

type signerInfo struct {
	Version            int
	Issuer             issuerAndSerial
	DigestAlgorithm    pkix.AlgorithmIdentifier
	Attributes         asn1.RawValue
	SignatureAlgorithm pkix.AlgorithmIdentifier
	Signature          []byte
}

type issuerAndSerial struct {
	Issuer asn1.RawValue
	Serial *big.Int
}

type attribute struct {
	Type   asn1.ObjectIdentifier
	Values []asn1.RawValue `asn1:"set"`
}

// explicit returns a value with a context-specific tag of 0 around it.
func explicit(der []byte) asn1.RawValue {
	return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: der}
}

// authenticode returns a signature of a program with this SHA-256. RSASSA-PKCS1-v1_5
// without a signing time makes it depend on the key and the program only.
func (s *Signer) authenticode(digest []byte) ([]byte, error) {
	content, err := asn1.Marshal(indirectData{
		Data:   indirectValue{oidPEImageData, asn1.RawValue{FullBytes: peImageDataContent}},
		Digest: digestInfo{sha256WithNull, digest},
	})
	if err != nil {
		return nil, err
	}
	var inner asn1.RawValue // the digest is about the value without its tag and length
	if _, err := asn1.Unmarshal(content, &inner); err != nil {
		return nil, err
	}
	attributes, err := encodeAttributes(sha256.Sum256(inner.Bytes))
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(attributes) // with the tag of a set
	signature, err := crypto.SignMessage(s.Key, rand.Reader, attributes, crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	// A wrong signature, for example by a faulty device, would make a machine that
	// does not boot.
	if err := rsa.VerifyPKCS1v15(s.Certificate.PublicKey.(*rsa.PublicKey), crypto.SHA256, sum[:], signature); err != nil {
		return nil, fmt.Errorf("sign: the signature is not by the key of the certificate: %w", err)
	}
	var set asn1.RawValue
	if _, err := asn1.Unmarshal(attributes, &set); err != nil {
		return nil, err
	}
	signed, err := asn1.Marshal(signedData{
		Version:      1,
		Algorithms:   []pkix.AlgorithmIdentifier{sha256WithNull},
		Content:      contentInfo{oidIndirectData, explicit(content)},
		Certificates: explicit(s.Certificate.Raw),
		Signers: []signerInfo{{
			Version:            1,
			Issuer:             issuerAndSerial{asn1.RawValue{FullBytes: s.Certificate.RawIssuer}, s.Certificate.SerialNumber},
			DigestAlgorithm:    sha256WithNull,
			Attributes:         explicit(set.Bytes),
			SignatureAlgorithm: rsaWithNull,
			Signature:          signature,
		}},
	})
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(contentInfo{oidSignedData, explicit(signed)})
}

// encodeAttributes returns the signed attributes as a set: the type of the content
// and its digest.
func encodeAttributes(digest [sha256.Size]byte) ([]byte, error) {
	contentType, err := asn1.Marshal(oidIndirectData)
	if err != nil {
		return nil, err
	}
	messageDigest, err := asn1.Marshal(digest[:])
	if err != nil {
		return nil, err
	}
	return asn1.MarshalWithParams([]attribute{
		{oidContentType, []asn1.RawValue{{FullBytes: contentType}}},
		{oidMessageDigest, []asn1.RawValue{{FullBytes: messageDigest}}},
	}, "set")
}

// A Signature is a signature of a program.
type Signature struct {
	Certificate *x509.Certificate // of the key that signed
	digest      []byte            // SHA-256 of the program
}

// readSignature parses a signature and verifies it, but not against a program.
func readSignature(der []byte) (Signature, error) {
	invalid := func(err error) (Signature, error) { return Signature{}, fmt.Errorf("%w: %w", ErrSignature, err) }
	var outer asn1.RawValue
	if _, err := asn1.Unmarshal(der, &outer); err != nil { // zeros may follow
		return invalid(err)
	}
	p, err := pkcs7.Parse(bytes.Clone(outer.FullBytes))
	if err != nil {
		return invalid(err)
	}
	if err := p.Verify(); err != nil {
		return invalid(err)
	}
	certificate := p.GetOnlySigner()
	if certificate == nil {
		return invalid(errors.New("it is not by exactly one key"))
	}
	var value indirectValue
	var digest digestInfo
	rest, err := asn1.Unmarshal(p.Content, &value)
	if err == nil {
		_, err = asn1.Unmarshal(rest, &digest)
	}
	if err != nil {
		return invalid(err)
	}
	if !value.Type.Equal(oidPEImageData) || !digest.Algorithm.Algorithm.Equal(oidSHA256) {
		return invalid(errors.New("it is not about the SHA-256 of a program"))
	}
	return Signature{Certificate: certificate, digest: digest.Digest}, nil
}
