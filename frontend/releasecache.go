package frontend

import (
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/frontend/gateway/client"
	digest "github.com/opencontainers/go-digest"

	"github.com/slipway-build/slipway/machine"
)

// Environment variables of the frontend image of a release. They name the cache
// in a registry that has the packed packages of the release, by digest, and the
// comma-separated digests of the images of these packages.
const (
	releaseCacheVariable  = "SLIPWAY_CACHE"
	releaseImagesVariable = "SLIPWAY_CACHE_IMAGES"
)

// ReleaseCache is the build argument that switches the cache of the release off.
const ReleaseCache = "RELEASE_CACHE"

// releaseCache is the cache of packed packages that belongs to a release. Its
// zero value is no cache.
type releaseCache struct {
	ref    string // with a digest
	images map[digest.Digest]bool
}

// newReleaseCache reads the cache of a release from the environment of its
// frontend image. A cache without a digest is ignored.
func newReleaseCache(env []string) releaseCache {
	get := func(name string) string {
		for _, e := range env {
			if value, ok := strings.CutPrefix(e, name+"="); ok {
				return value
			}
		}
		return ""
	}
	named, err := reference.ParseNormalizedNamed(get(releaseCacheVariable))
	if err != nil {
		return releaseCache{}
	}
	if _, pinned := named.(reference.Digested); !pinned {
		return releaseCache{}
	}
	c := releaseCache{ref: named.String(), images: map[digest.Digest]bool{}}
	for d := range strings.SplitSeq(get(releaseImagesVariable), ",") {
		c.images[digest.Digest(d)] = true
	}
	return c
}

// runningReleaseCache returns the cache of the release of this frontend, which
// runs in its image.
func runningReleaseCache() releaseCache { return newReleaseCache(os.Environ()) }

// cacheImports returns the caches that BuildKit may load the steps of a machine
// from: those of the user, and that of the release if the machine has one of its
// packages.
//
// BuildKit does not verify the manifest of a cache, so whoever answers for its
// registry decides what its steps contain. For images by tag, the registry
// decides that in any case. A user who pinned an image trusts the digest alone,
// so a machine with a lock or a digest uses no cache that the user did not name.
func (b *build) cacheImports(m *resolvedMachine) []client.CacheOptionsEntry {
	imports := b.req.ui.CacheImports
	cache := b.tools.cache
	if cache.ref == "" || !b.options.releaseCache || b.images.lock != nil {
		return imports
	}
	refs := b.machine.AllImageRefs()
	if slices.ContainsFunc(append(refs, b.req.sources.frontendRef()), isDigested) {
		return imports
	}
	for _, i := range m.images {
		if cache.images[i.digest] {
			entry := client.CacheOptionsEntry{Type: "registry", Attrs: map[string]string{"ref": cache.ref}}
			return append(slices.Clone(imports), entry)
		}
	}
	return imports
}

// isDigested reports whether a reference has a digest.
func isDigested(ref machine.ImageRef) bool {
	named, err := reference.ParseNormalizedNamed(ref.Name)
	if err != nil {
		return false
	}
	_, ok := named.(reference.Digested)
	return ok
}

// parseReleaseCache parses the build argument. By default, the cache is used.
func parseReleaseCache(value string) (bool, error) {
	if value == "" {
		return true, nil
	}
	return strconv.ParseBool(value)
}
