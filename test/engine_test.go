package test

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/internal/testutil/engine"
	"github.com/slipway-build/slipway/internal/testutil/stack"
)

// startEngine starts a Docker Engine that the test stops.
func startEngine(t *testing.T, store engine.Store, settings map[string]any) *engine.Engine {
	t.Helper()
	e, err := engine.Start(t.Context(), store, settings)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(e.Log())
		}
		if err := e.Stop(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// docker runs docker on an Engine and fails the test if it fails.
func docker(t *testing.T, e *engine.Engine, dir string, args ...string) string {
	t.Helper()
	cmd := e.Command(t.Context(), dir, "docker", args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("docker %q: %v\n%s", args, err, stderr.String())
	}
	return string(out)
}

// TestEngine builds on a real Docker Engine, through its docker driver, with
// each of its image stores.
func TestEngine(t *testing.T) {
	stack.Require(t)
	want := digest(t, awsDisk(t))
	for _, store := range []engine.Store{engine.Classic, engine.Containerd} {
		t.Run(string(store), func(t *testing.T) {
			e := startEngine(t, store, nil)
			t.Run("same bytes", func(t *testing.T) {
				dir := t.TempDir()
				docker(t, e, "..", "buildx", "build", "-f", "examples/aws.yml", "--target", "raw", "--build-arg", "SIZE=100M", "-o", dir, ".")
				if got := digest(t, filepath.Join(dir, "aws.raw")); got != want {
					t.Errorf("aws.raw is %s, on the stack's buildkitd %s", got, want)
				}
			})
		})
	}
}

// digest returns the SHA-256 digest of a file in hexadecimal.
func digest(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.Command("sha256sum", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(out))[0]
}
