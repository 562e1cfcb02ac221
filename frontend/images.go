package frontend

import (
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/frontend/dockerui"
	"github.com/moby/buildkit/solver/pb"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	graph "github.com/slipway-build/slipway/llb"
	"github.com/slipway-build/slipway/machine"
)

// An image is what a reference of the machine YAML resolves to.
type image struct {
	state  llb.State     // the root filesystem
	pinned bool          // state is named by the digest of its manifest
	layers []graph.Blob  // the same as layers, bottom first; nil if they are not available
	blobs  *blobStore    // of an OCI layout; nil for other images
	digest digest.Digest // of the manifest or index that the reference names; empty if unknown
	config dockerspec.DockerOCIImage
	named  reference.Named // its name in the registry; nil if it is in none
}

func (i image) rootfs() graph.Rootfs {
	return graph.Rootfs{State: i.state, Pinned: i.pinned, Layers: i.layers}
}

// images maps canonical references to images.
type images map[string]image

func (im images) sources() map[string]graph.Rootfs {
	out := make(map[string]graph.Rootfs, len(im))
	for name, i := range im {
		out[name] = i.rootfs()
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

// decompressorsLabel is a label of a kernel image. It lists the compression
// algorithms that the kernel accepts for an initramfs.
const decompressorsLabel = "build.slipway.kernel.initramfs"

// compression returns the best algorithm that the kernel decompresses: zstd,
// unless a label of its image excludes it.
func (im images) compression(k *machine.KernelFiles) string {
	if k == nil {
		return "zstd"
	}
	label, ok := im[k.Image].config.Config.Labels[decompressorsLabel]
	if !ok {
		return "zstd"
	}
	supported := strings.FieldsFunc(label, func(r rune) bool { return r == ',' || r == ' ' })
	for _, algorithm := range []string{"zstd", "gzip"} {
		if slices.Contains(supported, algorithm) {
			return algorithm
		}
	}
	return "none"
}

// A resolver resolves the references of a machine YAML to images.
type resolver struct {
	req  *request
	lock *lockFile // nil if there is none
}

// newResolver returns a resolver that honors the lock beside the machine YAML.
func (r *request) newResolver(ctx context.Context) (*resolver, error) {
	lock, err := readLock(ctx, r.gateway, r.sources.main())
	if err != nil {
		return nil, err
	}
	return &resolver{req: r, lock: lock}, nil
}

// resolvedMachine is a machine for one platform.
type resolvedMachine struct {
	platform ocispecs.Platform
	plan     *machine.Plan
	images   images
	warnings machine.Diagnostics
}

// resolveMachine resolves the images of a machine and plans it.
func (r *resolver) resolveMachine(ctx context.Context, m *machine.Machine, p ocispecs.Platform) (*resolvedMachine, error) {
	if len(m.ArgValues()) == 0 { // other values may select other images
		if err := r.lock.checkUnused(r.req.registryRefs(m)); err != nil {
			return nil, err
		}
	}
	images, err := r.resolve(ctx, m.ImageRefs(), p)
	if err != nil {
		return nil, err
	}
	plan, err := m.Plan(images.configs())
	if err != nil {
		return nil, err
	}
	return &resolvedMachine{platform: p, plan: plan, images: images, warnings: slices.Concat(r.req.warnings(m), plan.Warnings)}, nil
}

// resolve resolves all references concurrently. The error lists every reference
// that fails, with its line.
func (r *resolver) resolve(ctx context.Context, refs []machine.ImageRef, p ocispecs.Platform) (images, error) {
	found := make([]image, len(refs))
	errs := make([]error, len(refs))
	var all sync.WaitGroup
	for i, ref := range refs {
		all.Go(func() { found[i], errs[i] = r.resolveOne(ctx, ref, p) })
	}
	all.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	out := make(images, len(refs))
	var diags machine.Diagnostics
	for i, ref := range refs {
		if errs[i] != nil {
			diags = append(diags, r.req.sources.imageError(ref, errs[i]))
			continue
		}
		out[ref.Name] = found[i]
	}
	return out, sorted(diags)
}

// imageError returns an error about the line that names an image.
func (s sources) imageError(ref machine.ImageRef, err error) machine.Diagnostic {
	return s.errorAt(ref.Range, "image %s: %v", ref.Text, err)
}

// packageScheme starts a reference to a package folder.
const packageScheme = "@pkg:"

// resolveOne resolves a reference and makes its files available to the graph.
func (r *resolver) resolveOne(ctx context.Context, ref machine.ImageRef, p ocispecs.Platform) (image, error) {
	if strings.HasPrefix(ref.Name, packageScheme) {
		return r.buildPackage(ctx, ref, p)
	}
	out, err := r.find(ctx, ref, p)
	if err != nil || out.blobs == nil {
		return out, err
	}
	// Layers are better than the unpacked image: they keep device nodes that the
	// snapshots of a rootless builder cannot hold, and BuildKit writes nothing
	// twice. Only OCI layouts serve them, because registries do not serve manifests
	// as blobs.
	if r.req.builder.use(pb.CapSourceImageBlob) {
		out.layers, err = r.layers(ctx, out, p)
	}
	return out, err
}

// find finds an image for a platform. If there is none, the error lists the
// platforms for which the image exists.
func (r *resolver) find(ctx context.Context, ref machine.ImageRef, p ocispecs.Platform) (image, error) {
	out, err := r.locate(ctx, ref, p)
	return out, r.req.checkPlatform(ctx, p, out.config.Platform, err, func(ctx context.Context, p ocispecs.Platform) (ocispecs.Platform, error) {
		out, err := r.locate(ctx, ref, p)
		return out.config.Platform, err
	})
}

// locate finds an image: in the named context that replaces it, or else in its
// registry.
func (r *resolver) locate(ctx context.Context, ref machine.ImageRef, p ocispecs.Platform) (image, error) {
	scheme, value := r.req.namedContext(ref.Name, p)
	switch {
	case scheme == "":
		named, err := r.pin(ref)
		if err != nil {
			return image{}, err
		}
		return r.registryImage(ctx, ref, named, p)
	case scheme == "docker-image" && value != dockerui.EmptyImageName:
		named, err := reference.ParseNormalizedNamed(value)
		if err != nil {
			return image{}, err
		}
		return r.registryImage(ctx, ref, named, p)
	}
	out, err := r.contextImage(ctx, ref, p)
	if err != nil || scheme != "oci-layout" {
		return out, err
	}
	stored, err := parseLayout(value)
	if err != nil {
		return out, err
	}
	out.blobs = &blobStore{r.req.ui.BuildOpts().SessionID, stored.Name()}
	return out, nil
}

// contextImage loads an image from the named context of its name.
func (r *resolver) contextImage(ctx context.Context, ref machine.ImageRef, p ocispecs.Platform) (image, error) {
	var out image
	nc, err := r.req.ui.NamedContext(ref.Name, dockerui.ContextOpt{
		NoDockerignore: true, Platform: &p, CaptureDigest: &out.digest,
	})
	if err != nil {
		return out, err
	}
	st, config, err := loadNamed(ctx, nc)
	if err != nil {
		return out, err
	}
	out.state = *st
	if config != nil {
		out.config = *config
	}
	return out, nil
}

// pin parses a reference and adds the digest from the lock.
func (r *resolver) pin(ref machine.ImageRef) (reference.Named, error) {
	named, err := reference.ParseNormalizedNamed(ref.Name)
	if err != nil || r.lock == nil {
		return named, err
	}
	d, err := r.lock.digest(ref)
	if err != nil {
		return nil, err
	}
	return reference.WithDigest(named, d)
}
