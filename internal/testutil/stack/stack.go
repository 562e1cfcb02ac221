// Package stack finds the local stack that hack/stack starts (a buildkitd, a
// registry and a docker buildx builder) and builds with it.
package stack

import (
	"bytes"
	"cmp"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/slipway-build/slipway/internal/testutil/need"
)

// Builder is the name of the docker buildx builder; default: slipway.
var Builder = cmp.Or(os.Getenv("BUILDX_BUILDER"), "slipway")

// Registry is the address of the stack's registry, which holds the packages
// and the frontend.
var Registry = "localhost:" + cmp.Or(os.Getenv("STACK_PORT"), "5000")

// Root returns the root of the checkout: the nearest directory at or above the
// working directory that has a go.mod.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("found no go.mod in the working directory or above it: run this inside the checkout")
		}
		dir = filepath.Dir(dir)
	}
}

// File returns the path of a file that hack/stack or make test creates, for
// example File(t, "kernel", "kernel"). The test requires the file, see [need].
func File(t testing.TB, elem ...string) string {
	t.Helper()
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(append([]string{root, ".stack"}, elem...)...)
	if _, err := os.Stat(path); err != nil {
		need.Missing(t, "%v: run make test, which creates it", err)
	}
	return path
}

// Require fails the test if the stack does not run. It skips the test with
// -short.
func Require(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("requires the local stack")
	}
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("unix", filepath.Join(root, ".stack", "buildkitd.sock"))
	if err != nil {
		t.Fatalf("the local stack does not run: start it with make images: %v", err)
	}
	conn.Close()
}

// Buildx runs docker buildx build on Builder in the directory dir.
func Buildx(dir string, args ...string) (stdout, stderr string, err error) {
	cmd := exec.Command("docker", append([]string{"buildx", "build", "--builder", Builder}, args...)...)
	cmd.Dir = dir
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &e
	err = cmd.Run()
	return o.String(), e.String(), err
}

// MustBuildx is like Buildx but fails the test if the build fails.
func MustBuildx(t testing.TB, dir string, args ...string) {
	t.Helper()
	if _, stderr, err := Buildx(dir, args...); err != nil {
		t.Fatalf("docker buildx build %q: %v\n%s", args, err, stderr)
	}
}

// Artifacts returns the directory for the logs of a test: below
// SLIPWAY_ARTIFACTS; default: out/test in the checkout.
func Artifacts(t testing.TB) string {
	t.Helper()
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(cmp.Or(os.Getenv("SLIPWAY_ARTIFACTS"), filepath.Join(root, "out", "test")), t.Name())
}
