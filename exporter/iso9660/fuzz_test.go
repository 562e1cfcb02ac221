package iso9660

import (
	"path"
	"testing"

	"github.com/slipway-build/slipway/exporter/tree"
	"github.com/slipway-build/slipway/internal/testutil/treetest"
)

// FuzzWrite checks that xorriso accepts every image, and extracts what was
// written.
func FuzzWrite(f *testing.F) {
	treetest.FuzzWriter(f, "xorriso", "xorriso", func(t *testing.T, entries []tree.Entry, dir string) []string {
		return []string{
			"-hardlinks", "on", "-indev", writeImage(t, entries, options),
			"-osirrox", "on:device_files:sort_lba_off", "-hardlinks", "normal_extract", "-extract", "/", dir,
		}
	}, func(e *tree.Entry) bool {
		e.Xattrs = nil                      // the format has none
		return e.Link == path.Clean(e.Link) // xorriso changes other targets
	})
}
