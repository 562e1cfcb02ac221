package erofs

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/slipway-build/slipway/exporter/tree"
	"github.com/slipway-build/slipway/internal/testutil/golden"
	"github.com/slipway-build/slipway/internal/testutil/need"
	"github.com/slipway-build/slipway/internal/testutil/treetest"
)

func writeImage(t testing.TB, entries []tree.Entry) string {
	t.Helper()
	image, err := New(entries, time.Unix(315532800, 0))
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "test.img"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := image.WriteFile(f); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// fsck.erofs accepts the file system and extracts what was written.
func TestFsckExtracts(t *testing.T) {
	need.Program(t, "fsck.erofs", "erofs-utils")
	need.Root(t)
	want := treetest.All(blockSize-compactSize, blockSize, 1<<20)
	image := writeImage(t, want)
	dir := filepath.Join(t.TempDir(), "root")
	out, err := exec.Command("fsck.erofs", "--extract="+dir, "--preserve", image).CombinedOutput()
	if err != nil || strings.Contains(string(out), "<E>") {
		t.Fatalf("fsck.erofs: %v\n%s", err, out)
	}
	for i := range want {
		// fsck.erofs 1.5 does not extract these.
		want[i].Xattrs, want[i].Inode, want[i].Mode = nil, 0, want[i].Mode&^(tree.SetUID|tree.SetGID)
	}
	got, err := tree.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	treetest.Equal(t, want, got)
}

// The same tree results in the same bytes in every version of this package, unless
// a change is intended.
func TestDigest(t *testing.T) {
	data, err := os.ReadFile(writeImage(t, treetest.All(blockSize)))
	if err != nil {
		t.Fatal(err)
	}
	golden.Equal(t, "testdata/all.sha256", fmt.Sprintf("%x\n", sha256.Sum256(data)))
}

func TestErrors(t *testing.T) {
	large := tree.NewFile("f", 0o644, "")
	large.Xattrs = map[string]string{"user.x": strings.Repeat("x", 70_000)}
	for name, test := range map[string]struct {
		entry tree.Entry
		time  int64
		want  string
	}{
		"blocks": {tree.Entry{Path: "f", Type: tree.File, Size: 1 << 45}, 0, "blocks of 4096 bytes, but EROFS supports 4294967295"},
		"device": {tree.Entry{Path: "d", Type: tree.Char, Minor: 1 << 20}, 0, "d: device 0,1048576: Linux supports numbers up to 4095,1048575"},
		"parent": {tree.Entry{Path: "d/f", Type: tree.FIFO}, 0, "d/f: there is no directory d"},
		"xattr":  {large, 0, "f: extended attribute user.x has 70000 bytes, but EROFS supports 65535"},
		"time":   {tree.NewFile("f", 0, ""), -1, "EROFS supports no time before 1970: choose another SOURCE_DATE_EPOCH than -1"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := New([]tree.Entry{test.entry}, time.Unix(test.time, 0)); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
}

// BenchmarkWrite writes a file of 256 MiB and 20,000 small ones.
func BenchmarkWrite(b *testing.B) {
	entries := treetest.Large(256<<20, 20_000)
	b.SetBytes(256<<20 + 20_000*1000)
	for b.Loop() {
		writeImage(b, entries)
	}
}
