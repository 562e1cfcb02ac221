package artifact_test

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/slipway-build/slipway/internal/testutil/need"
	"github.com/slipway-build/slipway/publisher/artifact"
)

// TestAttest checks signed statements as DSSE and Cosign's specification say, with
// OpenSSL. Cosign itself reads them in TestRelease.
func TestAttest(t *testing.T) {
	need.Program(t, "openssl", "openssl")
	h := newHost(t)
	key := newKey(t)
	pushed := push(t, h.ref(t, "m:v1"), upload(open(t, "aws.raw", content(1, 3)), "amd64"))
	statements := []string{`{"predicateType":"https://slsa.dev/provenance/v1","x":"<é>"}`, `{"predicateType":"https://slsa.dev/provenance/v1"}`}
	for range 2 {
		for _, s := range statements {
			if err := artifact.Attest(t.Context(), pushed, []byte(s), key); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := artifact.Attest(t.Context(), pushed, []byte("{}"), key); !matches(err, "not an in-toto statement") {
		t.Errorf("no statement: %v", err)
	}
	digest := pushed.String()[strings.Index(pushed.String(), "@")+1:]
	img, err := remote.Image(reference(t, h.url+"/m:"+strings.Replace(digest, ":", "-", 1)+".att"))
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	if manifest.Subject == nil || manifest.Subject.Digest.String() != digest || len(manifest.Layers) != len(statements) {
		t.Fatalf("%+v", manifest)
	}
	dir := t.TempDir()
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, data []byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	keyFile := write("key.pub", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}))
	found := map[string]bool{}
	for _, l := range manifest.Layers {
		if l.MediaType != artifact.TypeEnvelope || l.Annotations["predicateType"] != "https://slsa.dev/provenance/v1" {
			t.Errorf("layer %+v", l)
		}
		layer, err := remote.Layer(reference(t, h.url+"/m@"+l.Digest.String()).Context().Digest(l.Digest.String()))
		if err != nil {
			t.Fatal(err)
		}
		body, err := layer.Compressed()
		if err != nil {
			t.Fatal(err)
		}
		var envelope struct {
			PayloadType, Payload string
			Signatures           []struct{ Sig string }
		}
		if err := json.NewDecoder(body).Decode(&envelope); err != nil || len(envelope.Signatures) != 1 {
			t.Fatalf("%+v: %v", envelope, err)
		}
		payload, err := base64.StdEncoding.DecodeString(envelope.Payload)
		if err != nil {
			t.Fatal(err)
		}
		signature, err := base64.StdEncoding.DecodeString(envelope.Signatures[0].Sig)
		if err != nil {
			t.Fatal(err)
		}
		found[string(payload)] = true
		length := map[string]string{statements[0]: "61", statements[1]: "50"}[string(payload)]
		message := write("message", []byte("DSSEv1 28 application/vnd.in-toto+json "+length+" "+string(payload)))
		if out, err := exec.Command("openssl", "dgst", "-sha256", "-verify", keyFile, "-signature", write("signature", signature), message).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", payload, err, out)
		}
	}
	if len(found) != len(statements) {
		t.Errorf("the statements are %v", found)
	}
}
