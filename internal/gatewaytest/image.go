package gatewaytest

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/containerd/platforms"
	distref "github.com/distribution/reference"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// An Image is an index with one manifest per platform, or a manifest.
type Image struct {
	Digest digest.Digest            // of the index or manifest
	Blobs  map[digest.Digest][]byte // all blobs, the index included
}

// NewImage returns an image with one layer per platform. The seed makes its
// digest differ from that of other images.
func NewImage(seed string, config ocispecs.ImageConfig, names ...string) *Image {
	if len(names) == 0 {
		names = []string{"linux/amd64", "linux/arm64"}
	}
	i := &Image{Blobs: map[digest.Digest][]byte{}}
	index := ocispecs.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageIndex}
	for _, name := range names {
		p := platforms.MustParse(name)
		m := i.addManifest(seed, config, p)
		m.Platform = &p
		index.Manifests = append(index.Manifests, m)
	}
	i.Digest = i.addJSON(ocispecs.MediaTypeImageIndex, index).Digest
	return i
}

// NewManifest returns an image without an index. BuildKit uses it for all
// platforms.
func NewManifest(seed string, config ocispecs.ImageConfig, platform string) *Image {
	i := &Image{Blobs: map[digest.Digest][]byte{}}
	i.Digest = i.addManifest(seed, config, platforms.MustParse(platform)).Digest
	return i
}

func (i *Image) addManifest(seed string, config ocispecs.ImageConfig, p ocispecs.Platform) ocispecs.Descriptor {
	layer := i.add(ocispecs.MediaTypeImageLayer, []byte("layer of "+seed+" for "+platforms.FormatAll(p)))
	return i.addJSON(ocispecs.MediaTypeImageManifest, ocispecs.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageManifest,
		Config: i.addJSON(ocispecs.MediaTypeImageConfig, ocispecs.Image{Platform: p, Config: config}),
		Layers: []ocispecs.Descriptor{layer},
	})
}

func (i *Image) add(mediaType string, data []byte) ocispecs.Descriptor {
	d := digest.FromBytes(data)
	i.Blobs[d] = data
	return ocispecs.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
}

func (i *Image) addJSON(mediaType string, value any) ocispecs.Descriptor {
	data, err := json.Marshal(value)
	if err != nil {
		panic(err) // the types of the OCI specification can be encoded
	}
	return i.add(mediaType, data)
}

// Layer returns the digest of the layer for a platform.
func (i *Image) Layer(platform string) digest.Digest {
	m, err := i.manifest(platforms.MustParse(platform))
	if err != nil {
		panic(err)
	}
	return m.Layers[0].Digest
}

func (i *Image) manifest(p ocispecs.Platform) (*ocispecs.Manifest, error) {
	var index ocispecs.Index
	if err := json.Unmarshal(i.Blobs[i.Digest], &index); err != nil {
		return nil, err
	}
	if len(index.Manifests) == 0 {
		var m ocispecs.Manifest
		return &m, json.Unmarshal(i.Blobs[i.Digest], &m)
	}
	matcher := platforms.Only(p)
	for _, d := range index.Manifests {
		if matcher.Match(*d.Platform) {
			var m ocispecs.Manifest
			return &m, json.Unmarshal(i.Blobs[d.Digest], &m)
		}
	}
	return nil, fmt.Errorf("no match for platform %s in manifest: not found", platforms.FormatAll(p))
}

func (i *Image) config(p ocispecs.Platform) ([]byte, error) {
	m, err := i.manifest(p)
	if err != nil {
		return nil, err
	}
	return i.Blobs[m.Config.Digest], nil
}

// isFor reports whether the configuration of the image for a platform names it.
func (i *Image) isFor(p ocispecs.Platform) bool {
	data, err := i.config(p)
	var actual ocispecs.Platform
	return err == nil && json.Unmarshal(data, &actual) == nil && platforms.Only(p).Match(actual)
}

// image finds an image of a registry by tag or digest.
func (g *Gateway) image(name string) (*Image, error) {
	if i := g.Images[name]; i != nil {
		return i, nil
	}
	named, err := distref.ParseNormalizedNamed(name)
	if err != nil {
		return nil, err
	}
	if d, ok := named.(distref.Digested); ok {
		for other, i := range g.Images {
			if strings.HasPrefix(other, named.Name()+":") && i.Digest == d.Digest() {
				return i, nil
			}
		}
	}
	return nil, fmt.Errorf("%s: not found", name)
}
