package iso9660

import (
	"os/exec"
	"path"
	"path/filepath"
	"testing"

	"github.com/slipway-build/slipway/exporter/tree"
	"github.com/slipway-build/slipway/internal/testutil/need"
	"github.com/slipway-build/slipway/internal/testutil/treetest"
)

// FuzzWrite checks that xorriso accepts every image, and extracts what was
// written.
func FuzzWrite(f *testing.F) {
	need.Program(f, "xorriso", "xorriso")
	need.Root(f)
	for _, script := range treetest.Scripts {
		f.Add(script)
	}
	f.Fuzz(func(t *testing.T, script string) {
		want := treetest.Script(t, script)
		if want == nil {
			return
		}
		image := writeImage(t, want, options)
		dir := filepath.Join(t.TempDir(), "root")
		if out, err := exec.Command("xorriso", "-hardlinks", "on", "-indev", image, "-osirrox", "on:device_files:sort_lba_off", "-hardlinks", "normal_extract", "-extract", "/", dir).CombinedOutput(); err != nil {
			t.Fatalf("xorriso: %v\n%s", err, out)
		}
		for i := range want {
			want[i].Xattrs = nil // the format has none
			if want[i].Link != path.Clean(want[i].Link) {
				return // xorriso changes the target
			}
		}
		got, err := tree.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		treetest.Equal(t, want, got)
	})
}
