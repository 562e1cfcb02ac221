package eif

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha512"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/slipway-build/slipway/internal/pemfile"
)

// ErrSignature is the error for a signature that does not fit the image.
var ErrSignature = errors.New("invalid signature of the enclave image")

// A Signer signs images with a key on the curve P-384.
type Signer struct {
	Certificate *x509.Certificate
	Key         *ecdsa.PrivateKey
}

// ParseSigner parses a key and its certificate in PEM. It fails if the certificate
// is for another key.
func ParseSigner(key, certificate []byte) (*Signer, error) {
	c, err := parseCertificate(certificate)
	if err != nil {
		return nil, err
	}
	parsed, err := pemfile.PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	k, ok := parsed.(*ecdsa.PrivateKey)
	switch {
	case !ok || k.Curve != elliptic.P384():
		return nil, errors.New("signing key: enclave images require an elliptic curve key on P-384: make one with openssl ecparam -name secp384r1 -genkey")
	case !k.PublicKey.Equal(c.PublicKey):
		return nil, errors.New("certificate: it is for another key than the signing key")
	}
	return &Signer{c, k}, nil
}

// parseCertificate parses a certificate in PEM, the only encoding that an image
// can have.
func parseCertificate(data []byte) (*x509.Certificate, error) {
	if block, _ := pem.Decode(data); block == nil {
		return nil, errors.New("certificate: the file is not PEM")
	}
	c, err := pemfile.Certificate(data)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	return c, nil
}

// protected are the protected headers {1: -35}: the algorithm ES384 (RFC 9053,
// section 2.1).
var protected = []byte{0xa1, 0x01, 0x38, 0x22}

// section returns the signature section: an array of one map with the certificate
// in PEM and a COSE_Sign1 (RFC 9052, section 4.2) of PCR0, both as arrays of
// numbers. A signature depends on the image and the key only (RFC 6979).
func (s *Signer) section(pcr0 Digest) ([]byte, error) {
	payload := pcrInfo(pcr0)
	digest := signedDigest(protected, payload)
	der, err := s.Key.Sign(nil, digest[:], crypto.SHA384)
	if err != nil {
		return nil, fmt.Errorf("sign the enclave image: %w", err)
	}
	signature, err := rawSignature(der)
	if err != nil {
		return nil, err
	}
	var sign1 []byte
	sign1 = head(sign1, majorArray, 4)
	sign1 = byteString(sign1, protected)
	sign1 = head(sign1, majorMap, 0)
	sign1 = byteString(sign1, payload)
	sign1 = byteString(sign1, signature)

	var out []byte
	out = head(out, majorArray, 1)
	out = head(out, majorMap, 2)
	out = textString(out, "signing_certificate")
	out = numbers(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate.Raw}))
	out = textString(out, "signature")
	return numbers(out, sign1), nil
}

// size384 is the size of a number on P-384 in bytes.
const size384 = 48

// rawSignature returns a signature in ASN.1 as two numbers of a fixed size.
func rawSignature(der []byte) ([]byte, error) {
	var r, s big.Int
	input := cryptobyte.String(der)
	var inner cryptobyte.String
	if !input.ReadASN1(&inner, asn1.SEQUENCE) || !inner.ReadASN1Integer(&r) || !inner.ReadASN1Integer(&s) {
		return nil, errors.New("sign the enclave image: the signature is not ASN.1")
	}
	raw := make([]byte, 2*size384)
	r.FillBytes(raw[:size384])
	s.FillBytes(raw[size384:])
	return raw, nil
}

// pcrInfo returns what the signature signs: the number and the value of PCR0.
func pcrInfo(pcr0 Digest) []byte {
	var out []byte
	out = head(out, majorMap, 2)
	out = textString(out, "register_index")
	out = head(out, majorNumber, 0)
	out = textString(out, "register_value")
	return numbers(out, pcr0[:])
}

// signedDigest returns the digest of the Sig_structure of a COSE_Sign1 (RFC 9052,
// section 4.4).
func signedDigest(protected, payload []byte) Digest {
	var out []byte
	out = head(out, majorArray, 4)
	out = textString(out, "Signature1")
	out = byteString(out, protected)
	out = byteString(out, nil)
	return sha512.Sum384(byteString(out, payload))
}

// verify returns the certificate of a signature section. It fails if the key of the
// certificate has not signed this PCR0.
func verify(section []byte, pcr0 Digest) (*x509.Certificate, error) {
	d := decoder{data: section}
	if d.head(majorArray) != 1 || d.head(majorMap) != 2 {
		d.failed = true
	}
	var certificate, sign1 []byte
	for range 2 {
		switch string(d.bytes(majorText)) {
		case "signing_certificate":
			certificate = d.numbers()
		case "signature":
			sign1 = d.numbers()
		default:
			d.failed = true
		}
	}
	s := decoder{data: sign1}
	if len(sign1) > 0 && sign1[0] == majorTag<<5|18 { // COSE_Sign1_Tagged
		s.data = sign1[1:]
	}
	fields := s.head(majorArray)
	headers := s.bytes(majorBytes)
	unprotected := s.head(majorMap)
	payload, signature := s.bytes(majorBytes), s.bytes(majorBytes)
	if d.failed || s.failed || len(d.data) > 0 || len(s.data) > 0 || fields != 4 || unprotected != 0 {
		return nil, fmt.Errorf("%w: it is not one COSE_Sign1", ErrSignature)
	}
	c, err := parseCertificate(certificate)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrSignature, err)
	}
	key, ok := c.PublicKey.(*ecdsa.PublicKey)
	switch {
	case !ok || key.Curve != elliptic.P384() || !bytes.Equal(headers, protected):
		return nil, fmt.Errorf("%w: it is not ES384", ErrSignature)
	case !bytes.Equal(payload, pcrInfo(pcr0)):
		return nil, fmt.Errorf("%w: it is for another image", ErrSignature)
	case len(signature) != 2*size384:
		return nil, fmt.Errorf("%w: it has %d bytes", ErrSignature, len(signature))
	}
	digest := signedDigest(headers, payload)
	r, v := new(big.Int).SetBytes(signature[:size384]), new(big.Int).SetBytes(signature[size384:])
	if !ecdsa.Verify(key, digest[:], r, v) {
		return nil, fmt.Errorf("%w: the key of the certificate did not make it", ErrSignature)
	}
	return c, nil
}

// Major types of CBOR (RFC 8949, section 3.1).
const (
	majorNumber = 0
	majorBytes  = 2
	majorText   = 3
	majorArray  = 4
	majorMap    = 5
	majorTag    = 6
)

// head appends the head of an item, with the shortest form of its number.
func head(out []byte, major byte, n uint64) []byte {
	major <<= 5
	switch {
	case n < 24:
		return append(out, major|byte(n))
	case n <= 0xff:
		return append(out, major|24, byte(n))
	case n <= 0xffff:
		return binary.BigEndian.AppendUint16(append(out, major|25), uint16(n))
	}
	return binary.BigEndian.AppendUint32(append(out, major|26), uint32(n))
}

func byteString(out, b []byte) []byte { return append(head(out, majorBytes, uint64(len(b))), b...) }

func textString(out []byte, s string) []byte {
	return append(head(out, majorText, uint64(len(s))), s...)
}

// numbers appends an array with a number for each byte, as AWS's library writes
// bytes.
func numbers(out, b []byte) []byte {
	out = head(out, majorArray, uint64(len(b)))
	for _, n := range b {
		out = head(out, majorNumber, uint64(n))
	}
	return out
}

// A decoder reads CBOR. After an error, failed is set and it returns zeros.
type decoder struct {
	data   []byte
	failed bool
}

// head reads the head of an item of a major type and returns its number.
func (d *decoder) head(major byte) uint64 {
	if d.failed || len(d.data) == 0 || d.data[0]>>5 != major {
		d.failed = true
		return 0
	}
	info := d.data[0] & 31
	d.data = d.data[1:]
	if info < 24 {
		return uint64(info)
	}
	size := 1 << (info - 24)
	if info > 26 || len(d.data) < size {
		d.failed = true
		return 0
	}
	var n uint64
	for _, b := range d.data[:size] {
		n = n<<8 | uint64(b)
	}
	d.data = d.data[size:]
	return n
}

// bytes reads a string of a major type.
func (d *decoder) bytes(major byte) []byte {
	n := d.head(major)
	if n > uint64(len(d.data)) {
		d.failed = true
		return nil
	}
	b := d.data[:n]
	d.data = d.data[n:]
	return b
}

// numbers reads an array of numbers that are bytes.
func (d *decoder) numbers() []byte {
	n := d.head(majorArray)
	if n > uint64(len(d.data)) {
		d.failed = true
		return nil
	}
	b := make([]byte, n)
	for i := range b {
		v := d.head(majorNumber)
		if v > 0xff {
			d.failed = true
		}
		b[i] = byte(v)
	}
	return b
}
