package segment

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	ocilayout "github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipway-build/slipway/exporter/tree"
	"github.com/slipway-build/slipway/internal/testutil/treetest"
)

// unpackedImage writes an image with one file.
func unpackedImage(t *testing.T, text, config string) Image {
	t.Helper()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "root", "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"root/bin/a": text, "config": config} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return Image{Rootfs: Rootfs{Dir: filepath.Join(dir, "root")}, Config: filepath.Join(dir, "config")}
}

func TestRepack(t *testing.T) {
	const amd64 = `{"architecture":"amd64","os":"linux","config":{"Cmd":["/bin/a"]},"own":1,"history":[{},{}],"rootfs":{"type":"layers","diff_ids":["sha256:0"]}}`
	arm64 := strings.Replace(amd64, "amd64", "arm64", 1)
	for _, c := range []struct {
		name   string
		images []Image
		want   []string // platforms
	}{
		{"one", []Image{unpackedImage(t, "a", amd64)}, []string{"linux/amd64"}},
		{"two", []Image{unpackedImage(t, "a", amd64), unpackedImage(t, "b", arm64)}, []string{"linux/amd64", "linux/arm64"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			out := t.TempDir()
			if err := (Packer{Out: out, Archive: Tar}).Repack("docker.io/library/a:1", c.images, "volumes/a"); err != nil {
				t.Fatal(err)
			}
			if files, err := os.ReadDir(out); err != nil || len(files) != 1 {
				t.Errorf("the packer leaves %v, %v", files, err)
			}
			segment := read(t, out, FileName)
			entries, err := tree.ReadTar(strings.NewReader(segment), int64(len(segment)))
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			for _, e := range entries {
				name := filepath.Join(dir, e.Path)
				if e.Type == tree.Dir {
					err = os.MkdirAll(name, 0o755)
				} else {
					err = os.WriteFile(name, []byte(treetest.Content(t, e)), 0o644)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			checkRepacked(t, filepath.Join(dir, "volumes/a"), c.want)
		})
	}
}

// checkRepacked checks an OCI image layout on disk.
func checkRepacked(t *testing.T, dir string, want []string) {
	index, err := ocilayout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(index, validate.Fast); err != nil {
		t.Error(err)
	}
	top, err := index.IndexManifest()
	if err != nil || len(top.Manifests) != 1 || top.Manifests[0].Annotations[ocispec.AnnotationRefName] != "docker.io/library/a:1" {
		t.Fatalf("index %+v, %v", top, err)
	}
	if len(want) > 1 {
		if index, err = index.ImageIndex(top.Manifests[0].Digest); err != nil {
			t.Fatal(err)
		}
		if top, err = index.IndexManifest(); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, m := range top.Manifests {
		image, err := index.Image(m.Digest)
		if err != nil {
			t.Fatal(err)
		}
		if err := validate.Image(image, validate.Fast); err != nil {
			t.Error(err)
		}
		data, err := image.RawConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		var config map[string]any
		if err := json.Unmarshal(data, &config); err != nil {
			t.Fatal(err)
		}
		if keys := slices.Sorted(maps.Keys(config)); !slices.Equal(keys, []string{"architecture", "config", "os", "own", "rootfs"}) {
			t.Errorf("configuration has %q", keys)
		}
		// The library cannot check the contents of uncompressed layers.
		layers, err := image.Layers()
		if err != nil || len(layers) != 1 {
			t.Fatalf("layers %v, %v", layers, err)
		}
		digest, err := layers[0].Digest()
		if err != nil {
			t.Fatal(err)
		}
		if file, err := image.ConfigFile(); err != nil || len(file.RootFS.DiffIDs) != 1 || file.RootFS.DiffIDs[0] != digest {
			t.Errorf("configuration %+v, %v: want the layer %s", file, err, digest)
		}
		got = append(got, m.Platform.OS+"/"+m.Platform.Architecture)
	}
	if !slices.Equal(got, want) {
		t.Errorf("platforms %q, want %q", got, want)
	}
}

func TestRepackErrors(t *testing.T) {
	for want, image := range map[string]Image{
		"image a:1: configuration: invalid character": unpackedImage(t, "a", "x"),
		"image a:1: open none: no such file":          {Config: "none"},
		"image a:1: read tree: lstat none":            {Config: unpackedImage(t, "a", "{}").Config, Rootfs: Rootfs{Dir: "none"}},
	} {
		out := t.TempDir()
		err := Packer{Out: out, Archive: Tar}.Repack("a:1", []Image{image}, "volumes/a")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
		if files, err := os.ReadDir(out); err != nil || len(files) > 0 {
			t.Errorf("%s: the packer leaves %v, %v", want, files, err)
		}
	}
}
