package segment

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipway-build/slipway/exporter/tree"
)

// An Image is an unpacked image for one platform.
type Image struct {
	Rootfs
	Config string // file with the configuration (OCI image specification, Image Configuration)
}

// Repack is like Layout, but makes the image of unpacked ones, each for another
// platform. It has the files and the configuration of the original in a single
// layer, so its digest is another one.
func (p Packer) Repack(name string, images []Image, prefix string) error {
	if err := checkPrefix(prefix); err != nil {
		return err
	}
	b := newBlobs(p.Out)
	defer b.close()
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for _, i := range images {
		manifest, err := b.addImage(i)
		if err != nil {
			return fmt.Errorf("image %s: %w", name, err)
		}
		index.Manifests = append(index.Manifests, manifest)
	}
	top := index.Manifests[0]
	if len(images) > 1 {
		var err error
		if top, err = b.addJSON(ocispec.MediaTypeImageIndex, index); err != nil {
			return err
		}
	}
	top.Annotations = map[string]string{ocispec.AnnotationRefName: name}
	entries, err := layoutEntries(top, b.entries)
	if err != nil {
		return err
	}
	return p.write(AddPrefix(prefix, entries))
}

// blobs are the blobs of an image that is made.
type blobs struct {
	spool   string // directory for temporary files
	entries map[digest.Digest]tree.Entry
	closers []func()
}

func newBlobs(spool string) *blobs {
	return &blobs{spool: spool, entries: map[digest.Digest]tree.Entry{}}
}

func (b *blobs) close() {
	for _, c := range b.closers {
		c()
	}
}

// addImage adds manifest, configuration and layer of an image.
func (b *blobs) addImage(i Image) (ocispec.Descriptor, error) {
	var none ocispec.Descriptor
	data, err := os.ReadFile(i.Config)
	if err != nil {
		return none, err
	}
	var platform ocispec.Platform
	config := map[string]json.RawMessage{} // keeps what the specification does not know
	if err := errors.Join(json.Unmarshal(data, &config), json.Unmarshal(data, &platform)); err != nil {
		return none, fmt.Errorf("configuration: %w", err)
	}
	layer, err := b.addLayer(i.Rootfs)
	if err != nil {
		return none, err
	}
	if config["rootfs"], err = json.Marshal(ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{layer.Digest}}); err != nil {
		return none, err
	}
	delete(config, "history") // of other layers
	manifest := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Layers: []ocispec.Descriptor{layer}}
	if manifest.Config, err = b.addJSON(ocispec.MediaTypeImageConfig, config); err != nil {
		return none, err
	}
	d, err := b.addJSON(ocispec.MediaTypeImageManifest, manifest)
	d.Platform = &platform
	return d, err
}

// addLayer adds a root filesystem as a layer. It is not compressed, because the
// segment is.
func (b *blobs) addLayer(rootfs Rootfs) (ocispec.Descriptor, error) {
	var none ocispec.Descriptor
	entries, closeTree, err := rootfs.read(b.spool)
	if err != nil {
		return none, err
	}
	defer closeTree()
	if err := tree.Check(entries); err != nil {
		return none, err
	}
	f, err := os.CreateTemp(b.spool, ".layer.*")
	if err != nil {
		return none, err
	}
	b.closers = append(b.closers, func() { f.Close() })
	if err := os.Remove(f.Name()); err != nil {
		return none, err
	}
	sum := sha256.New()
	if err := tree.WriteTar(io.MultiWriter(f, sum), entries, layerTime); err != nil {
		return none, err
	}
	size, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return none, err
	}
	d := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.NewDigest(digest.SHA256, sum), Size: size}
	b.entries[d.Digest] = tree.Entry{Type: tree.File, Mode: 0o644, Size: size, Open: func() (tree.Content, error) {
		return section{io.NewSectionReader(f, 0, size)}, nil
	}}
	return d, nil
}

// section is a content without a file of its own.
type section struct{ *io.SectionReader }

func (section) Close() error { return nil }

func (b *blobs) addJSON(mediaType string, value any) (ocispec.Descriptor, error) {
	data, err := json.Marshal(value)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	b.entries[d.Digest] = tree.NewFile("", 0o644, string(data))
	return d, nil
}

// layoutEntries returns the files of a layout with the image top. The blobs have
// no paths yet.
func layoutEntries(top ocispec.Descriptor, blobs map[digest.Digest]tree.Entry) ([]tree.Entry, error) {
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{top}}
	entries := []tree.Entry{tree.NewDir("."), tree.NewDir(ocispec.ImageBlobsDir), tree.NewDir(path.Join(ocispec.ImageBlobsDir, "sha256"))}
	for name, doc := range map[string]any{
		ocispec.ImageIndexFile:  index,
		ocispec.ImageLayoutFile: ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion},
	} {
		data, err := json.Marshal(doc)
		if err != nil {
			return nil, err
		}
		entries = append(entries, tree.NewFile(name, 0o644, string(data)))
	}
	for d, e := range blobs {
		e.Path = path.Join(ocispec.ImageBlobsDir, d.Algorithm().String(), d.Encoded())
		entries = append(entries, e)
	}
	tree.Sort(entries)
	return entries, nil
}
