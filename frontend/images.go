package frontend

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/frontend/dockerui"
	"github.com/moby/buildkit/solver/pb"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/slipway-build/slipway/machine"
)

// decompressorsLabel on a kernel image lists what that kernel's initramfs code
// unpacks, best first.
const decompressorsLabel = "build.slipway.kernel.initramfs"

type image struct {
	state  llb.State
	digest digest.Digest
	config dockerspec.DockerOCIImage
}

// images holds what the machine's references stand for, by canonical name.
type images map[string]image

func (im images) states() map[string]llb.State {
	out := make(map[string]llb.State, len(im))
	for name, i := range im {
		out[name] = i.state
	}
	return out
}

func (im images) configs() map[string]machine.Image {
	out := make(map[string]machine.Image, len(im))
	for name, i := range im {
		out[name] = machine.Image{Digest: i.digest.String(), Config: i.config.Config.ImageConfig}
	}
	return out
}

// compression is the best that the kernel unpacks: zstd, unless its image says otherwise.
func (im images) compression(k *machine.Kernel) string {
	if k == nil {
		return "zstd"
	}
	label, ok := im[k.Image].config.Config.Labels[decompressorsLabel]
	if !ok {
		return "zstd"
	}
	can := strings.FieldsFunc(label, func(r rune) bool { return r == ',' || r == ' ' })
	for _, algorithm := range []string{"zstd", "gzip"} {
		if slices.Contains(can, algorithm) {
			return algorithm
		}
	}
	return "none"
}

// resolve looks all references up at once. Every one that fails is reported
// with the line that names it.
func (b *builder) resolve(ctx context.Context, refs []machine.ImageRef, p ocispecs.Platform) (images, error) {
	found := make([]image, len(refs))
	failed := make([]error, len(refs))
	var eg errgroup.Group
	for i, ref := range refs {
		eg.Go(func() error {
			found[i], failed[i] = b.resolveOne(ctx, ref, p)
			return nil
		})
	}
	_ = eg.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	out := make(images, len(refs))
	var diags machine.Diagnostics
	for i, ref := range refs {
		if failed[i] != nil {
			diags = append(diags, b.mistake(ref.Range, "image %s: %v", ref.Text, failed[i]))
			continue
		}
		out[ref.Name] = found[i]
	}
	if len(diags) > 0 {
		return nil, diags
	}
	return out, nil
}

// resolveOne takes a named context of the same name before the registry.
func (b *builder) resolveOne(ctx context.Context, ref machine.ImageRef, p ocispecs.Platform) (image, error) {
	if strings.HasPrefix(ref.Name, "@pkg:") {
		return b.buildPackage(ctx, ref, p)
	}
	mode := b.ui.BuildOpts().Opts["image-resolve-mode"]
	var out image
	nc, err := b.ui.NamedContext(ref.Name, dockerui.ContextOpt{
		NoDockerignore: true, Platform: &p, ResolveMode: mode, CaptureDigest: &out.digest,
	})
	if err != nil {
		return out, err
	}
	if nc != nil {
		st, config, err := nc.Load(ctx)
		if err != nil {
			return out, err
		}
		if config != nil {
			out.config = *config
		}
		out.state = *st
		return out, nil
	}

	named, err := reference.ParseNormalizedNamed(ref.Name)
	if err != nil {
		return out, err
	}
	name := reference.TagNameOnly(named).String()
	// Not ResolveImageConfig: it forgets the resolve mode of --pull.
	res, err := b.client.ResolveSourceMetadata(ctx, &pb.SourceOp{Identifier: "docker-image://" + name}, sourceresolver.Opt{
		LogName:  "[" + ref.Section + "] load metadata for " + name,
		ImageOpt: &sourceresolver.ResolveImageOpt{Platform: &p, ResolveMode: mode},
	})
	if err != nil {
		return out, err
	}
	if res.Image == nil {
		return out, fmt.Errorf("a source policy turns it into %s, which is no image", res.Op.GetIdentifier())
	}
	if err := json.Unmarshal(res.Image.Config, &out.config); err != nil {
		return out, fmt.Errorf("read its configuration: %w", err)
	}
	out.digest = res.Image.Digest
	pinned, err := reference.WithDigest(reference.TrimNamed(named), out.digest)
	if err != nil {
		return out, err
	}
	out.state = llb.Image(pinned.String(), llb.Platform(p), llb.WithCustomName("["+ref.Section+"] "+name+"@"+out.digest.String()))
	return out, nil
}
