package hostile

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/slipway-build/slipway/exporter"
	"github.com/slipway-build/slipway/exporter/format"
	"github.com/slipway-build/slipway/exporter/segment"
	"github.com/slipway-build/slipway/internal/testutil/need"
)

// writeLayers writes the layers of an image and returns the names of the files.
func writeLayers(t *testing.T, img v1.Image) []string {
	t.Helper()
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var names []string
	for i, l := range layers {
		r, err := l.Compressed()
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, filepath.Join(dir, fmt.Sprint(i)))
		if err := os.WriteFile(names[i], data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return names
}

// TestPacker packs and writes the accepted images without a builder, to the
// formats that need no kernel.
func TestPacker(t *testing.T) {
	need.Root(t)
	need.Program(t, "unsquashfs", "squashfs-tools")
	need.Program(t, "fsck.erofs", "erofs-utils")
	images := accepted()
	segments := map[segment.Archive][]segment.Dir{}
	for _, i := range images {
		rootfs := segment.Rootfs{Layers: writeLayers(t, i.build(t))}
		for archive, algorithm := range map[segment.Archive]string{segment.CPIO: "zstd", segment.Tar: "none"} {
			p := segment.Packer{Out: t.TempDir(), Archive: archive, Compression: segment.Compression{Algorithm: algorithm, Level: 1}}
			if err := p.Pack(rootfs, i.prefix(), segment.RulesContainer); err != nil {
				t.Fatalf("%s: %v", i.name, err)
			}
			segments[archive] = append(segments[archive], segment.Dir{Name: i.name, Path: p.Out})
		}
	}
	for _, f := range formats {
		table, ok := format.Lookup(f.name)
		if !ok {
			t.Fatalf("no format %s", f.name)
		}
		if table.Firmware != 0 {
			continue
		}
		t.Run(f.name, func(t *testing.T) {
			in := format.Input{
				Name: "machine", Architecture: "amd64", Segments: segments[table.Segments],
				Compression: segment.Compression{Algorithm: "zstd", Level: 1}, Time: time.Unix(exporter.Epoch, 0),
			}
			dir := t.TempDir()
			if _, err := format.Write(f.name, in, dir, func(string) {}); err != nil {
				t.Fatal(err)
			}
			f.compare(t, dir, images)
		})
	}
}
