package artifact_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/slipway-build/slipway/internal/testutil/need"
	"github.com/slipway-build/slipway/publisher/artifact"
)

const (
	spdx      = `{"spdxVersion":"SPDX-2.3"}`
	statement = `{"_type":"https://in-toto.io/Statement/v0.1","predicateType":"https://slsa.dev/provenance/v0.2"}`
)

func attachments(t testing.TB) []artifact.Attachment {
	t.Helper()
	var all []artifact.Attachment
	for name, content := range map[string]string{"sbom.spdx.json": spdx, "provenance.json": statement} {
		a, err := artifact.NewAttachment(name, []byte(content))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, a)
	}
	return all
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// TestReferrers attaches documents and a signature in registries with and
// without a list of referrers, twice.
func TestReferrers(t *testing.T) {
	for _, supported := range []bool{true, false} {
		t.Run(fmt.Sprint(supported), func(t *testing.T) {
			t.Setenv("DOCKER_CONFIG", t.TempDir())
			server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithReferrersSupport(supported)))
			t.Cleanup(server.Close)
			host := &host{url: strings.TrimPrefix(server.URL, "http://")}
			pushed := push(t, host.ref(t, "m:v1"), upload(open(t, "aws.raw", content(1, 3)), "amd64"))
			key := newKey(t)
			for range 2 {
				if err := artifact.Attach(t.Context(), pushed, attachments(t)); err != nil {
					t.Fatal(err)
				}
				if err := artifact.Sign(t.Context(), pushed, key); err != nil {
					t.Fatal(err)
				}
			}
			if err := artifact.Sign(t.Context(), pushed, newKey(t)); err != nil {
				t.Fatal(err)
			}
			subject := reference(t, strings.TrimPrefix(pushed.String(), "oci://"))
			index, err := remote.Referrers(subject.Context().Digest(subject.Identifier()))
			if err != nil {
				t.Fatal(err)
			}
			list, err := index.IndexManifest()
			if err != nil {
				t.Fatal(err)
			}
			count := map[string]int{}
			for _, m := range list.Manifests {
				// The registry of go-containerregistry lists the media type of the config.
				got, err := remote.Get(subject.Context().Digest(m.Digest.String()))
				if err != nil {
					t.Fatal(err)
				}
				var manifest v1.Descriptor
				if err := json.Unmarshal(got.Manifest, &manifest); err != nil {
					t.Fatal(err)
				}
				count[manifest.ArtifactType+" "+m.Annotations[artifact.AnnotationPredicate]]++
			}
			// The second signature makes a manifest with both.
			if count[artifact.TypeSPDX+" "] != 1 || count[artifact.TypeInToto+" https://slsa.dev/provenance/v0.2"] != 1 || count[artifact.TypeSignature+" "] != 2 || len(count) != 3 {
				t.Errorf("the referrers are %v", count)
			}
			if got, err := artifact.Verify(t.Context(), host.ref(t, "m:v1"), &key.PublicKey); err != nil || got != pushed {
				t.Errorf("Verify returns %v, %v", got, err)
			}
			if _, err := artifact.Verify(t.Context(), pushed, &newKey(t).PublicKey); !matches(err, "none of its 2 signatures is by the key") {
				t.Errorf("another key: %v", err)
			}
		})
	}
}

// TestVerifyForged checks that a signature for one digest does not count for
// another, and that of a registry only what the key signed counts.
func TestVerifyForged(t *testing.T) {
	h := newHost(t)
	key := newKey(t)
	signed := push(t, h.ref(t, "m:v1"), upload(open(t, "aws.raw", content(1, 3)), "amd64"))
	other := push(t, h.ref(t, "m:v2"), upload(open(t, "aws.raw", content(2, 3)), "amd64"))
	if err := artifact.Sign(t.Context(), signed, key); err != nil {
		t.Fatal(err)
	}
	if _, err := artifact.Verify(t.Context(), other, &key.PublicKey); !matches(err, "none of its 0 signatures") {
		t.Errorf("unsigned: %v", err)
	}
	tag := func(r artifact.Reference) string {
		return strings.Replace(r.String()[strings.Index(r.String(), "@")+1:], ":", "-", 1) + ".sig"
	}
	// The registry returns the signatures of another digest.
	h.set(func(_ http.ResponseWriter, r *http.Request) bool {
		r.URL.Path = strings.Replace(r.URL.Path, tag(other), tag(signed), 1)
		return false
	})
	if _, err := artifact.Verify(t.Context(), other, &key.PublicKey); !matches(err, "none of its 1 signatures") {
		t.Errorf("the signature of another digest: %v", err)
	}
	// The registry returns another index for the tag.
	h.set(func(w http.ResponseWriter, r *http.Request) bool {
		r.URL.Path = strings.Replace(r.URL.Path, "/manifests/v1", "/manifests/v2", 1)
		return false
	})
	if _, err := artifact.Verify(t.Context(), h.ref(t, "m:v1"), &key.PublicKey); !matches(err, "none of its 0 signatures") {
		t.Errorf("another index: %v", err)
	}
	if _, err := artifact.Verify(t.Context(), signed, &key.PublicKey); err != nil {
		t.Error(err)
	}
	if err := artifact.Sign(t.Context(), h.ref(t, "m:v1"), key); !matches(err, "no digest") {
		t.Errorf("sign a tag: %v", err)
	}
}

// TestSignatureFormat checks a signature as Cosign's specification says, with
// OpenSSL.
func TestSignatureFormat(t *testing.T) {
	need.Program(t, "openssl", "openssl")
	h := newHost(t)
	dir := t.TempDir()
	private, public := filepath.Join(dir, "key.pem"), filepath.Join(dir, "key.pub")
	openssl := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("openssl", args...).CombinedOutput(); err != nil {
			t.Fatalf("openssl %q: %v: %s", args, err, out)
		}
	}
	openssl("ecparam", "-genkey", "-name", "prime256v1", "-out", private)
	openssl("ec", "-in", private, "-pubout", "-out", public)
	text, err := os.ReadFile(private)
	if err != nil {
		t.Fatal(err)
	}
	key, err := artifact.ParseKey(text)
	if err != nil {
		t.Fatal(err)
	}
	if text, err = os.ReadFile(public); err != nil {
		t.Fatal(err)
	}
	if got, err := artifact.ParsePublicKey(text); err != nil || !got.Equal(&key.PublicKey) {
		t.Errorf("the public key is %v, %v", got, err)
	}
	pushed := push(t, h.ref(t, "m:v1"), upload(open(t, "aws.raw", content(1, 3)), "amd64"))
	if err := artifact.Sign(t.Context(), pushed, key); err != nil {
		t.Fatal(err)
	}
	digest := pushed.String()[strings.Index(pushed.String(), "@")+1:]
	img, err := remote.Image(reference(t, h.url+"/m:"+strings.Replace(digest, ":", "-", 1)+".sig"))
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	if manifest.Subject == nil || manifest.Subject.Digest.String() != digest || len(manifest.Layers) != 1 || manifest.Layers[0].MediaType != "application/vnd.dev.cosign.simplesigning.v1+json" {
		t.Fatalf("%+v", manifest)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	body, err := layers[0].Compressed()
	if err != nil {
		t.Fatal(err)
	}
	payload, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf(`{"critical":{"identity":{"docker-reference":%q},"image":{"docker-manifest-digest":%q},"type":"cosign container image signature"},"optional":null}`, h.url+"/m", digest)
	if string(payload) != want {
		t.Errorf("payload %s, want %s", payload, want)
	}
	signature, err := base64.StdEncoding.DecodeString(manifest.Layers[0].Annotations["dev.cosignproject.cosign/signature"])
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"signature": signature, "payload": payload} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	openssl("dgst", "-sha256", "-verify", public, "-signature", filepath.Join(dir, "signature"), filepath.Join(dir, "payload"))
}

// TestForeignSignatures checks that the signatures of others do not matter, and
// remain.
func TestForeignSignatures(t *testing.T) {
	h := newHost(t)
	pushed := push(t, h.ref(t, "m:v1"), upload(open(t, "aws.raw", content(1, 3)), "amd64"))
	first, second := newKey(t), newKey(t)
	if err := artifact.Sign(t.Context(), pushed, first); err != nil {
		t.Fatal(err)
	}
	h.set(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, ".sig") {
			return false
		}
		var layers []v1.Descriptor
		for i := range 200 {
			layers = append(layers, v1.Descriptor{
				MediaType: "application/vnd.dev.cosign.simplesigning.v1+json", Size: 10,
				Digest:      v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("0", 64)},
				Annotations: map[string]string{"dev.cosignproject.cosign/signature": fmt.Sprint(i)},
			})
		}
		content, _ := json.Marshal(map[string]any{"mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": layers})
		io.Copy(w, bytes.NewReader(content))
		return true
	})
	if _, err := artifact.Verify(t.Context(), pushed, &first.PublicKey); !matches(err, "200 signatures: at most 100") {
		t.Errorf("many signatures: %v", err)
	}
	h.set(nil)
	if err := artifact.Sign(t.Context(), pushed, second); err != nil {
		t.Fatal(err)
	}
	for _, key := range []*ecdsa.PrivateKey{first, second} {
		if _, err := artifact.Verify(t.Context(), pushed, &key.PublicKey); err != nil {
			t.Error(err)
		}
	}
}

func TestKeys(t *testing.T) {
	encrypted := pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED SIGSTORE PRIVATE KEY", Bytes: []byte("x")})
	broken := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")})
	der, err := x509.MarshalPKCS8PrivateKey(newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	good := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	for text, want := range map[string]string{"": "not PEM", string(encrypted): `has a "ENCRYPTED SIGSTORE PRIVATE KEY" instead`, string(broken): "the private key is damaged", string(good): ""} {
		if _, err := artifact.ParseKey([]byte(text)); !matches(err, want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
	if _, err := artifact.ParsePublicKey(good); !matches(err, "no public key") {
		t.Errorf("a private key: %v", err)
	}
}

func TestNewAttachment(t *testing.T) {
	for content, want := range map[string]string{
		spdx: artifact.TypeSPDX, statement: artifact.TypeInToto, `{"bomFormat":"CycloneDX"}`: artifact.TypeCycloneDX, `{}`: "", "MZ": "",
	} {
		a, err := artifact.NewAttachment("f", []byte(content))
		if (err == nil) != (want != "") || err == nil && a.Type != want {
			t.Errorf("%s: %q, %v", content, a.Type, err)
		}
	}
}
