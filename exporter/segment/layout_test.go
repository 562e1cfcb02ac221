package segment

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipway-build/slipway/exporter/tree"
	"github.com/slipway-build/slipway/internal/testutil/golden"
	"github.com/slipway-build/slipway/internal/testutil/treetest"
)

// registry stores blobs as files with arbitrary names.
type registry struct {
	t     *testing.T
	dir   string
	files []string
}

func (r *registry) blob(mediaType string, content any) ocispec.Descriptor {
	r.t.Helper()
	data, ok := content.(string)
	if !ok {
		text, err := json.Marshal(content)
		if err != nil {
			r.t.Fatal(err)
		}
		data = string(text)
	}
	name := filepath.Join(r.dir, fmt.Sprint(len(r.files)))
	if err := os.WriteFile(name, []byte(data), 0o600); err != nil {
		r.t.Fatal(err)
	}
	r.files = append(r.files, name)
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromString(data), Size: int64(len(data))}
}

// image adds an image for a platform.
func (r *registry) image(architecture, variant string) ocispec.Descriptor {
	platform := ocispec.Platform{OS: "linux", Architecture: architecture, Variant: variant}
	manifest := ocispec.Manifest{
		Config: r.blob(ocispec.MediaTypeImageConfig, ocispec.Image{Platform: platform}),
		Layers: []ocispec.Descriptor{r.blob(ocispec.MediaTypeImageLayerGzip, "layer of "+architecture+variant), r.blob(ocispec.MediaTypeImageLayerGzip, "layer of all")},
	}
	d := r.blob(ocispec.MediaTypeImageManifest, manifest)
	d.Platform = &platform
	return d
}

func TestLayout(t *testing.T) {
	r := &registry{t: t, dir: t.TempDir()}
	amd64, arm5, arm7 := r.image("amd64", ""), r.image("arm", "v5"), r.image("arm", "v7")
	attestation := r.blob(ocispec.MediaTypeImageManifest, ocispec.Manifest{Config: r.blob(ocispec.MediaTypeImageConfig, "{}")})
	attestation.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	r.blob(ocispec.MediaTypeImageIndex, ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{amd64, arm5, arm7, attestation}})
	index := r.files[len(r.files)-1]
	blobs := r.files[:len(r.files)-1]
	// The manifest of amd64 comes after its configuration and two layers.
	manifest := r.files[3]

	for name, test := range map[string]struct {
		index     string
		platforms []string
	}{
		"all":      {index: index},
		"amd64":    {index: index, platforms: []string{"linux/amd64"}},
		"arm":      {index: index, platforms: []string{"linux/arm"}}, // which is v7
		"several":  {index: index, platforms: []string{"linux/arm/v5", "linux/amd64", "linux/arm/v5"}},
		"manifest": {index: manifest, platforms: []string{"linux/amd64"}},
	} {
		t.Run(name, func(t *testing.T) {
			var first string
			for _, blobs := range [][]string{blobs, reversed(blobs)} {
				out := t.TempDir()
				p := Packer{Out: out, Archive: Tar}
				if err := p.Layout(test.index, "docker.io/library/a:1", blobs, test.platforms, "volumes/a"); err != nil {
					t.Fatal(err)
				}
				segment := read(t, out, FileName)
				if first == "" {
					first = segment
				}
				if segment != first {
					t.Error("the order of the blobs has an influence")
				}
			}
			entries, err := tree.ReadTar(strings.NewReader(first), int64(len(first)))
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				if d := filepath.Base(e.Path); len(d) == 64 && digest.FromString(treetest.Content(t, e)).Encoded() != d {
					t.Errorf("%s has other content", e.Path)
				}
			}
			golden.Equal(t, "testdata/layout-"+name+".golden", treetest.Dump(t, entries))
		})
	}
}

func reversed(names []string) []string {
	var out []string
	for i := range names {
		out = append(out, names[len(names)-1-i])
	}
	return out
}

func TestLayoutErrors(t *testing.T) {
	r := &registry{t: t, dir: t.TempDir()}
	amd64 := r.image("amd64", "")
	manifest := r.files[3]
	r.blob(ocispec.MediaTypeImageIndex, ocispec.Index{Manifests: []ocispec.Descriptor{amd64}})
	index := r.files[4]
	r.blob("", "text")
	r.blob("", "{}")
	r.blob("", strings.Repeat(" ", documentMax+1))
	for want, test := range map[string]struct {
		index     string
		blobs     []string
		platforms []string
		prefix    string
	}{
		"image a:1: no manifest for the platform linux/arm64, only for linux/amd64":                     {index: index, blobs: r.files, platforms: []string{"linux/amd64", "linux/arm64"}},
		"image a:1: no manifest for the platform linux/s390x, only for linux/amd64":                     {index: manifest, blobs: r.files, platforms: []string{"linux/s390x"}},
		"image a:1: blob " + amd64.Digest.String() + " (" + amd64.MediaType + ", 495 bytes) is missing": {index: index, blobs: r.files[:3]},
		"(application/vnd.oci.image.layer.v1.tar+gzip, 14 bytes) is missing":                            {index: index, blobs: append(r.files[:1:1], r.files[2:]...)},
		"is not an index or manifest: invalid character 'e' in literal true":                            {index: r.files[5]},
		"is not an index or manifest of an image ()":                                                    {index: r.files[6]},
		"is too large for an index, manifest or configuration: the maximum is 4194304 bytes":            {index: r.files[7]},
		"none: no such file": {index: "none"},
		`image a:1: "a b" is an invalid component of "linux/a b"`: {index: index, blobs: r.files, platforms: []string{"linux/a b"}},
		`prefix: path "a/../.." leads out of the root`:            {index: index, prefix: "a/../.."},
	} {
		out := t.TempDir()
		err := packer(t, "none", out).Layout(test.index, "a:1", test.blobs, test.platforms, test.prefix)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v\nwant  %s", err, want)
		}
		if left, err := os.ReadDir(out); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	}
}
