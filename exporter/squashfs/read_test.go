package squashfs

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/exporter/tree"
	"github.com/slipway-build/slipway/internal/testutil/damage"
	"github.com/slipway-build/slipway/internal/testutil/need"
	"github.com/slipway-build/slipway/internal/testutil/treetest"
)

func everything() []tree.Entry {
	holes := tree.NewFile("holes", 0o644, strings.Repeat("\x00", 3*blockSize)+"x"+strings.Repeat("\x00", blockSize))
	return tree.AddParents(append(treetest.All(8<<10, blockSize), holes))
}

// Read returns what was written.
func TestRead(t *testing.T) {
	for name, options := range compressions {
		t.Run(name, func(t *testing.T) {
			treetest.Equal(t, everything(), treetest.ReadImage(t, writeImage(t, everything(), options), Read))
		})
	}
}

// Read returns what mksquashfs wrote, which stores large values of extended
// attributes only once.
func TestReadMksquashfs(t *testing.T) {
	need.Program(t, "mksquashfs", "squashfs-tools")
	need.Root(t)
	want := everything()
	value := strings.Repeat("v", 2000)
	for _, name := range []string{"x1", "x2"} {
		e := tree.NewFile(name, 0o644, name)
		e.Xattrs = map[string]string{"user.value": value}
		want = append(want, e)
	}
	tree.Sort(want)
	dir := treetest.Extract(t, want)
	for name, options := range map[string][]string{
		"gzip":         {"-comp", "gzip"},
		"zstd":         {"-comp", "zstd", "-b", "1M"},
		"uncompressed": {"-noI", "-noD", "-noF", "-noX", "-no-fragments"},
	} {
		t.Run(name, func(t *testing.T) {
			image := filepath.Join(t.TempDir(), "test.img")
			args := append([]string{dir, image, "-no-progress", "-quiet"}, options...)
			if out, err := exec.Command("mksquashfs", args...).CombinedOutput(); err != nil {
				t.Fatalf("mksquashfs: %v\n%s", err, out)
			}
			treetest.Equal(t, want, treetest.ReadImage(t, image, Read))
		})
	}
}

func TestReadErrors(t *testing.T) {
	need.Program(t, "mksquashfs", "squashfs-tools")
	good, err := os.ReadFile(writeImage(t, treetest.All(8<<10), compressions["gzip"]))
	if err != nil {
		t.Fatal(err)
	}
	damage.Rejected(t, Read, good, damage.Cases{
		"empty":      {func([]byte) []byte { return nil }, "96 bytes are after the end of the file, which has 0"},
		"magic":      {func(b []byte) []byte { b[0]++; return b }, "byte 0: there is no superblock of version 4"},
		"block size": {func(b []byte) []byte { b[12]++; return b }, "byte 12: blocks have 131073 bytes"},
		"truncated":  {func(b []byte) []byte { return b[:len(b)/2] }, "are after the end of the file"},
		"root":       {func(b []byte) []byte { b[32]++; return b }, "unknown type"},
	}, ErrFormat)
	image := filepath.Join(t.TempDir(), "test.img")
	if out, err := exec.Command("mksquashfs", t.TempDir(), image, "-comp", "xz", "-quiet", "-no-progress").CombinedOutput(); err != nil {
		t.Fatalf("mksquashfs: %v\n%s", err, out)
	}
	xz, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Read(bytes.NewReader(xz), int64(len(xz))); !errors.Is(err, ErrUnsupported) {
		t.Errorf("xz: %v", err)
	}
}

// FuzzRead checks that a damaged file system ends in an error, or in a tree that
// can be written.
func FuzzRead(f *testing.F) {
	for _, script := range treetest.Scripts {
		entries := treetest.Script(f, script)
		for _, options := range compressions {
			image, err := os.ReadFile(writeImage(f, entries, options))
			if err != nil {
				f.Fatal(err)
			}
			f.Add(image)
		}
	}
	f.Fuzz(func(t *testing.T, image []byte) {
		entries, err := Read(bytes.NewReader(image), int64(len(image)))
		if err != nil {
			return
		}
		treetest.Read(t, entries, 4*blockSize)
	})
}
