package eif

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/slipway-build/slipway/exporter/sparse"
)

// keyPair returns a key and its certificate in PEM.
func keyPair(t *testing.T, curve elliptic.Curve) (key, certificate []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "enclaves"}, NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<32, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: encoded}), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func testSigner(t *testing.T) *Signer {
	t.Helper()
	key, certificate := keyPair(t, elliptic.P384())
	s, err := ParseSigner(append([]byte("-----BEGIN EC PARAMETERS-----\nBgUrgQQAIg==\n-----END EC PARAMETERS-----\n"), key...), certificate)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestSignature checks that a signed image has the registers of one without a
// signature, and PCR8, and that the same key makes the same image.
func TestSignature(t *testing.T) {
	plain := testImage()
	_, want := file(t, plain)
	signed := plain
	signed.Signer = testSigner(t)
	want.PCR8 = measureBytes(signed.Signer.Certificate.Raw)
	if *want.PCR8 != register(string(signed.Signer.Certificate.Raw)) {
		t.Errorf("PCR8 is %s", want.PCR8)
	}
	data, m := file(t, signed)
	again, _ := file(t, signed)
	if !bytes.Equal(data, again) {
		t.Error("two signatures by a key differ")
	}
	image, measured, err := Read(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	if !image.Certificate.Equal(signed.Signer.Certificate) {
		t.Errorf("the signer is %v", image.Certificate)
	}
	for _, got := range []Measurements{m, measured} {
		if got.PCR8 == nil || *got.PCR8 != *want.PCR8 || got.PCR0 != want.PCR0 || got.PCR1 != want.PCR1 || got.PCR2 != want.PCR2 {
			t.Errorf("measurements %+v, want %+v", got, want)
		}
	}
}

// TestInvalidSignature checks that Read rejects signatures in images whose checksum
// is right.
func TestInvalidSignature(t *testing.T) {
	s, other := testSigner(t), testSigner(t)
	pcr0 := register("kernel", "quiet", "init")
	valid, err := s.section(pcr0)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := (&Signer{other.Certificate, s.Key}).section(pcr0)
	if err != nil {
		t.Fatal(err)
	}
	stale, err := s.section(register("kernel", "quiet"))
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		signature []byte
		want      string
	}{
		"valid":         {valid, ""},
		"other key":     {foreign, "the key of the certificate did not make it"},
		"other image":   {stale, "it is for another image"},
		"changed":       {append(bytes.Clone(valid[:len(valid)-1]), valid[len(valid)-1]^1), "the key of the certificate did not make it"},
		"short":         {valid[:len(valid)-1], "it is not one COSE_Sign1"},
		"bytes after":   {append(bytes.Clone(valid), 0), "it is not one COSE_Sign1"},
		"empty":         {[]byte{}, "it is not one COSE_Sign1"},
		"huge array":    {append([]byte{0x81, 0xa2}, append(textString(nil, "signature"), 0x9a, 0xff, 0xff, 0xff, 0xff)...), "it is not one COSE_Sign1"},
		"not an array":  {[]byte{0xa0}, "it is not one COSE_Sign1"},
		"no COSE_Sign1": {numbers(textString(numbers(textString([]byte{0x81, 0xa2}, "signing_certificate"), nil), "signature"), []byte{0x80}), "it is not one COSE_Sign1"},
	} {
		text := func(s string) sparse.Content { return sparse.Bytes([]byte(s)) }
		content, err := assemble(0, []section{
			{sectionKernel, text("kernel")}, {sectionCmdline, text("quiet")}, {sectionMetadata, text("{}")},
			{sectionRamdisk, text("init")}, {sectionSignature, sparse.Bytes(test.signature)},
		})
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = Read(content, content.Size)
		if test.want == "" && err != nil || test.want != "" && (!errors.Is(err, ErrSignature) || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: error %v, want %q", name, err, test.want)
		}
	}
}

func TestParseSigner(t *testing.T) {
	key, certificate := keyPair(t, elliptic.P384())
	_, foreign := keyPair(t, elliptic.P384())
	key256, certificate256 := keyPair(t, elliptic.P256())
	for _, test := range []struct {
		key, certificate []byte
		want             string
	}{
		{key256, certificate256, "signing key: enclave images require an elliptic curve key on P-384"},
		{key, foreign, "certificate: it is for another key than the signing key"},
		{certificate, certificate, "signing key: "},
		{[]byte("-----BEGIN EC PARAMETERS-----\nBgUrgQQAIg==\n-----END EC PARAMETERS-----\n"), certificate, "signing key: the file is not PEM"},
		{nil, certificate, "signing key: the file is not PEM"},
		{key, key, `certificate: the file has a "EC PRIVATE KEY" instead`},
	} {
		if _, err := ParseSigner(test.key, test.certificate); err == nil || !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("error %v, want %q", err, test.want)
		}
	}
}
