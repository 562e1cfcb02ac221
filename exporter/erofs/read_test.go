package erofs

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
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
	want := treetest.All(blockSize-compactSize, blockSize, 1<<20)
	image := writeImage(t, want)
	treetest.Equal(t, want, treetest.ReadImage(t, image, Read))
}

// Read returns what mkfs.erofs wrote, which shares extended attributes.
func TestReadMkfs(t *testing.T) {
	need.Program(t, "mkfs.erofs", "erofs-utils")
	need.Program(t, "unsquashfs", "squashfs-tools")
	need.Root(t)
	entries := slices.DeleteFunc(treetest.All(blockSize-compactSize, blockSize, 1<<20), func(e tree.Entry) bool {
		return len(e.Path) == 255 // mkfs.erofs 1.5 fails
	})
	dir := treetest.Extract(t, entries)
	want, err := tree.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for name, options := range map[string][]string{"default": nil, "shared": {"-x", "0"}, "extended": {"-E", "force-inode-extended"}} {
		t.Run(name, func(t *testing.T) {
			image := filepath.Join(t.TempDir(), "test.img")
			if out, err := exec.Command("mkfs.erofs", append(options, image, dir)...).CombinedOutput(); err != nil {
				t.Fatalf("mkfs.erofs: %v\n%s", err, out)
			}
			treetest.Equal(t, want, treetest.ReadImage(t, image, Read))
		})
	}
	image := filepath.Join(t.TempDir(), "test.img")
	if out, err := exec.Command("mkfs.erofs", "-zlz4", image, dir).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.erofs: %v\n%s", err, out)
	}
	data, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Read(bytes.NewReader(data), int64(len(data))); !errors.Is(err, ErrUnsupported) {
		t.Errorf("lz4: %v", err)
	}
}

func TestReadErrors(t *testing.T) {
	good, err := os.ReadFile(writeImage(t, treetest.All(blockSize-compactSize, blockSize, 1<<20)))
	if err != nil {
		t.Fatal(err)
	}
	damage.Rejected(t, Read, good, damage.Cases{
		"empty":     {func([]byte) []byte { return nil }, "128 bytes are after the end of the file, which has 0"},
		"magic":     {func(b []byte) []byte { b[superOffset]++; return b }, "byte 1024: there is no superblock"},
		"block":     {func(b []byte) []byte { b[superOffset+12] = 40; return b }, "byte 1036: blocks have 2^40 bytes"},
		"truncated": {func(b []byte) []byte { return b[:len(b)/2] }, "are after the end of the file"},
		"root":      {func(b []byte) []byte { b[superOffset+14] = 1; return b }, "has the mode"},
	}, ErrFormat)
}

// FuzzRead checks that a damaged file system ends in an error, or in a tree that
// Linux allows.
func FuzzRead(f *testing.F) {
	for _, script := range treetest.Scripts {
		image, err := os.ReadFile(writeImage(f, treetest.Script(f, script)))
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
