package squashfs

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/slipway-build/slipway/exporter/tree"
	"github.com/slipway-build/slipway/internal/testutil/need"
	"github.com/slipway-build/slipway/internal/testutil/treetest"
)

// FuzzWrite checks that unsquashfs accepts every image, and extracts what was
// written.
func FuzzWrite(f *testing.F) {
	need.Program(f, "unsquashfs", "squashfs-tools")
	need.Root(f)
	for _, script := range treetest.Scripts {
		f.Add(script)
	}
	f.Fuzz(func(t *testing.T, script string) {
		want := treetest.Script(t, script)
		if want == nil {
			return
		}
		image := writeImage(t, want, compressions["gzip"])
		dir := filepath.Join(t.TempDir(), "root")
		if out, err := exec.Command("unsquashfs", "-no-progress", "-d", dir, image).CombinedOutput(); err != nil {
			t.Fatalf("unsquashfs: %v\n%s", err, out)
		}
		got, err := tree.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		treetest.Equal(t, want, got)
	})
}
