package tree_test

import (
	"fmt"
	"log"
	"os"
	"time"

	"github.com/slipway-build/slipway/exporter/tree"
)

// Merge puts trees over each other. The last part with a file wins.
func ExampleMerge() {
	entries, err := tree.Merge([]tree.Part{
		{Name: "image", Entries: []tree.Entry{tree.NewDir("etc"), tree.NewFile("etc/motd", 0o644, "image")}},
		{Name: "files", Entries: []tree.Entry{tree.NewFile("etc/motd", 0o600, "user")}},
	})
	if err != nil {
		log.Fatal(err)
	}
	for _, e := range entries {
		fmt.Printf("%-4s %04o %s\n", e.Type, e.Mode, e.Path)
	}
	// Output:
	// dir  0755 .
	// dir  0755 etc
	// file 0600 etc/motd
}

// WriteTar writes what ReadDir, ReadLayers, ReadTar or Merge returned.
func ExampleWriteTar() {
	f, err := os.CreateTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	written := []tree.Entry{tree.NewDir("bin"), tree.NewSymlink("bin/sh", "busybox")}
	if err := tree.WriteTar(f, written, time.Unix(0, 0)); err != nil {
		log.Fatal(err)
	}

	info, err := f.Stat()
	if err != nil {
		log.Fatal(err)
	}
	read, err := tree.ReadTar(f, info.Size())
	if err != nil {
		log.Fatal(err)
	}
	for _, e := range read {
		fmt.Printf("%s %s %q\n", e.Type, e.Path, e.Link)
	}
	// Output:
	// dir bin ""
	// symlink bin/sh "busybox"
}
