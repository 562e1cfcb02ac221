package segment

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipway-build/slipway/exporter/tree"
	"github.com/slipway-build/slipway/internal/testutil/treetest"
)

// FuzzLayout packs images of arbitrary documents. They refer to one another as
// @0, @1 and so on: a document can name those before it. Every file of the
// layout has the digest that is its name.
func FuzzLayout(f *testing.F) {
	f.Add(`{"architecture": "amd64", "os": "linux"}`, "layer", `{"config": {"digest": "@0"}, "layers": [{"digest": "@1"}]}`,
		`{"manifests": [{"digest": "@2", "platform": {"os": "linux", "architecture": "amd64"}}]}`, "linux/amd64")
	f.Add(`{}`, ``, `{"manifests": []}`, `{"manifests": [{"digest": "@2"}, {"digest": "@0"}]}`, "")
	f.Add(`[]`, ``, `{"config": {"digest": "@1", "size": -1}}`, `{"config": {"digest": "@2"}, "manifests": null}`, "linux")
	f.Fuzz(func(t *testing.T, a, b, c, top, platform string) {
		dir := t.TempDir()
		var files []string
		var references []string
		for i, text := range []string{a, b, c, top} {
			text = strings.NewReplacer(references...).Replace(text)
			name := filepath.Join(dir, fmt.Sprint(i))
			if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			files = append(files, name)
			references = append(references, fmt.Sprintf("@%d", i), digest.FromString(text).String())
		}
		var wanted []string
		if platform != "" {
			wanted = []string{platform}
		}
		entries, err := layout(files[3], "image", files[:3], wanted)
		if err != nil {
			return
		}
		for _, e := range entries {
			name, isBlob := strings.CutPrefix(e.Path, ocispec.ImageBlobsDir+"/sha256/")
			if isBlob && digest.FromString(treetest.Content(t, e)).Encoded() != name {
				t.Errorf("%s has another digest", e.Path)
			}
		}
		if err := tree.Check(entries); err != nil {
			t.Error(err)
		}
	})
}

// TestLayoutBomb packs an image whose indexes list one another so often that
// they stand for 100^20 manifests.
func TestLayoutBomb(t *testing.T) {
	r := &registry{t: t, dir: t.TempDir()}
	d := r.image("amd64", "")
	for range 20 {
		var manifests []ocispec.Descriptor
		for range 100 {
			manifests = append(manifests, d)
		}
		d = r.blob(ocispec.MediaTypeImageIndex, ocispec.Index{Manifests: manifests})
	}
	done := make(chan error, 1)
	go func() {
		_, err := layout(r.files[len(r.files)-1], "image", r.files[:len(r.files)-1], nil)
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Error("the packer does not end")
	}
}
