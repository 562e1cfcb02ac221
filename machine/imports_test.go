package machine_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// The package must stay pure: what it imports cannot reach BuildKit, the network
// or other programs.
func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	imports := strings.Fields(string(out))
	if !slices.Contains(imports, "github.com/slipway-build/slipway/internal/schema") {
		t.Fatalf("not the imports of this package: %v", imports)
	}
	for _, path := range imports {
		if path == "net" || path == "os/exec" || strings.HasPrefix(path, "github.com/moby/") || strings.HasPrefix(path, "github.com/containerd/") {
			t.Errorf("imports %s", path)
		}
	}
}
