package squashfs_test

import (
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/slipway-build/slipway/exporter/squashfs"
	"github.com/slipway-build/slipway/exporter/tree"
)

func ExampleWrite() {
	dir, err := os.MkdirTemp("", "squashfs")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	entries := tree.AddParents([]tree.Entry{tree.NewFile("etc/hostname", 0o644, "machine\n")})
	f, err := os.Create(filepath.Join(dir, "root.squashfs"))
	if err != nil {
		log.Fatal(err)
	}
	defer f.Close()
	options := squashfs.Options{Compression: "zstd", Level: 7, Time: time.Unix(315532800, 0)}
	if _, err := squashfs.Write(f, entries, options); err != nil {
		log.Fatal(err)
	}
	// Output:
}
