package main

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"

	"github.com/google/go-containerregistry/pkg/compression"
	"github.com/google/go-containerregistry/pkg/crane"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sync/errgroup"
)

// images are the images of examples/aws.yml, with all kernel modules and with
// two versions of kernel and sshd.
type images struct {
	yaml         string
	all          []v1.Image // in the first versions
	kernel, sshd [2]v1.Image
	registry     string
}

func makeImages(ctx context.Context, registry string) (images, error) {
	im := images{registry: registry}
	text, err := os.ReadFile("examples/aws.yml")
	if err != nil {
		return im, err
	}
	im.yaml = strings.NewReplacer("/kernel:v1", "/bench-kernel:v1", "/sshd:v1", "/bench-sshd:v1").Replace(string(text))
	im.yaml = regexp.MustCompile(`(?m)^#.*\n`).ReplaceAllString(im.yaml, "")
	for i := range im.kernel {
		tag := fmt.Sprintf("%s/slipwaybuild/bench-kernel:%d", registry, i)
		if err := run(ctx, "docker", "buildx", "build", "--builder", os.Getenv("BUILDX_BUILDER"), "--provenance=false",
			"--output", "type=registry,compression=zstd,force-compression=true", "--build-arg", fmt.Sprintf("VERSION=%d", i), "--tag", tag, "hack/bench"); err != nil {
			return im, err
		}
		if im.kernel[i], err = im.get(ctx, fmt.Sprintf("slipwaybuild/bench-kernel:%d", i)); err != nil {
			return im, err
		}
	}
	sshd, err := im.get(ctx, "slipwaybuild/sshd:v1")
	if err != nil {
		return im, err
	}
	for i := range im.sshd {
		if im.sshd[i], err = version(sshd, i); err != nil {
			return im, err
		}
	}
	if err := im.tag(ctx, 0, 0); err != nil {
		return im, err
	}
	for _, match := range regexp.MustCompile(`slipwaybuild/\S+`).FindAllString(im.yaml, -1) {
		image, err := im.get(ctx, match)
		if err != nil {
			return im, err
		}
		im.all = append(im.all, image)
	}
	return im, nil
}

func (im images) get(ctx context.Context, ref string) (v1.Image, error) {
	r, err := name.ParseReference(im.registry+"/"+ref, name.Insecure)
	if err != nil {
		return nil, err
	}
	return remote.Image(r, remote.WithContext(ctx))
}

func push(ctx context.Context, ref string, image v1.Image) error {
	r, err := name.ParseReference(ref, name.Insecure)
	if err != nil {
		return err
	}
	return remote.Write(r, image, remote.WithContext(ctx))
}

// tag moves the tags v1 of sshd and kernel to the given versions.
func (im images) tag(ctx context.Context, sshd, kernel int) error {
	if err := push(ctx, im.registry+"/slipwaybuild/bench-sshd:v1", im.sshd[sshd]); err != nil {
		return err
	}
	return push(ctx, im.registry+"/slipwaybuild/bench-kernel:v1", im.kernel[kernel])
}

// version returns an image with one more file, squashed into one layer as a
// rebuilt image would be.
func version(image v1.Image, version int) (v1.Image, error) {
	more, err := crane.Layer(map[string][]byte{"etc/version": fmt.Appendln(nil, version)})
	if err != nil {
		return nil, err
	}
	if image, err = mutate.AppendLayers(image, more); err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	flat := mutate.Extract(image)
	defer flat.Close()
	data, err := io.ReadAll(flat)
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil },
		tarball.WithMediaType(types.OCILayerZStd), tarball.WithCompression(compression.ZStd))
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.History, config.RootFS = nil, v1.RootFS{Type: "layers"}
	base, err := mutate.ConfigFile(mutate.MediaType(empty.Image, types.OCIManifestSchema1), config)
	if err != nil {
		return nil, err
	}
	return mutate.AppendLayers(base, layer)
}

// small returns a version of a small image: a program and its configuration,
// about 20 kB.
func small(number, version int) (v1.Image, error) {
	var layer bytes.Buffer
	archive := tar.NewWriter(&layer)
	program := bytes.Repeat(fmt.Appendf(nil, "%d %d\n", number, version), 4000)
	for _, f := range []struct {
		name    string
		content []byte
	}{{"bin/program", program}, {"etc/program.conf", program[:1000]}} {
		if err := archive.WriteHeader(&tar.Header{Name: f.name, Mode: 0o755, Size: int64(len(f.content))}); err != nil {
			return nil, err
		}
		if _, err := archive.Write(f.content); err != nil {
			return nil, err
		}
	}
	if err := archive.Close(); err != nil {
		return nil, err
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer.Bytes())), nil },
		tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	base, err := mutate.Config(mutate.MediaType(empty.Image, types.OCIManifestSchema1), v1.Config{Entrypoint: []string{"/bin/program"}})
	if err != nil {
		return nil, err
	}
	return mutate.AppendLayers(base, l)
}

// tagSmall pushes the given version of the first small images.
func (im images) tagSmall(ctx context.Context, registry string, count, version int) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(4)
	for i := range count {
		group.Go(func() error {
			image, err := small(i, version)
			if err != nil {
				return err
			}
			return push(ctx, fmt.Sprintf("%s/slipwaybuild/bench-small-%03d:v1", registry, i), image)
		})
	}
	return group.Wait()
}

func smallYAML(count int) string {
	var b strings.Builder
	b.WriteString("services:\n")
	for i := range count {
		fmt.Fprintf(&b, "  - name: small-%03d\n    image: slipwaybuild/bench-small-%03d:v1\n", i, i)
	}
	return b.String()
}
