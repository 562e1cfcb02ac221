package test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/slipway-build/slipway/internal/testutil/stack"
)

// command builds slipway once and returns its path.
var command = sync.OnceValues(func() (string, error) {
	program, err := filepath.Abs("../out/test/slipway")
	if err != nil {
		return "", err
	}
	out, err := exec.Command("go", "build", "-o", program, "../cmd/slipway").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, out)
	}
	return program, err
})

// slipway runs slipway in a directory with the builder of the tests.
func slipway(t *testing.T, dir string, args ...string) (stdout, stderr string, exit int) {
	t.Helper()
	program, err := command()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "BUILDX_BUILDER="+stack.Builder)
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &e
	var failed *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &failed) {
		t.Fatal(err)
	}
	return o.String(), e.String(), cmd.ProcessState.ExitCode()
}
