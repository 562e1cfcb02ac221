package format_test

import (
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/slipway-build/slipway/exporter"
	"github.com/slipway-build/slipway/exporter/format"
	"github.com/slipway-build/slipway/exporter/segment"
)

// The table describes each format without writing it.
func ExampleLookup() {
	f, ok := format.Lookup("raw")
	if !ok {
		log.Fatal("no such format")
	}
	fmt.Println(f.Description)
	fmt.Println("files:", f.Files("web"))
	fmt.Println("has a size:", f.Options.Has(format.Size))
	fmt.Println("boots under BIOS on arm64:", f.FirmwareOn("arm64").Has(format.BIOS))
	// Output:
	// GPT disk that boots under BIOS and UEFI
	// files: [web.raw]
	// has a size: true
	// boots under BIOS on arm64: false
}

// Write combines segments, a kernel and a command line into a format.
func ExampleWrite() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	kernel := filepath.Join(dir, "vmlinuz")
	if err := os.WriteFile(kernel, []byte("a kernel"), 0o644); err != nil {
		log.Fatal(err)
	}
	spec := []byte(`[{"path": "etc", "type": "dir", "mode": 493}]`)
	files, err := segment.PackEntries(spec, segment.CPIO, "zstd")
	if err != nil {
		log.Fatal(err)
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			log.Fatal(err)
		}
	}

	names, err := format.Write("kernel+initrd", format.Input{
		Name:         "web",
		Architecture: "amd64",
		Kernel:       kernel,
		Cmdline:      "console=ttyS0",
		Segments:     []segment.Dir{{Name: "directories", Path: dir}},
		Time:         time.Unix(exporter.Epoch, 0),
	}, dir, func(warning string) { log.Print(warning) })
	if err != nil {
		log.Fatal(err)
	}
	for _, name := range names {
		fmt.Println(filepath.Base(name))
	}
	// Output:
	// web-kernel
	// web-initrd.img
	// web-cmdline
}
