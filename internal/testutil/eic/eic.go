// Package eic imitates the metadata service of EC2 with the keys of EC2 Instance
// Connect.
package eic

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"
)

// Instance is the ID of the machine, and SignerName the name of the signer of its
// region.
const (
	Instance   = "i-0123456789abcdef0"
	SignerName = "managed-ssh-signer.eu-central-1.amazonaws.com"
)

// KeysOf is the path in Values of the keys of a user.
func KeysOf(user string) string { return "managed-ssh-keys/active-keys/" + user + "/" }

// An Authority is a certificate with its key.
type Authority struct {
	*x509.Certificate
	Key *rsa.PrivateKey
}

// Keys are made once, because that takes a while. The last one is not used by the
// service.
var Keys = sync.OnceValue(func() (keys [4]*rsa.PrivateKey) {
	for i := range keys {
		keys[i], _ = rsa.GenerateKey(rand.Reader, 2048) // does not fail
	}
	return keys
})

// Issue issues a certificate. Without an issuer it signs itself.
func Issue(t *testing.T, name string, key *rsa.PrivateKey, issuer *Authority, until time.Time) *Authority {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: until,
		IsCA: !strings.HasPrefix(name, "managed"), BasicConstraintsValid: true,
	}
	if issuer == nil {
		issuer = &Authority{template, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer.Certificate, key.Public(), issuer.Key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &Authority{certificate, key}
}

// A Service is a metadata service with a signer, its certificates and keys.
type Service struct {
	t                          *testing.T
	Root, Intermediate, Signer *Authority
	Values                     map[string]string // by path below /latest/meta-data
	UserData                   string

	mu sync.Mutex
}

// Set sets a value while the service runs.
func (s *Service) Set(path, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Values[path] = value
}

// New returns a service without keys.
func New(t *testing.T) *Service {
	keys := Keys()
	year := time.Now().AddDate(1, 0, 0)
	s := &Service{t: t, Root: Issue(t, "Root", keys[0], nil, year)}
	s.Intermediate = Issue(t, "Intermediate", keys[1], s.Root, year)
	s.Signer = Issue(t, SignerName, keys[2], s.Intermediate, year)
	s.Values = map[string]string{
		"instance-id":                 Instance,
		"placement/availability-zone": "eu-central-1a",
		"services/domain":             "amazonaws.com",
	}
	s.ServeChain(s.Signer, s.Intermediate)
	s.Staple(s.Signer, s.Intermediate, ocsp.Response{})
	s.Staple(s.Intermediate, s.Root, ocsp.Response{})
	return s
}

// ServeChain sets the certificate of the signer and those above it.
func (s *Service) ServeChain(chain ...*Authority) {
	text := ""
	for _, a := range chain {
		text += string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Raw}))
	}
	s.Values["managed-ssh-keys/signer-cert"] = text
}

// Staple sets the OCSP response for a certificate, which the issuer signs.
func (s *Service) Staple(subject, issuer *Authority, template ocsp.Response) {
	s.t.Helper()
	template.SerialNumber = subject.SerialNumber
	if template.NextUpdate.IsZero() {
		template.ThisUpdate, template.NextUpdate = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}
	der, err := ocsp.CreateResponse(issuer.Certificate, issuer.Certificate, template, issuer.Key)
	if err != nil {
		s.t.Fatal(err)
	}
	const dir = "managed-ssh-keys/signer-ocsp/"
	name := fmt.Sprintf("%X", sha1.Sum(subject.Raw))
	s.Values[dir] = strings.Trim(strings.ReplaceAll(s.Values[dir], name, "")+"\n"+name, "\n")
	s.Values[dir+name] = base64.StdEncoding.EncodeToString(der)
}

// Sign returns a block for a key.
func (s *Service) Sign(by *Authority, instance string, expires time.Time, line string) string {
	s.t.Helper()
	text := fmt.Sprintf("#Timestamp=%d\n#Instance=%s\n#Caller=arn:aws:iam::1:user/a\n#Request=r-1\n%s\n", expires.Unix(), instance, line)
	digest := sha256.Sum256([]byte(text))
	signature, err := rsa.SignPSS(rand.Reader, by.Key, crypto.SHA256, digest[:], &rsa.PSSOptions{SaltLength: 32})
	if err != nil {
		s.t.Fatal(err)
	}
	encoded := base64.StdEncoding.EncodeToString(signature)
	return text + encoded[:76] + "\n" + encoded[76:] + "\n\n"
}

// ServeHTTP serves version 2 of the metadata service.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Method == http.MethodPut && r.URL.Path == "/latest/api/token" && r.Header.Get("X-Aws-Ec2-Metadata-Token-Ttl-Seconds") != "" {
		fmt.Fprint(w, "token")
		return
	}
	if r.Header.Get("X-Aws-Ec2-Metadata-Token") != "token" {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if r.URL.Path == "/latest/user-data" && s.UserData != "" {
		fmt.Fprint(w, s.UserData)
		return
	}
	path := strings.TrimPrefix(r.URL.Path, "/latest/meta-data/")
	value, ok := s.Values[path]
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	fmt.Fprint(w, value)
}
