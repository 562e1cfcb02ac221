package vm

import (
	"net"
	"os"
	"path/filepath"
	"testing"
)

// RequireStack skips a test that needs the local stack when that is not running. In CI it must run.
func RequireStack(t testing.TB) {
	t.Helper()
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("unix", filepath.Join(root, ".stack", "buildkitd.sock"))
	switch {
	case err == nil:
		conn.Close()
	case os.Getenv("CI") != "":
		t.Fatalf("the local stack is not running: %v", err)
	default:
		t.Skipf("the local stack is not running, make images starts it: %v", err)
	}
}
