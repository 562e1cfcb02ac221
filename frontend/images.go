package frontend

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/frontend/dockerui"
	"github.com/moby/buildkit/solver/pb"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	graph "github.com/slipway-build/slipway/llb"
	"github.com/slipway-build/slipway/machine"
)

// decompressorsLabel on a kernel image lists what that kernel's initramfs code
// unpacks, best first.
const decompressorsLabel = "build.slipway.kernel.initramfs"

type image struct {
	state  llb.State     // the root filesystem
	pinned bool          // state is named by the digest of its manifest
	layers []graph.Blob  // the same, bottom first, where they can be had
	store  *store        // of its blobs; nil if out of reach
	digest digest.Digest // of the manifest or index that the reference names
	config dockerspec.DockerOCIImage
	named  reference.Named // in its registry; nil if it is of none
}

// images holds what the machine's references stand for, by canonical name.
type images map[string]image

func (im images) sources() map[string]graph.Image {
	out := make(map[string]graph.Image, len(im))
	for name, i := range im {
		out[name] = graph.Image{Root: i.state, Pinned: i.pinned, Layers: i.layers}
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
	var all sync.WaitGroup
	for i, ref := range refs {
		all.Go(func() { found[i], failed[i] = b.resolveOne(ctx, ref, p) })
	}
	all.Wait()
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
	return out, sorted(diags)
}

// resolveOne takes a package folder or a named context of the same name before the registry.
func (b *builder) resolveOne(ctx context.Context, ref machine.ImageRef, p ocispecs.Platform) (image, error) {
	if strings.HasPrefix(ref.Name, "@pkg:") {
		return b.buildPackage(ctx, ref, p)
	}
	out, err := b.locateImage(ctx, ref, p)
	if err != nil || out.store == nil {
		return out, err
	}
	// The layers themselves serve better than the image unpacked: they keep what
	// a rootless builder's snapshots cannot hold, and nothing is written twice.
	// Registries would have to give manifests as blobs, which some refuse.
	switch {
	case out.store.layout:
		if b.can(pb.CapSourceImageBlob) {
			out.layers, err = b.layers(ctx, out, p)
		}
	case rootless():
		b.lose(devices)
	}
	return out, err
}

// locateImage resolves a reference.
func (b *builder) locateImage(ctx context.Context, ref machine.ImageRef, p ocispecs.Platform) (image, error) {
	scheme, value := b.namedContext(ref.Name, p)
	switch {
	case scheme == "":
		named, err := b.pin(ref)
		if err != nil {
			return image{}, err
		}
		return b.registryImage(ctx, ref, named, p)
	case scheme == "docker-image" && value != dockerui.EmptyImageName:
		named, err := reference.ParseNormalizedNamed(value)
		if err != nil {
			return image{}, err
		}
		return b.registryImage(ctx, ref, named, p)
	}

	var out image
	nc, err := b.ui.NamedContext(ref.Name, dockerui.ContextOpt{
		NoDockerignore: true, Platform: &p, CaptureDigest: &out.digest,
	})
	if err != nil {
		return out, err
	}
	st, config, err := nc.Load(ctx)
	if err != nil {
		return out, err
	}
	out.state = *st
	if config != nil {
		out.config = *config
	}
	if scheme != "oci-layout" {
		return out, nil
	}
	stored, err := reference.Parse(value)
	if err != nil {
		return out, err
	}
	named, ok := stored.(reference.Named)
	if !ok {
		return out, fmt.Errorf("OCI layout %s has no name", value)
	}
	out.store = layoutStore(b.ui.BuildOpts().SessionID, named.Name())
	return out, nil
}

// registryImage resolves an image of a registry, under the name that ref has in the YAML.
func (b *builder) registryImage(ctx context.Context, ref machine.ImageRef, named reference.Named, p ocispecs.Platform) (image, error) {
	var out image
	res, named, err := b.metadata(ctx, ref, named, sourceresolver.ResolveImageOpt{Platform: &p})
	if err != nil {
		return out, err
	}
	if err := json.Unmarshal(res.Config, &out.config); err != nil {
		return out, fmt.Errorf("read its configuration: %w", err)
	}
	out.digest = res.Digest
	title, err := reference.WithDigest(reference.TagNameOnly(named), out.digest)
	if err != nil {
		return out, err
	}
	pinned := reference.TrimNamed(named).String() + "@" + out.digest.String()
	out.state = llb.Image(pinned, llb.Platform(p), llb.WithCustomName("["+ref.Section+"] "+title.String()))
	out.store = registryStore(reference.TrimNamed(named))
	out.named = named
	return out, nil
}

// metadata asks the registry for an image. Its name comes back, which a source
// policy may have changed.
func (b *builder) metadata(ctx context.Context, ref machine.ImageRef, named reference.Named, opt sourceresolver.ResolveImageOpt) (*sourceresolver.ResolveImageResponse, reference.Named, error) {
	opt.ResolveMode = b.ui.BuildOpts().Opts["image-resolve-mode"]
	name := reference.TagNameOnly(named).String()
	// Not ResolveImageConfig: it forgets the resolve mode of --pull.
	res, err := b.client.ResolveSourceMetadata(ctx, &pb.SourceOp{Identifier: "docker-image://" + name}, sourceresolver.Opt{
		LogName:  "[" + ref.Section + "] load metadata for " + name,
		ImageOpt: &opt,
	})
	if err != nil {
		return nil, nil, err
	}
	id, ok := strings.CutPrefix(res.Op.GetIdentifier(), "docker-image://")
	if !ok || res.Image == nil {
		return nil, nil, fmt.Errorf("a source policy turns it into %s, which is no image", res.Op.GetIdentifier())
	}
	named, err = reference.ParseNormalizedNamed(id)
	return res.Image, named, err
}

// namedContext gives scheme and value of the named context that stands for an
// image, or nothing.
func (b *builder) namedContext(name string, p ocispecs.Platform) (scheme, value string) {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return "", ""
	}
	key := "context:" + strings.TrimSuffix(reference.FamiliarString(named), ":latest")
	opts := b.ui.BuildOpts().Opts
	text, ok := opts[key+"::"+platforms.FormatAll(p)]
	if !ok {
		text = opts[key]
	}
	scheme, value, _ = strings.Cut(text, ":")
	return scheme, strings.TrimPrefix(value, "//")
}
