package main

import (
	"crypto/sha1"
	"crypto/x509"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/slipway-build/slipway/internal/testutil/eic"
)

const (
	userKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGs1oSmrY1RxJNYbFsgDBQPEYN3IFQJJLCyDLyeoZZYy alice"
)

// ask returns the keys of alice, and the error.
func ask(t *testing.T, s *eic.Service, user, fingerprint string) ([]key, error) {
	server := httptest.NewServer(s)
	defer server.Close()
	roots := x509.NewCertPool()
	roots.AddCert(s.Root.Certificate)
	v := &verifier{imds: newClient(server.URL), roots: roots, instance: eic.Instance, now: time.Now()}
	return v.keys(t.Context(), user, fingerprint)
}

var active = eic.KeysOf("alice")

func TestValidKeys(t *testing.T) {
	s := eic.New(t)
	soon := time.Now().Add(time.Minute)
	if keys, err := ask(t, s, "alice", ""); len(keys) > 0 || err != nil {
		t.Errorf("without keys: %v, %v", keys, err)
	}
	other := "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQC7 bob"
	s.Values[active] = s.Sign(s.Signer, eic.Instance, soon, userKey) + s.Sign(s.Signer, "i-99999999", soon, userKey) + s.Sign(s.Signer, eic.Instance, soon, other)
	keys, err := ask(t, s, "alice", "")
	if err != nil || len(keys) != 2 || keys[0].line != userKey || keys[1].line != other || keys[0].caller != "arn:aws:iam::1:user/a" || keys[0].request != "r-1" {
		t.Fatalf("%+v, %v", keys, err)
	}
	only, err := ask(t, s, "alice", keys[1].fingerprint)
	if err != nil || len(only) != 1 || only[0].line != other {
		t.Errorf("by fingerprint: %+v, %v", only, err)
	}
	if none, err := ask(t, s, "alice", "SHA256:x"); err == nil && len(none) > 0 {
		t.Errorf("other fingerprint: %+v, %v", none, err)
	}
	if keys, err := ask(t, s, "bob", ""); len(keys) > 0 || err != nil {
		t.Errorf("other user: %v, %v", keys, err)
	}
	// The fingerprint is that of ssh-keygen -l.
	if got, err := fingerprintOf(userKey); err != nil || got != "SHA256:bI3EWxIILaM1OIzTh5ZarD8J8lD/BrfJX9EgP3gEZxc" {
		t.Errorf("fingerprint %s, %v", got, err)
	}
}

// TestRefusedKeys breaks one thing at a time.
func TestRefusedKeys(t *testing.T) {
	soon, year := time.Now().Add(time.Minute), time.Now().AddDate(1, 0, 0)
	for name, c := range map[string]struct {
		change func(s *eic.Service)
		want   string
	}{
		"expired": {func(s *eic.Service) {
			s.Values[active] = s.Sign(s.Signer, eic.Instance, time.Now().Add(-time.Second), userKey)
		}, "expired at"},
		"other instance":  {func(s *eic.Service) { s.Values[active] = s.Sign(s.Signer, "i-0123456789abcdef1", soon, userKey) }, `for the instance "i-0123456789abcdef1"`},
		"other signature": {func(s *eic.Service) { s.Values[active] = s.Sign(s.Intermediate, eic.Instance, soon, userKey) }, "signature of a key: invalid"},
		"changed key":     {func(s *eic.Service) { s.Values[active] = strings.Replace(s.Values[active], "alice", "alicf", 1) }, "signature of a key: invalid"},
		"changed time": {func(s *eic.Service) {
			s.Values[active] = strings.Replace(s.Values[active], "#Timestamp=1", "#Timestamp=2", 1)
		}, "signature of a key: invalid"},
		"no signature":    {func(s *eic.Service) { s.Values[active] = "#Timestamp=1\n" + userKey + "\n" }, "a key without a signature"},
		"options":         {func(s *eic.Service) { s.Values[active] = s.Sign(s.Signer, eic.Instance, soon, `command="x" `+userKey) }, "not a key of ssh"},
		"other machine":   {func(s *eic.Service) { s.Values["instance-id"] = "i-0123456789abcdef1" }, "the firmware names"},
		"no instance":     {func(s *eic.Service) { s.Values["instance-id"] = "x" }, "the firmware names"},
		"other region":    {func(s *eic.Service) { s.Values["placement/availability-zone"] = "us-east-1a" }, `not for "managed-ssh-signer.us-east-1.amazonaws.com"`},
		"no region":       {func(s *eic.Service) { s.Values["placement/availability-zone"] = "x" }, `availability zone "x"`},
		"other domain":    {func(s *eic.Service) { s.Values["services/domain"] = "example.com" }, `unknown domain "example.com"`},
		"no certificate":  {func(s *eic.Service) { s.Values["managed-ssh-keys/signer-cert"] = "" }, "the metadata service has none"},
		"unknown root":    {func(s *eic.Service) { s.Root = eic.Issue(t, "Other", eic.Keys()[3], nil, year) }, "unknown authority"},
		"no intermediate": {func(s *eic.Service) { s.ServeChain(s.Signer) }, "unknown authority"},
		"old certificate": {func(s *eic.Service) {
			s.ServeChain(eic.Issue(t, eic.SignerName, eic.Keys()[2], s.Intermediate, time.Now().Add(-time.Minute)), s.Intermediate)
		}, "expired"},
		"signed by itself": {func(s *eic.Service) { s.ServeChain(eic.Issue(t, eic.SignerName, eic.Keys()[2], nil, year)) }, "unknown authority"},
		"not a CA": {func(s *eic.Service) {
			s.ServeChain(eic.Issue(t, eic.SignerName, eic.Keys()[2], s.Signer, year), s.Signer, s.Intermediate)
		}, "certificate of the signer"},
		"no staples": {func(s *eic.Service) { delete(s.Values, "managed-ssh-keys/signer-ocsp/") }, "signer-ocsp/: the metadata service does not have it"},
		"a staple missing": {func(s *eic.Service) {
			s.Values["managed-ssh-keys/signer-ocsp/"] = fmt.Sprintf("%X", sha1.Sum(s.Signer.Raw))
		}, `certificate "Intermediate": no OCSP response`},
		"revoked": {func(s *eic.Service) {
			s.Staple(s.Signer, s.Intermediate, ocsp.Response{Status: ocsp.Revoked, RevokedAt: time.Now()})
		}, "revoked"},
		"old staple": {func(s *eic.Service) {
			s.Staple(s.Signer, s.Intermediate, ocsp.Response{ThisUpdate: time.Now().Add(-2 * time.Hour), NextUpdate: time.Now().Add(-time.Hour)})
		}, "the OCSP response is valid from"},
		"forged staple": {func(s *eic.Service) {
			s.Staple(s.Signer, &eic.Authority{Certificate: s.Intermediate.Certificate, Key: eic.Keys()[3]}, ocsp.Response{})
		}, "OCSP response:"},
		"staple of another": {func(s *eic.Service) {
			other := *s.Signer.Certificate
			other.SerialNumber = big.NewInt(7)
			s.Staple(&eic.Authority{Certificate: &other, Key: s.Signer.Key}, s.Intermediate, ocsp.Response{})
		}, "OCSP response:"},
		"path as name": {func(s *eic.Service) { s.Values["managed-ssh-keys/signer-ocsp/"] = "../x" }, "is not a fingerprint"},
		"too long":     {func(s *eic.Service) { s.Values[active] = strings.Repeat("x", maxBody+1) }, "longer than 64 KiB"},
	} {
		t.Run(name, func(t *testing.T) {
			s := eic.New(t)
			s.Values[active] = s.Sign(s.Signer, eic.Instance, soon, userKey)
			c.change(s)
			keys, err := ask(t, s, "alice", "")
			if len(keys) > 0 || err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%d keys, error %v, want one with %q", len(keys), err, c.want)
			}
		})
	}
	s := eic.New(t)
	for _, user := range []string{"", "../x", "a/b", "a b", "-x"} {
		if _, err := ask(t, s, user, ""); err == nil {
			t.Errorf("user %q: no error", user)
		}
	}
}

// A redirect is not followed, so that the token stays here.
func TestRedirect(t *testing.T) {
	server := httptest.NewServer(http.RedirectHandler("http://127.0.0.1:1/", http.StatusFound))
	defer server.Close()
	v := &verifier{imds: newClient(server.URL), instance: eic.Instance, now: time.Now()}
	if _, err := v.keys(t.Context(), "alice", ""); err == nil || !strings.Contains(err.Error(), "302") {
		t.Errorf("error %v", err)
	}
}

func TestInstanceOf(t *testing.T) {
	for _, c := range []struct{ file, text, want string }{
		{"sys/devices/virtual/dmi/id/board_asset_tag", eic.Instance + "\n", eic.Instance},
		{"sys/devices/virtual/dmi/id/board_asset_tag", "Not Specified\n", ""},
		{"sys/hypervisor/uuid", "ec2e1916-9099-7caf-fd21-012345abcdef\n", unknownInstance},
		{"sys/hypervisor/uuid", "12345678-9099-7caf-fd21-012345abcdef\n", ""},
		{"none", "", ""},
	} {
		root := t.TempDir() + "/"
		if err := os.MkdirAll(filepath.Dir(root+c.file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(root+c.file, []byte(c.text), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := instanceOf(root); got != c.want {
			t.Errorf("%s %q: %q", c.file, c.text, got)
		}
	}
}
