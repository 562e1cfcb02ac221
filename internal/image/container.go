package image

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"

	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipway-build/slipway/exporter/tree"
)

// maxManifest limits the JSON documents of a container image, in bytes.
const maxManifest = 4 << 20

// readContainerImage reads the root file system of an image in an archive of
// docker save, or in an OCI layout.
func (i *Image) readContainerImage(f *tree.FS) error {
	names, err := dockerLayers(f)
	if err != nil {
		names, err = ociLayers(f)
	}
	if err != nil {
		return err
	}
	i.Kind = "container image"
	var layers []*io.SectionReader
	for _, name := range names {
		layer, err := i.openLayer(f, name)
		if err != nil {
			return fmt.Errorf("layer %q: %w", name, err)
		}
		layers = append(layers, layer)
	}
	entries, err := tree.ReadLayers(layers)
	if err != nil {
		return err
	}
	return i.readRoot("container image", entries)
}

// readRoot takes entries as the root file system, unless they are a container
// disk of KubeVirt: a disk in the directory disk, and nothing else.
func (i *Image) readRoot(kind string, entries []tree.Entry) error {
	files := slices.DeleteFunc(slices.Clone(entries), func(e tree.Entry) bool {
		return e.Type == tree.Dir && (e.Path == "." || e.Path == "disk")
	})
	if len(files) != 1 || path.Dir(files[0].Path) != "disk" || files[0].Type != tree.File {
		i.RootKind, i.Root = kind, entries
		return nil
	}
	in := input{name: files[0].Path, r: files[0].ReaderAt(), size: files[0].Size}
	k, err := sniff(in.r, in.size)
	if err != nil {
		return err
	}
	if k != kindQCOW2 && k != kindDisk {
		i.RootKind, i.Root = kind, entries
		return nil
	}
	err = i.readFile(k, in)
	i.Kind = "container disk with a " + i.Kind
	return err
}

func readJSON(f *tree.FS, name string, v any) error {
	e, err := f.Lookup(name)
	if err != nil {
		return err
	}
	if e.Type != tree.File || e.Size > maxManifest {
		return fmt.Errorf("%q is no document of a container image", name)
	}
	data, err := io.ReadAll(io.NewSectionReader(e.ReaderAt(), 0, e.Size))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%q: %w", name, err)
	}
	return nil
}

// dockerLayers returns the files of the layers of the first image in an archive
// of docker save.
func dockerLayers(f *tree.FS) ([]string, error) {
	var manifest []struct{ Layers []string }
	if err := readJSON(f, "manifest.json", &manifest); err != nil {
		return nil, err
	}
	if len(manifest) == 0 {
		return nil, fmt.Errorf("manifest.json names no image")
	}
	return manifest[0].Layers, nil
}

// ociLayers returns the files of the layers of the first image in an OCI layout.
func ociLayers(f *tree.FS) ([]string, error) {
	var index ocispec.Index
	if err := readJSON(f, ocispec.ImageIndexFile, &index); err != nil {
		return nil, err
	}
	for range 4 { // an index may name another one
		if len(index.Manifests) == 0 {
			break
		}
		first := index.Manifests[0]
		name := blob(first)
		if !types.MediaType(first.MediaType).IsIndex() {
			var manifest ocispec.Manifest
			if err := readJSON(f, name, &manifest); err != nil {
				return nil, err
			}
			var names []string
			for _, l := range manifest.Layers {
				names = append(names, blob(l))
			}
			return names, nil
		}
		index = ocispec.Index{}
		if err := readJSON(f, name, &index); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%s names no image", ocispec.ImageIndexFile)
}

func blob(d ocispec.Descriptor) string {
	return "blobs/" + string(d.Digest.Algorithm()) + "/" + d.Digest.Encoded()
}

// openLayer returns the unpacked content of a layer.
func (i *Image) openLayer(f *tree.FS, name string) (*io.SectionReader, error) {
	e, err := f.Lookup(name)
	if err != nil {
		return nil, err
	}
	if e.Type != tree.File {
		return nil, fmt.Errorf("it is a %v", e.Type)
	}
	content := io.NewSectionReader(e.ReaderAt(), 0, e.Size)
	var magic [4]byte
	n, err := content.ReadAt(magic[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	var unpacked io.Reader
	switch {
	case bytes.HasPrefix(magic[:n], []byte("\x1f\x8b")):
		if unpacked, err = gzip.NewReader(content); err != nil {
			return nil, err
		}
	case bytes.HasPrefix(magic[:n], []byte("\x28\xb5\x2f\xfd")):
		z, err := zstd.NewReader(content, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(128<<20))
		if err != nil {
			return nil, err
		}
		defer z.Close()
		unpacked = z
	default:
		return content, nil
	}
	s, err := i.temporary()
	if err != nil {
		return nil, err
	}
	return s.addAll(unpacked)
}
