package test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipway-build/slipway/internal/testutil/stack"
	"github.com/slipway-build/slipway/internal/vm"
)

// TestContainerDisk pushes a container disk for two architectures with plain
// buildx, and pulls and unpacks it with ORAS and tar, as KubeVirt's node would.
// With -boot, it boots the disk.
func TestContainerDisk(t *testing.T) {
	stack.Require(t)
	args := append(formatImages(t)["amd64"], "--build-context=slipwaybuild/kernel:v1=docker-image://"+kernels(t))
	dir := machineYAML(t, formatMachine("console=ttyAMA0 console=ttyS0 panic=-1"))
	ref := stack.Registry + "/test/containerdisk:v1"
	args = append(args, "-f", "machine.yml", "--platform=linux/amd64,linux/arm64", "--target=containerdisk", "-t", ref, "--push", ".")
	if _, stderr, err := stack.Buildx(dir, args...); err != nil {
		t.Fatalf("build: %v\n%s", err, stderr)
	}
	output := func(name string, args ...string) []byte {
		t.Helper()
		out, err := exec.Command(name, args...).Output()
		if err != nil {
			t.Fatalf("%s %q: %v", name, args, err)
		}
		return out
	}
	oras := stack.File(t, "oras")
	for _, architecture := range []string{"amd64", "arm64"} {
		layout := filepath.Join(dir, architecture)
		output(oras, "copy", "--from-plain-http", "--to-oci-layout", "--platform", "linux/"+architecture, ref, layout+":v1")
		blob := func(digest string) string {
			return filepath.Join(layout, "blobs", "sha256", strings.TrimPrefix(digest, "sha256:"))
		}
		var index ocispecs.Index
		readJSON(t, filepath.Join(layout, "index.json"), &index)
		var manifest ocispecs.Manifest
		readJSON(t, blob(index.Manifests[0].Digest.String()), &manifest)
		var config ocispecs.Image
		readJSON(t, blob(manifest.Config.Digest.String()), &config)
		if config.Architecture != architecture || config.OS != "linux" || len(config.Config.Entrypoint)+len(config.Config.Env) != 0 || len(manifest.Layers) != 1 {
			t.Errorf("%s: %+v with the layers %v", architecture, config, manifest.Layers)
		}
		layer := blob(manifest.Layers[0].Digest.String())
		var files []string
		for line := range strings.Lines(string(output("tar", "--numeric-owner", "-tvzf", layer))) {
			fields := strings.Fields(line)
			files = append(files, strings.Join([]string{fields[0], fields[1], fields[len(fields)-1]}, " "))
		}
		if want := []string{"drwxr-xr-x 0/0 disk/", "-r--r----- 107/107 disk/machine.qcow2"}; !slices.Equal(files, want) {
			t.Errorf("%s: the files are %q, want %q", architecture, files, want)
		}
		output("tar", "--no-same-owner", "-C", layout, "-xzf", layer)
	}
	if !*bootAll {
		return
	}
	reportOf(t, runToEnd(t, vm.Config{
		Disk: filepath.Join(dir, "amd64", "disk", "machine.qcow2"), DiskFormat: "qcow2",
		Memory: 512, NoNetwork: true, LogDir: stack.Artifacts(t),
	}))
}

// kernels pushes an image with the kernels of formatImages for both architectures.
func kernels(t *testing.T) string {
	t.Helper()
	var index v1.ImageIndex = empty.Index
	for architecture, image := range map[string]string{"amd64": "slipwaybuild/kernel:v1", "arm64": "test/formats-kernel"} {
		platform := v1.Platform{OS: "linux", Architecture: architecture}
		ref, err := name.ParseReference(stack.Registry + "/" + image)
		if err != nil {
			t.Fatal(err)
		}
		kernel, err := remote.Image(ref, remote.WithPlatform(platform))
		if err != nil {
			t.Fatal(err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: kernel, Descriptor: v1.Descriptor{Platform: &platform}})
	}
	ref, err := name.ParseReference(stack.Registry + "/test/containerdisk-kernel")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(ref, index); err != nil {
		t.Fatal(err)
	}
	return ref.Name()
}

func readJSON(t *testing.T, name string, value any) {
	t.Helper()
	data, err := os.ReadFile(name)
	if err == nil {
		err = json.Unmarshal(data, value)
	}
	if err != nil {
		t.Fatal(err)
	}
}
