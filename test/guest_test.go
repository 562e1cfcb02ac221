package test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/slipway-build/slipway/internal/vm"
)

// A guest is a running machine and the key for logins.
type guest struct {
	*vm.Machine
	key vm.Key
}

// run runs a command on the machine. The caller must check the exit status.
func (g *guest) run(t *testing.T, command string) vm.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	result, err := g.SSH(ctx, g.key, command)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// output returns the output of a command, which must succeed.
func (g *guest) output(t *testing.T, command string) string {
	t.Helper()
	result := g.run(t, command)
	if result.Exit != 0 {
		t.Fatalf("%s: exit %d, stdout %q, stderr %q", command, result.Exit, result.Stdout, result.Stderr)
	}
	return strings.TrimSpace(result.Stdout)
}

// inMachine returns a command for the sshd container that runs in the machine's
// own filesystem.
func inMachine(command string) string { return "nsenter --target 1 --mount " + command }
