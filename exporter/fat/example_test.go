package fat_test

import (
	"fmt"
	"io/fs"
	"log"

	"github.com/slipway-build/slipway/exporter/fat"
	"github.com/slipway-build/slipway/exporter/sparse"
)

func Example() {
	files := []fat.File{
		{Path: "EFI/BOOT/BOOTX64.EFI", Parts: []fat.Part{{Content: sparse.Bytes([]byte("program"))}}},
		{Path: "loader/loader.conf", Parts: []fat.Part{{Content: sparse.Bytes([]byte("timeout 0\n"))}}},
	}
	volume, err := fat.New(64<<20, files, fat.Options{Label: "ESP"})
	if err != nil {
		log.Fatal(err)
	}
	content, err := volume.Image(0x12345678)
	if err != nil {
		log.Fatal(err)
	}

	fsys, err := fat.Open(content)
	if err != nil {
		log.Fatal(err)
	}
	err = fs.WalkDir(fsys, ".", func(path string, _ fs.DirEntry, err error) error {
		fmt.Println(path)
		return err
	})
	if err != nil {
		log.Fatal(err)
	}
	// Output:
	// .
	// EFI
	// EFI/BOOT
	// EFI/BOOT/BOOTX64.EFI
	// loader
	// loader/loader.conf
}
