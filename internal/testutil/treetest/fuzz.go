package treetest

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/slipway-build/slipway/exporter/tree"
	"github.com/slipway-build/slipway/internal/testutil/need"
)

// FuzzWriter fuzzes a writer of a file system: a program, of a package of Debian,
// must accept every image and extract what was written. The function extract
// writes entries to an image and returns the arguments that extract it to the
// directory dir. The function kept removes from an entry what the program does
// not extract; it reports false if the entry cannot be compared.
func FuzzWriter(f *testing.F, program, debian string, extract func(t *testing.T, entries []tree.Entry, dir string) []string, kept func(*tree.Entry) bool) {
	need.Program(f, program, debian)
	need.Root(f)
	for _, script := range Scripts {
		f.Add(script)
	}
	f.Fuzz(func(t *testing.T, script string) {
		want := Script(t, script)
		if want == nil {
			return
		}
		dir := filepath.Join(t.TempDir(), "root")
		if out, err := exec.Command(program, extract(t, want, dir)...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", program, err, out)
		}
		for i := range want {
			if !kept(&want[i]) {
				return
			}
		}
		got, err := tree.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		Equal(t, want, got)
	})
}
