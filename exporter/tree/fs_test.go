package tree_test

import (
	"io/fs"
	"testing"
	"testing/fstest"

	"github.com/slipway-build/slipway/exporter/tree"
)

func TestFS(t *testing.T) {
	f := tree.NewFS([]tree.Entry{
		tree.NewFile("dir/file", 0o644, "content"), tree.NewFile("empty", 0o600, ""), tree.NewDir("dir/sub"),
		tree.NewSymlink("link", "/dir/../dir"), tree.NewSymlink("dir/up", "../../../empty"),
		tree.NewSymlink("loop", "loop"), tree.NewSymlink("gone", "x/y"),
	})
	for name, want := range map[string]string{"link/file": "content", "dir/up": "", "dir/file": "content"} {
		if data, err := fs.ReadFile(f, name); err != nil || string(data) != want {
			t.Errorf("%s: %q, %v", name, data, err)
		}
	}
	for _, name := range []string{"loop", "gone", "dir/file/x", "../x", "/dir"} {
		if _, err := f.Open(name); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	// fstest does not know that links without a target are an error.
	f = tree.NewFS([]tree.Entry{tree.NewFile("dir/file", 0o644|tree.SetUID, "content"), tree.NewFile("empty", 0o600, ""), tree.NewDir("dir/sub")})
	if err := fstest.TestFS(f, "dir/file", "empty", "dir/sub"); err != nil {
		t.Error(err)
	}
}
