package erofs

import (
	"testing"

	"github.com/slipway-build/slipway/exporter/tree"
	"github.com/slipway-build/slipway/internal/testutil/treetest"
)

// FuzzWrite checks that fsck.erofs accepts every image, and extracts what was
// written.
func FuzzWrite(f *testing.F) {
	treetest.FuzzWriter(f, "fsck.erofs", "erofs-utils", func(t *testing.T, entries []tree.Entry, dir string) []string {
		return []string{"--extract=" + dir, "--preserve", writeImage(t, entries)}
	}, func(e *tree.Entry) bool {
		e.Xattrs, e.Inode = nil, 0 // fsck.erofs 1.5 does not extract these
		return true
	})
}
