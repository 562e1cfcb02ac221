package iso9660

import (
	"bytes"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"testing"

	"github.com/slipway-build/slipway/exporter/tree"
	"github.com/slipway-build/slipway/internal/testutil/damage"
	"github.com/slipway-build/slipway/internal/testutil/need"
	"github.com/slipway-build/slipway/internal/testutil/treetest"
)

// Read returns what was written.
func TestRead(t *testing.T) {
	want := treetest.All(SectorSize)
	image := writeImage(t, want, options)
	for i := range want {
		want[i].Xattrs = nil // the format has none
	}
	treetest.Equal(t, want, treetest.ReadImage(t, image, Read))
}

// Read returns what xorriso wrote.
func TestReadXorriso(t *testing.T) {
	need.Program(t, "xorriso", "xorriso")
	need.Program(t, "unsquashfs", "squashfs-tools")
	need.Root(t)
	entries := treetest.All(SectorSize)
	for i, e := range entries {
		if e.Type == tree.Block {
			entries[i].Major, entries[i].Minor = 8, 16 // xorriso stores no larger ones
		}
	}
	dir := treetest.Extract(t, entries)
	want, err := tree.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for i := range want {
		want[i].Xattrs = nil // the format has none
	}
	for name, options := range map[string][]string{"deep": {"-D"}, "relocated": {"-rr_reloc_dir", "moved"}} {
		t.Run(name, func(t *testing.T) {
			image := filepath.Join(t.TempDir(), "test.iso")
			args := slices.Concat([]string{"-hardlinks", "on", "-as", "mkisofs", "-quiet", "-R"}, options, []string{"-o", image, dir})
			if out, err := exec.Command("xorriso", args...).CombinedOutput(); err != nil {
				t.Fatalf("xorriso: %v\n%s", err, out)
			}
			var got []tree.Entry
			for _, e := range treetest.ReadImage(t, image, Read) {
				if e.Path != "moved" {
					got = append(got, e)
				}
			}
			treetest.Equal(t, cleanLinks(want), cleanLinks(got))
		})
	}
}

// cleanLinks changes targets as xorriso does.
func cleanLinks(entries []tree.Entry) []tree.Entry {
	entries = slices.Clone(entries)
	for i, e := range entries {
		if e.Type == tree.Symlink {
			entries[i].Link = path.Clean(e.Link)
		}
	}
	return entries
}

func TestReadErrors(t *testing.T) {
	good, err := os.ReadFile(writeImage(t, treetest.All(SectorSize), options))
	if err != nil {
		t.Fatal(err)
	}
	damage.Rejected(t, Read, good, damage.Cases{
		"empty":     {func([]byte) []byte { return nil }, "2048 bytes are after the end of the file, which has 0"},
		"magic":     {func(b []byte) []byte { b[16*SectorSize+1]++; return b }, "byte 32768: there is no primary volume descriptor"},
		"sectors":   {func(b []byte) []byte { b[16*SectorSize+129]++; return b }, "byte 32896: sectors have 2304 bytes"},
		"truncated": {func(b []byte) []byte { return b[:len(b)/4] }, "are after the end of the"},
		"root":      {func(b []byte) []byte { b[16*SectorSize+158]++; return b }, "has no records for itself and its parent"},
	}, ErrFormat)
}

// FuzzRead checks that a damaged file system ends in an error, or in a tree that
// Linux allows.
func FuzzRead(f *testing.F) {
	for _, script := range treetest.Scripts {
		image, err := os.ReadFile(writeImage(f, treetest.Script(f, script), options))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(image)
	}
	f.Fuzz(func(t *testing.T, image []byte) {
		if entries, err := Read(bytes.NewReader(image), int64(len(image))); err == nil {
			treetest.Read(t, entries, 1<<20)
		}
	})
}
