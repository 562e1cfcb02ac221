package frontend

import (
	"strings"
	"testing"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipway-build/slipway/internal/gatewaytest"
)

// A build uses the cache of the release for packages of the release, and never if
// the user pinned an image or the frontend: a wrong cache could replace what was
// made of them.
func TestReleaseCache(t *testing.T) {
	const ref = "docker.io/slipwaybuild/cache@sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"
	const yml = "init:\n  - slipwaybuild/init:v1\n"
	lock := func(g *gatewaytest.Gateway) {
		text := "version: 1\nimages:\n"
		for _, name := range []string{"slipwaybuild/slipway:1", "slipwaybuild/init:v1"} {
			text += "  " + name + ": " + g.Images["docker.io/"+name].Digest.String() + "\n"
		}
		g.Locals["dockerfile"]["aws.lock.yml"] = text
	}
	for name, c := range map[string]struct {
		cache  string // default: ref
		images string // default: that of init
		change func(*gatewaytest.Gateway)
		want   bool
	}{
		"used": {want: true},
		"on":   {change: func(g *gatewaytest.Gateway) { g.Opts["build-arg:RELEASE_CACHE"] = "true" }, want: true},
		"off":  {change: func(g *gatewaytest.Gateway) { g.Opts["build-arg:RELEASE_CACHE"] = "false" }},
		"other images": {
			images: "sha256:" + strings.Repeat("d", 64),
		},
		"cache by tag": {cache: "docker.io/slipwaybuild/cache:1"},
		"no cache":     {cache: " "},
		"lock":         {change: lock},
		"pinned image": {change: func(g *gatewaytest.Gateway) {
			pinned := "slipwaybuild/init:v1@" + g.Images["docker.io/slipwaybuild/init:v1"].Digest.String()
			g.Images["docker.io/"+pinned] = g.Images["docker.io/slipwaybuild/init:v1"]
			g.Locals["dockerfile"]["aws.yml"] = "init:\n  - " + pinned + "\n"
		}},
		"pinned frontend": {change: func(g *gatewaytest.Gateway) {
			pinned := "slipwaybuild/slipway:1@" + g.Images["docker.io/slipwaybuild/slipway:1"].Digest.String()
			g.Images["docker.io/"+pinned] = g.Images["docker.io/slipwaybuild/slipway:1"]
			g.Locals["dockerfile"]["aws.yml"] = "# syntax=" + pinned + "\n" + yml
		}},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGateway(t, yml)
			images := c.images
			if images == "" {
				images = "sha256:" + strings.Repeat("e", 64) + "," + g.Images["docker.io/slipwaybuild/init:v1"].Digest.String()
			}
			cache := c.cache
			if cache == "" {
				cache = ref
			}
			g.Images["docker.io/slipwaybuild/slipway:1"] = gatewaytest.NewImage("slipway", ocispecs.ImageConfig{Env: []string{
				"PATH=/", releaseCacheVariable + "=" + strings.TrimSpace(cache), releaseImagesVariable + "=" + images}})
			if c.change != nil {
				c.change(g)
			}
			mustBuild(t, g)
			used := false
			for _, req := range g.Solved() {
				for _, i := range req.CacheImports {
					used = true
					if i.Type != "registry" || i.Attrs["ref"] != ref || len(i.Attrs) != 1 {
						t.Errorf("cache %v", i)
					}
				}
			}
			if used != c.want {
				t.Errorf("uses the cache: %t, want %t", used, c.want)
			}
		})
	}
}

func TestReleaseCacheArgument(t *testing.T) {
	g := newGateway(t, "init:\n  - slipwaybuild/init:v1\n")
	g.Opts["build-arg:RELEASE_CACHE"] = "maybe"
	_, err := Build(t.Context(), g)
	wantError(t, err, "--build-arg RELEASE_CACHE=maybe: use true or false")
}
