package main

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slipway-build/slipway/internal/testutil/need"
)

// recipientKey is the key of the recipient in tests.
var recipientKey = func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
}()

// opensslEnvelope has OpenSSL encrypt a secret to a key, with the algorithms and
// the encoding of KMS. Further arguments replace the algorithms.
func opensslEnvelope(t testing.TB, secret []byte, to *rsa.PublicKey, args ...string) []byte {
	t.Helper()
	need.Program(t, "openssl", "openssl")
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "recipient"}, SubjectKeyId: bytes.Repeat([]byte{7}, 32),
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, to, recipientKey)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "recipient.pem")
	if err := os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("openssl", slices.Concat([]string{"cms", "-encrypt", "-binary", "-outform", "DER", "-keyid", "-recip", name}, args)...)
	cmd.Stdin = bytes.NewReader(secret)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%q: %v\n%s", cmd.Args, err, stderr.String())
	}
	return out
}

// likeKMS has the arguments of opensslEnvelope for an envelope like those of KMS.
// -stream makes the lengths indefinite.
var likeKMS = []string{"-stream", "-aes-256-cbc", "-keyopt", "rsa_padding_mode:oaep", "-keyopt", "rsa_oaep_md:sha256", "-keyopt", "rsa_mgf1_md:sha256"}

// TestOpenEnvelope opens envelopes of OpenSSL, and checks that others are refused.
func TestOpenEnvelope(t *testing.T) {
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	secret := []byte("the secret")
	sha1 := []string{"-aes-256-cbc", "-keyopt", "rsa_padding_mode:oaep"}
	label := slices.Concat(likeKMS, []string{"-keyopt", "rsa_oaep_label:6b6d73"})
	for name, test := range map[string]struct {
		envelope []byte
		want     string // "" if it opens
	}{
		"like KMS":         {opensslEnvelope(t, secret, &recipientKey.PublicKey, likeKMS...), ""},
		"definite lengths": {opensslEnvelope(t, secret, &recipientKey.PublicKey, likeKMS[1:]...), ""},
		"another key":      {opensslEnvelope(t, secret, &other.PublicKey, likeKMS...), "decryption error"},
		"AES-128":          {opensslEnvelope(t, secret, &recipientKey.PublicKey, slices.Concat([]string{"-aes-128-cbc"}, likeKMS[2:])...), "not AES-256-CBC"},
		"SHA-1":            {opensslEnvelope(t, secret, &recipientKey.PublicKey, sha1...), "MGF1"},
		"a label":          {opensslEnvelope(t, secret, &recipientKey.PublicKey, label...), "not SHA-256"},
		"PKCS #1 v1.5":     {opensslEnvelope(t, secret, &recipientKey.PublicKey, "-aes-256-cbc"), "not RSAES-OAEP"},
		"nothing":          {nil, "damaged BER"},
		"large":            {make([]byte, maxEnvelope+1), "at most 16384"},
		"deep":             {bytes.Repeat([]byte{0x30, 0x80}, 100), "damaged BER"},
	} {
		got, err := openEnvelope(test.envelope, recipientKey)
		switch {
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%s: error %v, want %q", name, err, test.want)
		case test.want == "" && (err != nil || !bytes.Equal(got, secret)):
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	good := opensslEnvelope(t, secret, &recipientKey.PublicKey, likeKMS...)
	if _, err := openEnvelope(append(bytes.Clone(good), 0), recipientKey); err == nil {
		t.Error("a byte after the end is accepted")
	}
	for n := range good {
		if _, err := openEnvelope(good[:n], recipientKey); err == nil {
			t.Errorf("the first %d bytes are accepted", n)
		}
	}
	for size := range 70 { // each padding
		secret := bytes.Repeat([]byte{3}, size)
		if got, err := openEnvelope(seal(t, secret), recipientKey); err != nil || !bytes.Equal(got, secret) {
			t.Errorf("%d bytes: %q, %v", size, got, err)
		}
	}
}

// seal returns an envelope with a secret in DER.
func seal(t testing.TB, secret []byte) []byte {
	t.Helper()
	must := func(v any) []byte {
		t.Helper()
		der, err := asn1.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	key, iv := make([]byte, 32), make([]byte, aes.BlockSize)
	wrapped, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, &recipientKey.PublicKey, key, nil)
	if err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	padding := aes.BlockSize - len(secret)%aes.BlockSize
	text := append(bytes.Clone(secret), bytes.Repeat([]byte{byte(padding)}, padding)...)
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(text, text)
	hash := pkix.AlgorithmIdentifier{Algorithm: oidSHA256}
	parameters := must(oaepParameters{Hash: hash, Mask: pkix.AlgorithmIdentifier{Algorithm: oidMGF1, Parameters: asn1.RawValue{FullBytes: must(hash)}}})
	return must(contentInfo{oidEnvelopedData, envelopedData{2, []recipient{{
		Version: 2, KeyID: []byte("key"), Algorithm: pkix.AlgorithmIdentifier{Algorithm: oidRSAESOAEP, Parameters: asn1.RawValue{FullBytes: parameters}}, Key: wrapped,
	}}, encryptedContent{
		oidData, pkix.AlgorithmIdentifier{Algorithm: oidAES256CBC, Parameters: asn1.RawValue{FullBytes: must(iv)}},
		asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, Bytes: text},
	}}})
}

// FuzzOpenEnvelope checks that toDER changes no DER, and that nothing crashes.
func FuzzOpenEnvelope(f *testing.F) {
	f.Add(seal(f, []byte("secret")))
	f.Add([]byte{0x30, 0x80, 0x04, 0x01, 0x41, 0x00, 0x00})
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > maxEnvelope {
			return
		}
		openEnvelope(data, recipientKey)
		der, _, err := toDER(data, 0)
		if err != nil {
			return
		}
		if again, rest, err := toDER(der, 0); err != nil || len(rest) > 0 || !bytes.Equal(again, der) {
			t.Errorf("%x becomes %x, and then %x, %v", data, der, again, err)
		}
	})
}
