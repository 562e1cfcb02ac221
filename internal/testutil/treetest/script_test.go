package treetest

import "testing"

// TestScripts checks that the texts describe trees: fuzz targets ignore others.
func TestScripts(t *testing.T) {
	for _, script := range Scripts {
		if entries := Script(t, script); len(entries) < 5 {
			t.Errorf("%q describes %d files", script, len(entries))
		}
	}
	if entries := Script(t, "f ../x y"); entries != nil {
		t.Errorf("a path outside of the tree: %v", entries)
	}
}
