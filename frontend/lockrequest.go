package frontend

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"strings"
	"sync"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipway-build/slipway/internal/suggest"
	"github.com/slipway-build/slipway/machine"
)

// LockRequest is the id of the subrequest that returns a lock.
const LockRequest = "frontend.machine.lock"

// LockUpdate is the build argument that lists the images to resolve again. The
// others keep the digests of the existing lock. Without it, all are resolved.
const LockUpdate = "LOCK_UPDATE"

// answerLock resolves the images of the machine and returns the lock.
func (r *request) answerLock(ctx context.Context) (*client.Result, error) {
	m, err := r.parse(ctx)
	if err != nil {
		return nil, err
	}
	if err := r.lint.report(ctx, r.sources, m.Warnings()); err != nil {
		return nil, err
	}
	refs := r.registryRefs(m)
	before, renewed, err := r.keptImages(ctx, refs)
	if err != nil {
		return nil, err
	}
	after := &lockFile{yml: path.Base(r.sources.main().Filename), images: map[string]digest.Digest{}}
	layouts := layoutPlatforms(m)
	if len(m.ArgValues()) > 0 {
		maps.Copy(after.images, before) // other values may select these images
	}
	var mu sync.Mutex
	var all sync.WaitGroup
	var diags machine.Diagnostics
	for _, ref := range refs {
		key := familiar(ref.Name)
		if old, ok := before[key]; ok && !renewed[key] {
			after.images[key] = old
			continue
		}
		if scheme, _ := r.namedContext(ref.Name, r.ui.TargetPlatforms[0]); scheme != "" {
			continue // the user replaces it
		}
		all.Go(func() {
			found, err := r.indexDigest(ctx, ref, layouts)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				diags = append(diags, r.sources.imageError(ref, err))
			}
			after.images[key] = found
		})
	}
	all.Wait()
	if err := sorted(diags); err != nil {
		return nil, err
	}
	data, err := json.MarshalIndent(struct {
		Version int                      `json:"version"`
		Images  map[string]digest.Digest `json:"images"`
	}{lockVersion, after.images}, "", "  ")
	if err != nil {
		return nil, err
	}
	return subrequestResult(data, after.text(), "1.0.0")
}

// keptImages returns the digests of the existing lock and the images that are
// resolved in spite of it.
func (r *request) keptImages(ctx context.Context, refs []machine.ImageRef) (before map[string]digest.Digest, renewed map[string]bool, err error) {
	names, ok := r.ui.BuildArgs[LockUpdate]
	if !ok {
		return nil, nil, nil // even if the lock is invalid
	}
	l, err := readLock(ctx, r.gateway, r.sources.main())
	if err != nil {
		return nil, nil, err
	}
	if l != nil {
		before = l.images
	}
	renewed, err = selectImages(names, refs)
	return before, renewed, err
}

// selectImages returns the images of a comma-separated list of references, each
// with or without tag.
func selectImages(names string, refs []machine.ImageRef) (map[string]bool, error) {
	selected := map[string]bool{}
	var known []string
	for _, ref := range refs {
		known = append(known, familiar(ref.Name))
	}
	for name := range strings.FieldsFuncSeq(names, func(r rune) bool { return r == ',' }) {
		found := false
		for _, key := range known {
			named, err := reference.ParseNormalizedNamed(key)
			if key == name || err == nil && reference.FamiliarName(named) == name {
				selected[key], found = true, true
			}
		}
		if !found {
			return nil, fmt.Errorf("the machine has no image %s%s; images: %s", name, suggest.Among(name, known), strings.Join(known, ", "))
		}
	}
	return selected, nil
}

// layoutPlatforms returns the platforms of the images that only volumes with
// format oci use, by reference. No platforms mean all.
func layoutPlatforms(m *machine.Machine) map[string][]string {
	out := map[string][]string{}
	for _, v := range m.Volumes {
		names := out[v.Image.Name]
		for _, p := range v.Platforms {
			names = append(names, p.String())
		}
		out[v.Image.Name] = names
	}
	for _, ref := range m.ImageRefs() {
		delete(out, ref.Name)
	}
	return out
}

// indexDigest asks the registry for the digest of an image. The digest of an
// index also fixes the manifests of all platforms. The platforms of the request
// must be among them, or those of the layout of a volume.
func (r *request) indexDigest(ctx context.Context, ref machine.ImageRef, layouts map[string][]string) (digest.Digest, error) {
	named, err := reference.ParseNormalizedNamed(ref.Name)
	if err != nil {
		return "", err
	}
	targets := r.ui.TargetPlatforms
	selected, isLayout := layouts[ref.Name]
	switch {
	case ref.Name == r.sources.frontendRef().Name:
		targets = []ocispecs.Platform{r.buildPlatform()} // on which it runs
	case isLayout && len(selected) == 0:
		return r.anyDigest(ctx, ref, named)
	case isLayout:
		if targets, err = platforms.ParseAll(selected); err != nil {
			return "", err
		}
	}
	var found digest.Digest
	for _, p := range targets {
		d, err := r.platformDigest(ctx, ref, named, platforms.Normalize(p))
		if err != nil {
			return "", err
		}
		if found != "" && found != d {
			return "", errors.New("changed while it was resolved: try again")
		}
		found = d
	}
	return found, nil
}

// platformDigest asks the registry for the digest of an image that must exist for
// a platform.
func (r *request) platformDigest(ctx context.Context, ref machine.ImageRef, named reference.Named, p ocispecs.Platform) (digest.Digest, error) {
	resolve := func(ctx context.Context, p ocispecs.Platform) (found digest.Digest, actual ocispecs.Platform, err error) {
		res, _, err := r.metadata(ctx, ref, named, p, r.resolveMode())
		if err != nil {
			return "", actual, err
		}
		return res.Digest, actual, json.Unmarshal(res.Config, &actual)
	}
	found, actual, err := resolve(ctx, p)
	err = r.checkPlatform(ctx, p, actual, err, func(ctx context.Context, p ocispecs.Platform) (ocispecs.Platform, error) {
		_, actual, err := resolve(ctx, p)
		return actual, err
	})
	if err != nil || found != "" {
		return found, err
	}
	res, _, err := r.metadata(ctx, ref, named, p, pb.AttrImageResolveModeForcePull)
	if err != nil {
		return "", fmt.Errorf("the Docker Engine has it in an image store without digests, and no registry has it: %w; push it, or replace it with --build-context", err)
	}
	return res.Digest, nil
}

// anyDigest asks the registry for the digest of an image that may exist for any
// platform.
func (r *request) anyDigest(ctx context.Context, ref machine.ImageRef, named reference.Named) (digest.Digest, error) {
	var first error
	for _, name := range probed {
		found, err := r.platformDigest(ctx, ref, named, platforms.MustParse(name))
		if err == nil {
			return found, nil
		}
		if first == nil {
			first = err
		}
	}
	return "", first
}
