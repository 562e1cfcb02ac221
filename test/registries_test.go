package test

import (
	"strings"
	"testing"

	"github.com/slipway-build/slipway/internal/testutil/buildkitd"
	"github.com/slipway-build/slipway/internal/testutil/stack"
)

// registries has a proxy of the stack's registry for packages, a proxy of an
// empty registry for caches, and the configuration of daemons that use them.
type registries struct {
	packages, caches *buildkitd.Proxy
	config           buildkitd.Config
}

func startRegistries(t *testing.T) *registries {
	t.Helper()
	stack.Require(t)
	registry, err := buildkitd.StartRegistry(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := registry.Stop(); err != nil {
			t.Error(err)
		}
	})
	r := &registries{packages: proxy(t, stack.Registry), caches: proxy(t, registry.Address)}
	r.config = buildkitd.Config{Mirror: r.packages.Address, Registries: []string{r.caches.Address}}
	return r
}

// reset sets the counts of both proxies to 0.
func (r *registries) reset() {
	r.packages.Reset()
	r.caches.Reset()
}

// push builds an image from a Dockerfile on a daemon, pushes it to the registry
// for caches and returns its reference.
func (r *registries) push(t *testing.T, d *buildkitd.Daemon, name, dockerfile string) string {
	t.Helper()
	ref := r.caches.Address + "/" + name
	cmd := d.Build(t.Context(), "--progress=plain", "--provenance=false", "-o", "type=registry", "-t", ref, "-")
	cmd.Stdin = strings.NewReader(dockerfile)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", name, err, out)
	}
	return ref
}

// pulled returns the number of large blobs that were pulled through a proxy
// since the last call, by repository, and the sum of all bytes.
func pulled(p *buildkitd.Proxy) (blobs map[string]int, sum int64) {
	all, _ := p.Reset()
	blobs = map[string]int{}
	for blob, n := range all {
		sum += n
		if n > large {
			blobs[blob.Repository]++
		}
	}
	return blobs, sum
}

// proxy starts a proxy of a registry.
func proxy(t *testing.T, registry string) *buildkitd.Proxy {
	t.Helper()
	p, err := buildkitd.StartProxy(registry)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Stop() })
	return p
}
