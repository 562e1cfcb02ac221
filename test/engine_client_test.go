package test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/internal/testutil/engine"
	"github.com/slipway-build/slipway/internal/testutil/stack"
)

// TestEngineImages builds images with slipway build for a Docker Engine, inside
// of it and beside it.
func TestEngineImages(t *testing.T) {
	stack.Require(t)
	root, err := stack.Root()
	if err != nil {
		t.Fatal(err)
	}
	program, err := command()
	if err != nil {
		t.Fatal(err)
	}
	for _, store := range []engine.Store{engine.Classic, engine.Containerd} {
		t.Run(string(store), func(t *testing.T) {
			e := startEngine(t, engine.Config{Store: store})
			dir := machineYAML(t, "init:\n  - slipwaybuild/ca-certificates:v1\n")
			for _, c := range []struct{ name, output, builder string }{
				{"test/image", "type=image,name=test/image", ""},
				{"test/docker:v1", "type=docker,name=test/docker:v1", ""},
				{"test/load", "type=docker,name=test/load", "unix://" + filepath.Join(root, ".stack", "buildkitd.sock")},
			} {
				out, err := e.Command(t.Context(), dir, program, "build", "--progress=quiet", "--builder", c.builder, "--format=docker", "-o", c.output, "machine.yml").CombinedOutput()
				if err != nil || len(out) > 0 {
					t.Errorf("%s: %v\n%s", c.output, err, out)
					continue
				}
				if id := docker(t, e, dir, "image", "inspect", "--format", "{{.Architecture}}", c.name); strings.TrimSpace(id) != "amd64" {
					t.Errorf("%s: the image is for %q", c.output, id)
				}
			}
		})
	}
}
