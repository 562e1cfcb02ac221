package test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipway-build/slipway/internal/testutil/stack"
)

// push builds the Dockerfile in a directory, pushes the image and returns its
// digest.
func push(t *testing.T, dir, ref string) string {
	t.Helper()
	meta := filepath.Join(t.TempDir(), "meta.json")
	if _, stderr, err := stack.Buildx(dir, "-o", "type=registry", "-t", ref, "--provenance=false", "--metadata-file", meta, "."); err != nil {
		t.Fatal(stderr)
	}
	data, err := os.ReadFile(meta)
	if err != nil {
		t.Fatal(err)
	}
	var result map[string]any
	if err := json.Unmarshal(data, &result); err != nil {
		t.Fatal(err)
	}
	digest, ok := result["containerimage.digest"].(string)
	if !ok {
		t.Fatalf("no digest in %s", data)
	}
	return digest
}

// publish pushes an image with a file named text and returns its digest.
func publish(t *testing.T, ref, text string) string {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, map[string]string{"Dockerfile": "FROM scratch\nCOPY text /\nCMD [\"/text\"]\n", "text": text})
	return push(t, dir, ref)
}

// debianImage pushes an image whose dpkg database lists one package.
func debianImage(t *testing.T, name, version string) (ref, digest string) {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"Dockerfile": "FROM scratch\nCOPY root /\nCMD [\"/app\"]\n",
		"root/app":   name, "root/etc/os-release": "ID=debian\nVERSION_ID=\"12\"\n",
		"root/var/lib/dpkg/status.d/" + name: fmt.Sprintf("Package: %s\nArchitecture: amd64\nVersion: %s\n", name, version),
	})
	ref = stack.Registry + "/test/sbom-" + name + ":v1"
	return ref, push(t, dir, ref)
}

// Builders that are too old for zstd can start the frontend, which says so.
func TestFrontendLayers(t *testing.T) {
	stack.Require(t)
	out, err := exec.Command("docker", "buildx", "imagetools", "inspect", "--raw", stack.Registry+"/slipwaybuild/slipway:1").Output()
	if err != nil {
		t.Fatal(err)
	}
	var manifest ocispecs.Manifest
	if err := json.Unmarshal(out, &manifest); err != nil {
		t.Fatal(err)
	}
	for _, layer := range manifest.Layers {
		if layer.MediaType != ocispecs.MediaTypeImageLayerGzip {
			t.Errorf("layer %s has type %s", layer.Digest, layer.MediaType)
		}
	}
	if len(manifest.Layers) == 0 {
		t.Errorf("no layers in %s", out)
	}
}
