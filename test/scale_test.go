package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/internal/testutil/stack"
)

// A machine with 4,000 services and 20,000 files builds, although what is
// generated for it is larger than a message of BuildKit.
func TestLargeMachine(t *testing.T) {
	stack.Require(t)
	const services, files = 4_000, 20_000
	var b strings.Builder
	b.WriteString("kernel:\n  image: slipwaybuild/kernel:v1\ninit:\n  - slipwaybuild/init:v1\nservices:\n")
	for i := range services {
		fmt.Fprintf(&b, "  - {name: s%d, image: slipwaybuild/rngd:v1}\n", i)
	}
	b.WriteString("files:\n")
	for i := range files {
		fmt.Fprintf(&b, "  - {path: etc/d/%d, contents: x}\n", i)
	}
	dir := machineYAML(t, b.String())
	_, stderr, err := stack.Buildx(dir, "--progress=plain", "-f", "machine.yml", "--target=kernel+initrd,tar", "-o", "out", ".")
	if err != nil {
		t.Fatalf("%.4000s", stderr)
	}
	got := tree(t, filepath.Join(dir, "out", "machine.tar"))
	for i := range files {
		if got[fmt.Sprintf("etc/d/%d", i)] != "x" {
			t.Fatalf("file %d has %q", i, got[fmt.Sprintf("etc/d/%d", i)])
		}
	}
	for i := range services {
		if !strings.Contains(got[fmt.Sprintf("containers/services/s%d/config.json", i)], "ociVersion") {
			t.Fatalf("service %d has no configuration", i)
		}
	}
	if info, err := os.Stat(filepath.Join(dir, "out", "machine-initrd.img")); err != nil || info.Size() < 1<<20 {
		t.Errorf("initrd: %v, %v", info, err)
	}
}
