package squashfs

import (
	"testing"

	"github.com/slipway-build/slipway/exporter/tree"
	"github.com/slipway-build/slipway/internal/testutil/treetest"
)

// FuzzWrite checks that unsquashfs accepts every image, and extracts what was
// written.
func FuzzWrite(f *testing.F) {
	treetest.FuzzWriter(f, "unsquashfs", "squashfs-tools", func(t *testing.T, entries []tree.Entry, dir string) []string {
		return []string{"-no-progress", "-d", dir, writeImage(t, entries, compressions["gzip"])}
	}, func(*tree.Entry) bool {
		return true
	})
}
