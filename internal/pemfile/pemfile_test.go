package pemfile

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"
)

// TestPrivateKey parses each encoding of a key, and names what a file has
// instead of one.
func TestPrivateKey(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	sec1, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	encode := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	parameters := encode("EC PARAMETERS", []byte{6, 5, 43, 129, 4, 0, 34})
	for _, c := range []struct{ text, want string }{
		{encode("PRIVATE KEY", pkcs8), ""},
		{encode("EC PRIVATE KEY", sec1), ""},
		{parameters + encode("EC PRIVATE KEY", sec1), ""},
		{"", "the file is not PEM"},
		{parameters, "the file is not PEM"},
		{encode("PRIVATE KEY", pkcs8[:20]), "the private key is damaged"},
		{encode("ENCRYPTED PRIVATE KEY", pkcs8), "it is encrypted: decrypt it first"},
		{encode("CERTIFICATE", pkcs8), `the file has a "CERTIFICATE" instead of a private key`},
	} {
		got, err := PrivateKey([]byte(c.text))
		if err != nil && strings.Contains(err.Error(), "asn1") {
			t.Errorf("%.40q: the error describes the content: %v", c.text, err)
		}
		if c.want == "" && (err != nil || !key.Equal(got)) || c.want != "" && (err == nil || !strings.HasPrefix(err.Error(), c.want)) {
			t.Errorf("%.40q: %v, want %q", c.text, err, c.want)
		}
	}
}
