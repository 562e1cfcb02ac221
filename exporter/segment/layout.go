package segment

import (
	_ "crypto/sha256" // which package digest does not import itself
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipway-build/slipway/exporter/tree"
)

// Layout makes the segment of an OCI image layout at prefix (OCI image
// specification, Image Layout) that holds one image, under the reference name.
// The file index is the image's index or, for an image of one platform, its
// manifest; it becomes a blob as it is. Of its manifests those for the given
// platforms (OS/ARCH[/VARIANT]), or all if there are none, are taken with all
// that they refer to. These are among the files blobs, which are known by their
// content.
func (p Packer) Layout(index, name string, blobs []string, platforms []string, prefix string) error {
	if err := checkPrefix(prefix); err != nil {
		return err
	}
	entries, err := layout(index, name, blobs, platforms)
	if err != nil {
		return fmt.Errorf("image %s: %w", name, err)
	}
	return p.write(Under(prefix, entries))
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
	l := imageLayout{files: files, taken: map[digest.Digest]string{}}
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
			return nil, fmt.Errorf("it is not there for the platform %s, but for %s", wanted[i], l.platforms())
		}
	}
	return l.entries(top)
}

// digestOf gives the digest of a file.
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
	taken  map[digest.Digest]string // those that the layout holds
	wanted []ocispec.Platform       // empty for all
	found  []ocispec.Platform       // what the image has
}

// document is an index or a manifest. Those of Docker have the same members.
type document struct {
	MediaType string               `json:"mediaType"`
	Manifests []ocispec.Descriptor `json:"manifests"`
	Config    *ocispec.Descriptor  `json:"config"`
	Layers    []ocispec.Descriptor `json:"layers"`
}

// take takes the index or manifest of d, with what it refers to, and completes d.
func (l *imageLayout) take(d *ocispec.Descriptor) error {
	data, err := l.document(d)
	if err != nil {
		return err
	}
	var doc document
	if err := json.Unmarshal(data, &doc); err != nil {
		return fmt.Errorf("%s is no index or manifest: %w", d.Digest, err)
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
		return fmt.Errorf("%s is no index or manifest of an image (%s)", d.Digest, doc.MediaType)
	}
	if d.MediaType == "" {
		d.MediaType = ocispec.MediaTypeImageIndex
	}
	for _, m := range doc.Manifests {
		if m.Platform != nil {
			l.found = append(l.found, *m.Platform)
		}
		if !l.wants(m.Platform) {
			continue
		}
		if err := l.take(&m); err != nil {
			return err
		}
	}
	return nil
}

// findPlatform learns from its configuration what a manifest is for.
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

func (l *imageLayout) wants(platform *ocispec.Platform) bool {
	return len(l.wanted) == 0 || platform != nil && slices.ContainsFunc(l.wanted, func(w ocispec.Platform) bool {
		return platforms.NewMatcher(w).Match(*platform)
	})
}

// documentMax is the size of the largest index, manifest or configuration, in
// bytes; registries take no larger ones.
const documentMax = 4 << 20

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
		err = fmt.Errorf("%s is larger than an index, manifest or configuration can be: %d bytes", d.Digest, documentMax)
	}
	return data, err
}

// blob takes one blob.
func (l *imageLayout) blob(d ocispec.Descriptor) error {
	name, ok := l.files[d.Digest]
	if !ok {
		return fmt.Errorf("blob %s (%s, %d bytes) is missing: none of the given files has this digest", d.Digest, d.MediaType, d.Size)
	}
	l.taken[d.Digest] = name
	return nil
}

// platforms names what the image has, for messages.
func (l *imageLayout) platforms() string {
	var names []string
	for _, p := range l.found {
		if p.OS != "" && p.OS != "unknown" { // as attestations have
			names = append(names, platforms.Format(p))
		}
	}
	if len(names) == 0 {
		return "none that it names"
	}
	return strings.Join(names, ", ")
}

// entries gives the files of the layout, whose only image is top.
func (l *imageLayout) entries(top ocispec.Descriptor) ([]tree.Entry, error) {
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{top}}
	index.SchemaVersion = 2
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
	for _, d := range slices.Sorted(maps.Keys(l.taken)) {
		info, err := os.Stat(l.taken[d])
		if err != nil {
			return nil, err
		}
		if !info.Mode().IsRegular() {
			return nil, &fs.PathError{Op: "read", Path: l.taken[d], Err: errors.New("not a regular file")}
		}
		entries = append(entries, tree.Entry{
			Path: path.Join(ocispec.ImageBlobsDir, d.Algorithm().String(), d.Encoded()), Type: tree.File, Mode: 0o644, Size: info.Size(),
			Open: func() (tree.Content, error) { return os.Open(l.taken[d]) },
		})
	}
	tree.Sort(entries)
	return entries, nil
}
