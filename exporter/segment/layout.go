package segment

import (
	_ "crypto/sha256" // package digest does not import it
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipway-build/slipway/exporter/tree"
)

// Layout writes the segment of an OCI image layout (OCI image specification, Image
// Layout) below prefix. The layout contains one image, whose reference is name.
// The file index is the index of the image or, for an image for one platform, its
// manifest; it becomes a blob unchanged. The layout includes the manifests for
// the given platforms (OS/ARCH[/VARIANT]), or all if there are none, and what they
// refer to. The files blobs must contain that; their digests identify them.
func (p Packer) Layout(index, name string, blobs []string, platforms []string, prefix string) error {
	if err := checkPrefix(prefix); err != nil {
		return err
	}
	entries, err := layout(index, name, blobs, platforms)
	if err != nil {
		return fmt.Errorf("image %s: %w", name, err)
	}
	return p.write(AddPrefix(prefix, entries))
}

func layout(index, name string, blobs, wanted []string) ([]tree.Entry, error) {
	files := map[digest.Digest]string{}
	for _, name := range blobs {
		d, err := digestOf(name)
		if err != nil {
			return nil, err
		}
		files[d] = name
	}
	root, err := digestOf(index)
	if err != nil {
		return nil, err
	}
	files[root] = index
	l := imageLayout{files: files, taken: map[digest.Digest]string{}, read: map[digest.Digest]bool{}}
	for _, text := range wanted {
		platform, err := platforms.Parse(text)
		if err != nil {
			return nil, err
		}
		l.wanted = append(l.wanted, platform)
	}
	top := ocispec.Descriptor{Digest: root, Annotations: map[string]string{ocispec.AnnotationRefName: name}}
	if err := l.take(&top); err != nil {
		return nil, err
	}
	for i, platform := range l.wanted {
		if !slices.ContainsFunc(l.found, platforms.NewMatcher(platform).Match) {
			return nil, fmt.Errorf("no manifest for the platform %s, only for %s", wanted[i], l.platforms())
		}
	}
	return l.entries(top)
}

// digestOf returns the digest of a file.
func digestOf(name string) (digest.Digest, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return digest.SHA256.FromReader(f)
}

// imageLayout collects the blobs of an image.
type imageLayout struct {
	files  map[digest.Digest]string // known blobs
	taken  map[digest.Digest]string // blobs in the layout
	read   map[digest.Digest]bool   // indexes and manifests in the layout
	wanted []ocispec.Platform       // empty: all
	found  []ocispec.Platform       // platforms of the image
}

// document is an index or a manifest. Docker's formats have the same members.
type document struct {
	MediaType string               `json:"mediaType"`
	Manifests []ocispec.Descriptor `json:"manifests"`
	Config    *ocispec.Descriptor  `json:"config"`
	Layers    []ocispec.Descriptor `json:"layers"`
}

// take adds the index or manifest that d describes, and what it refers to, to the
// layout. It completes d.
func (l *imageLayout) take(d *ocispec.Descriptor) error {
	l.read[d.Digest] = true
	data, err := l.document(d)
	if err != nil {
		return err
	}
	var doc document
	if err := json.Unmarshal(data, &doc); err != nil {
		return fmt.Errorf("%s is not an index or manifest: %w", d.Digest, err)
	}
	d.Size, d.MediaType = int64(len(data)), doc.MediaType
	if doc.Config != nil {
		for _, blob := range append(doc.Layers, *doc.Config) {
			if err := l.blob(blob); err != nil {
				return err
			}
		}
		if d.MediaType == "" {
			d.MediaType = ocispec.MediaTypeImageManifest
		}
		if d.Platform == nil {
			return l.findPlatform(*doc.Config)
		}
		return nil
	}
	if doc.Manifests == nil {
		return fmt.Errorf("%s is not an index or manifest of an image (%s)", d.Digest, doc.MediaType)
	}
	if d.MediaType == "" {
		d.MediaType = ocispec.MediaTypeImageIndex
	}
	for _, m := range doc.Manifests {
		if m.Platform != nil {
			l.found = append(l.found, *m.Platform)
		}
		// Indexes that list one another many times would take forever.
		if !l.wants(m.Platform) || l.read[m.Digest] {
			continue
		}
		if err := l.take(&m); err != nil {
			return err
		}
	}
	return nil
}

// findPlatform reads the platform of a manifest from its configuration.
func (l *imageLayout) findPlatform(config ocispec.Descriptor) error {
	data, err := l.document(&config)
	if err != nil {
		return err
	}
	var platform ocispec.Platform
	if err := json.Unmarshal(data, &platform); err != nil {
		return fmt.Errorf("configuration %s: %w", config.Digest, err)
	}
	l.found = append(l.found, platform)
	return nil
}

// wants reports whether the layout includes manifests for a platform.
func (l *imageLayout) wants(platform *ocispec.Platform) bool {
	return len(l.wanted) == 0 || platform != nil && slices.ContainsFunc(l.wanted, func(w ocispec.Platform) bool {
		return platforms.NewMatcher(w).Match(*platform)
	})
}

// documentMax is the maximum size of an index, manifest or configuration in bytes.
// Registries reject larger ones.
const documentMax = 4 << 20

// document reads an index, manifest or configuration and adds it to the layout.
func (l *imageLayout) document(d *ocispec.Descriptor) ([]byte, error) {
	if err := l.blob(*d); err != nil {
		return nil, err
	}
	f, err := os.Open(l.files[d.Digest])
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, documentMax+1))
	if err == nil && len(data) > documentMax {
		err = fmt.Errorf("%s is too large for an index, manifest or configuration: the maximum is %d bytes", d.Digest, documentMax)
	}
	return data, err
}

// blob adds a blob to the layout.
func (l *imageLayout) blob(d ocispec.Descriptor) error {
	name, ok := l.files[d.Digest]
	if !ok {
		return fmt.Errorf("blob %s (%s, %d bytes) is missing: none of the given files has this digest", d.Digest, d.MediaType, d.Size)
	}
	l.taken[d.Digest] = name
	return nil
}

// platforms lists the platforms of the image for error messages.
func (l *imageLayout) platforms() string {
	var names []string
	for _, p := range l.found {
		if p.OS != "" && p.OS != "unknown" { // as attestations have
			names = append(names, platforms.Format(p))
		}
	}
	if len(names) == 0 {
		return "unnamed platforms"
	}
	return strings.Join(names, ", ")
}

// entries returns the files of the layout with the image top.
func (l *imageLayout) entries(top ocispec.Descriptor) ([]tree.Entry, error) {
	blobs := map[digest.Digest]tree.Entry{}
	for d, name := range l.taken {
		info, err := os.Stat(name)
		if err != nil {
			return nil, err
		}
		if !info.Mode().IsRegular() {
			return nil, &fs.PathError{Op: "read", Path: name, Err: errors.New("not a regular file")}
		}
		blobs[d] = tree.Entry{Type: tree.File, Mode: 0o644, Size: info.Size(), Open: func() (tree.Content, error) { return os.Open(name) }}
	}
	return layoutEntries(top, blobs)
}
