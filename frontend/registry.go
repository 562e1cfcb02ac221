package frontend

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/solver/pb"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipway-build/slipway/machine"
)

const registryScheme = "docker-image://"

// registryImage resolves an image of a registry. The reference is the one in the
// YAML, named the one to look up.
func (r *resolver) registryImage(ctx context.Context, ref machine.ImageRef, named reference.Named, p ocispecs.Platform) (image, error) {
	var out image
	res, named, err := r.req.metadata(ctx, ref, named, p, r.req.resolveMode())
	if err != nil {
		return out, err
	}
	if err := json.Unmarshal(res.Config, &out.config); err != nil {
		return out, fmt.Errorf("read its configuration: %w", err)
	}
	out.named, out.digest = named, res.Digest
	title := reference.TagNameOnly(named)
	source := title
	if out.digest != "" {
		if source, err = reference.WithDigest(reference.TrimNamed(named), out.digest); err != nil {
			return out, err
		}
		if title, err = reference.WithDigest(title, out.digest); err != nil {
			return out, err
		}
	}
	out.state = llb.Image(source.String(), llb.Platform(p), llb.WithCustomName("["+ref.Section+"] "+title.String()))
	return out, nil
}

// metadata asks a registry for digest and configuration of an image. It returns
// the name of the image, which a source policy may have replaced.
//
// The digest is empty for an image that a Docker Engine already has in its
// classic image store, which knows the digest of the configuration alone, unless
// the name has one.
func (r *request) metadata(ctx context.Context, ref machine.ImageRef, named reference.Named, p ocispecs.Platform, mode string) (*sourceresolver.ResolveImageResponse, reference.Named, error) {
	name := reference.TagNameOnly(named).String()
	// ResolveImageConfig of the gateway ignores the resolve mode of --pull.
	log := "load metadata for " + name
	if !r.concerns(p) {
		log = "look for " + platforms.FormatAll(p) + " of " + name // which may not exist
	}
	res, err := r.gateway.ResolveSourceMetadata(ctx, &pb.SourceOp{Identifier: registryScheme + name}, sourceresolver.Opt{
		LogName:  "[" + ref.Section + "] " + log,
		ImageOpt: &sourceresolver.ResolveImageOpt{ResolveMode: mode, Platform: &p},
	})
	if err != nil {
		return nil, nil, err
	}
	id, ok := strings.CutPrefix(res.Op.GetIdentifier(), registryScheme)
	if !ok || res.Image == nil {
		return nil, nil, fmt.Errorf("a source policy replaces it with %s, which is not an image", res.Op.GetIdentifier())
	}
	named, err = reference.ParseNormalizedNamed(id)
	if digested, ok := named.(reference.Digested); ok && res.Image.Digest == "" {
		res.Image.Digest = digested.Digest()
	}
	return res.Image, named, err
}

// concerns reports whether the user or the builder has a platform. Others are
// those that [platformError] looks for.
func (r *request) concerns(p ocispecs.Platform) bool {
	return slices.ContainsFunc(append([]ocispecs.Platform{r.buildPlatform()}, r.ui.TargetPlatforms...), func(own ocispecs.Platform) bool {
		return platforms.FormatAll(platforms.Normalize(own)) == platforms.FormatAll(p)
	})
}

// resolveMode returns whether BuildKit asks the registry again for an image that
// it knows.
func (r *request) resolveMode() string {
	return r.ui.BuildOpts().Opts["image-resolve-mode"]
}
