package frontend

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/platforms"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// checkPlatforms returns an error if one of the requested platforms is not Linux.
func checkPlatforms(requested []ocispecs.Platform) error {
	for _, p := range requested {
		if p.OS != "linux" {
			return fmt.Errorf("--platform %s: a machine runs Linux, for example linux/%s", platforms.FormatAll(p), p.Architecture)
		}
	}
	return nil
}

// runsOn reports whether a machine of a platform can run the files of an image.
// BuildKit does not check that: from an image without an index, it takes what
// there is, and for arm64 also an image for 32-bit ARM. Folders have no platform
// and are for all.
func runsOn(image, p ocispecs.Platform) bool {
	if image.OS == "" && image.Architecture == "" {
		return true
	}
	image, p = platforms.Normalize(image), platforms.Normalize(p)
	return image.OS == p.OS && image.Architecture == p.Architecture && platforms.Only(p).Match(image)
}

// lacksPlatform reports whether the error of a resolver says that an index has no
// manifest for the platform. The gateway transmits the text of errors but not
// their kind.
func lacksPlatform(err error) bool {
	return err != nil && strings.Contains(err.Error(), "no match for platform")
}

// probed are the platforms that platformError looks for. The gateway has no
// request that lists the platforms of an image.
var probed = []string{
	"linux/amd64", "linux/arm64", "linux/arm/v7", "linux/arm/v6", "linux/386", "linux/riscv64", "linux/ppc64le", "linux/s390x",
	"linux/loong64", "linux/mips64le", "windows/amd64", "windows/arm64", "freebsd/amd64", "freebsd/arm64",
}

// A platformResolver returns the platform of the image that the builder uses for
// another platform.
type platformResolver func(context.Context, ocispecs.Platform) (ocispecs.Platform, error)

// checkPlatform checks what resolve returned for a platform. The error lists the
// platforms for which the image exists.
func (r *request) checkPlatform(ctx context.Context, p, actual ocispecs.Platform, err error, resolve platformResolver) error {
	switch {
	case err == nil && runsOn(actual, p):
		return nil
	case err == nil || lacksPlatform(err):
		return platformError(ctx, p, resolve)
	}
	// If a Docker Engine has the image for its own platform alone, it looks for
	// others in the registry, which may lack the image.
	own := r.buildPlatform()
	if platforms.FormatAll(own) != platforms.FormatAll(p) {
		if _, err := resolve(ctx, own); err == nil {
			return platformError(ctx, p, resolve)
		}
	}
	return err
}

// platformError returns an error that lists the platforms of an image.
func platformError(ctx context.Context, p ocispecs.Platform, resolve platformResolver) error {
	found := make([]string, len(probed))
	var all sync.WaitGroup
	for i, name := range probed {
		all.Go(func() {
			actual, err := resolve(ctx, platforms.MustParse(name))
			if err == nil && actual.OS != "" {
				found[i] = platforms.FormatAll(platforms.Normalize(actual))
			}
		})
	}
	all.Wait()
	return notFor(p, found)
}

// notFor returns the error for an image that exists for other platforms. Empty
// ones are ignored.
func notFor(p ocispecs.Platform, existing []string) error {
	existing = slices.DeleteFunc(slices.Clone(existing), func(name string) bool { return name == "" })
	slices.Sort(existing)
	if existing = slices.Compact(existing); len(existing) == 0 {
		return fmt.Errorf("does not exist for %s", platforms.FormatAll(p))
	}
	return fmt.Errorf("does not exist for %s, but for %s", platforms.FormatAll(p), strings.Join(existing, ", "))
}
