package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/slipway-build/slipway/publisher/artifact"
)

// runCommand runs slipway and returns its standard output.
func runCommand(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := newCommand()
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(io.Discard)
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

// TestPushSigned pushes a disk with documents and a signature, and verifies it.
func TestPushSigned(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	encode := func(kind string, der []byte, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	privateText := encode("PRIVATE KEY", private, err)
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	publicText := encode("PUBLIC KEY", public, err)
	for file, text := range map[string]string{
		"linux_arm64/aws.iso": "disk", "linux_arm64/sbom.spdx.json": `{"spdxVersion":"SPDX-2.3"}`, "measurements": "PCR 4",
		"key": privateText, "key.pub": publicText,
	} {
		path := filepath.Join(dir, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	repository := strings.TrimPrefix(server.URL, "http://") + "/m"
	file := func(name string) string { return filepath.Join(dir, name) }
	push := []string{"push", "--attach", file("linux_arm64/sbom.spdx.json"), "--sign-key", file("key"), file("linux_arm64/aws.iso"), "oci://" + repository + ":v1"}
	if _, err := runCommand(t, append(push, "--attach", file("measurements"))...); err == nil || !strings.Contains(err.Error(), "name its media type") {
		t.Errorf("a document of an unknown type: %v", err)
	}
	pushed, err := runCommand(t, append(push, "--attach", "text/plain="+file("measurements"))...)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := runCommand(t, "verify", "--key", file("key.pub"), "oci://"+repository+":v1"); err != nil || got != pushed {
		t.Errorf("verify: %q, %v, want %q", got, err, pushed)
	}
	_, digest, _ := strings.Cut(strings.TrimSpace(pushed), "@")
	subject, err := name.NewDigest(repository + "@" + digest)
	if err != nil {
		t.Fatal(err)
	}
	index, err := remote.Referrers(subject)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, m := range manifest.Manifests {
		got[m.ArtifactType] = m.Annotations[artifact.AnnotationArchitecture]
	}
	if architecture, ok := got[artifact.TypeSPDX]; len(got) != 3 || !ok || architecture != "arm64" {
		t.Errorf("the referrers are %v", got)
	}
	for _, args := range [][]string{
		{"verify", "oci://" + repository + ":v1"},
		{"verify", "--key", file("key"), "oci://" + repository + ":v1"},
		{"verify", "--key", file("key.pub"), repository},
		{"push", "--sign-key", file("key.pub"), file("linux_arm64/aws.iso"), "oci://" + repository + ":v1"},
		{"build", "--sign-key", file("key"), "aws.yml"},
	} {
		if out, err := runCommand(t, args...); err == nil {
			t.Errorf("%q succeeds: %s", args, out)
		}
	}
}
