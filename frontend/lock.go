package frontend

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/frontend/dockerui"
	"github.com/moby/buildkit/frontend/gateway/client"
	digest "github.com/opencontainers/go-digest"
	"go.yaml.in/yaml/v4"

	"github.com/slipway-build/slipway/machine"
)

// lockVersion is the version of the lock's format.
const lockVersion = 1

// A lockFile holds the digests of a machine's images. It lies beside the machine
// YAML, under the name that [LockName] returns. A nil lockFile means that there
// is none.
type lockFile struct {
	name   string                   // of the file
	yml    string                   // name of the machine YAML
	sum    digest.Digest            // of the file
	images map[string]digest.Digest // of manifest or index, by familiar reference
	lines  map[string]int           // in the file, by familiar reference
}

// LockName returns the path of the lock of a machine YAML: aws.lock.yml for
// aws.yml.
func LockName(filename string) string {
	return strings.TrimSuffix(filename, path.Ext(filename)) + ".lock.yml"
}

// familiar returns a reference as people write it: without docker.io/library/.
func familiar(canonical string) string {
	named, err := reference.ParseNormalizedNamed(canonical)
	if err != nil {
		return canonical
	}
	return reference.FamiliarString(named)
}

// readLock reads the lock that was transferred with the machine YAML.
func readLock(ctx context.Context, c client.Client, yml *dockerui.Source) (*lockFile, error) {
	name := LockName(yml.Filename)
	res, err := c.Solve(ctx, client.SolveRequest{Definition: yml.Definition.ToPB()})
	if err != nil {
		return nil, err
	}
	ref, err := res.SingleRef()
	if err != nil {
		return nil, err
	}
	data, err := dockerui.ReadFile(ctx, ref, name)
	if err != nil {
		if isNotFound(err) {
			return nil, nil
		}
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	l, err := parseLock(name, data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; slipway lock %s replaces it", name, err, yml.Filename)
	}
	l.yml = yml.Filename
	return l, nil
}

func parseLock(name string, data []byte) (*lockFile, error) {
	var file struct {
		Version int       `yaml:"version"`
		Images  yaml.Node `yaml:"images"`
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&file); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if file.Version != lockVersion {
		return nil, fmt.Errorf("version %d is not supported, this frontend reads version %d", file.Version, lockVersion)
	}
	l := &lockFile{name: name, sum: digest.FromBytes(data), lines: map[string]int{}}
	if err := file.Images.Decode(&l.images); err != nil {
		return nil, err
	}
	for i := 0; i+1 < len(file.Images.Content); i += 2 {
		l.lines[file.Images.Content[i].Value] = file.Images.Content[i].Line
	}
	for _, key := range slices.Sorted(maps.Keys(l.images)) {
		if err := l.images[key].Validate(); err != nil {
			return nil, fmt.Errorf("line %d: digest of %s: %w", l.lines[key], key, err)
		}
	}
	return l, nil
}

// ParseLock returns the digests of a lock, by familiar reference. The name is that
// of the file, for errors.
func ParseLock(name string, data []byte) (map[string]digest.Digest, error) {
	l, err := parseLock(name, data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return l.images, nil
}

// text returns the contents of the file. They depend on the images alone.
func (l *lockFile) text() []byte {
	var out bytes.Buffer
	fmt.Fprintf(&out, "# The digests of the images of %s, written by \"slipway lock %s\".\nversion: %d\nimages:\n", l.yml, l.yml, lockVersion)
	for _, key := range slices.Sorted(maps.Keys(l.images)) {
		fmt.Fprintf(&out, "  %s: %s\n", key, l.images[key])
	}
	return out.Bytes()
}

// digest returns the locked digest of an image.
func (l *lockFile) digest(ref machine.ImageRef) (digest.Digest, error) {
	key := familiar(ref.Name)
	d, ok := l.images[key]
	if !ok {
		return "", fmt.Errorf("not in %s: slipway lock --update %s %s adds it", l.name, key, l.yml)
	}
	return d, nil
}

// checkUnused returns an error for images of the lock that the machine does not
// use.
func (l *lockFile) checkUnused(refs []machine.ImageRef) error {
	if l == nil {
		return nil
	}
	used := map[string]bool{}
	for _, ref := range refs {
		used[familiar(ref.Name)] = true
	}
	var unused []error
	for _, key := range slices.Sorted(maps.Keys(l.images)) {
		if !used[key] {
			unused = append(unused, fmt.Errorf("%s:%d: image %s is not in %s: slipway lock --update= %s removes it from the lock",
				l.name, l.lines[key], key, l.yml, l.yml))
		}
	}
	return errors.Join(unused...)
}

// IsPinned reports whether digests name all images of a machine, and the frontend
// image: digests in the machine YAML, or in its lock. The lock is nil if there is
// none.
func IsPinned(m *machine.Machine, filename string, yml, lock []byte) bool {
	main := sources{{SourceMap: &llb.SourceMap{Filename: filename, Data: yml}}}
	refs := append(m.AllImageRefs(), main.frontendRef())
	var locked *lockFile
	if lock != nil {
		var err error
		if locked, err = parseLock(LockName(filename), lock); err != nil {
			return false
		}
	}
	return !slices.ContainsFunc(refs, func(ref machine.ImageRef) bool {
		if locked != nil {
			_, err := locked.digest(ref)
			return err != nil
		}
		return !isDigested(ref)
	})
}

// registryRefs returns the references of a machine that a lock may hold: those of
// registries, starting with the frontend.
func (r *request) registryRefs(m *machine.Machine) []machine.ImageRef {
	refs := slices.Concat([]machine.ImageRef{r.sources.frontendRef()}, m.AllImageRefs())
	return slices.DeleteFunc(refs, func(ref machine.ImageRef) bool { return strings.HasPrefix(ref.Name, packageScheme) })
}
