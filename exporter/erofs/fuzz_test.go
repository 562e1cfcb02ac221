package erofs

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/slipway-build/slipway/exporter/tree"
	"github.com/slipway-build/slipway/internal/testutil/need"
	"github.com/slipway-build/slipway/internal/testutil/treetest"
)

// FuzzWrite checks that fsck.erofs accepts every image, and extracts what was
// written.
func FuzzWrite(f *testing.F) {
	need.Program(f, "fsck.erofs", "erofs-utils")
	need.Root(f)
	for _, script := range treetest.Scripts {
		f.Add(script)
	}
	f.Fuzz(func(t *testing.T, script string) {
		want := treetest.Script(t, script)
		if want == nil {
			return
		}
		image := writeImage(t, want)
		dir := filepath.Join(t.TempDir(), "root")
		if out, err := exec.Command("fsck.erofs", "--extract="+dir, "--preserve", image).CombinedOutput(); err != nil {
			t.Fatalf("fsck.erofs: %v\n%s", err, out)
		}
		for i := range want {
			// fsck.erofs 1.5 does not extract these.
			want[i].Xattrs, want[i].Inode = nil, 0
		}
		got, err := tree.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		treetest.Equal(t, want, got)
	})
}
