package disk_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/slipway-build/slipway/publisher/disk"
)

// A disk of 1 GiB with 5 bytes of data has one block to upload.
func ExampleOpen() {
	dir, err := os.MkdirTemp("", "disk")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	name := filepath.Join(dir, "machine.raw")
	if err := os.WriteFile(name, []byte("hello"), 0o600); err != nil {
		log.Fatal(err)
	}
	if err := os.Truncate(name, 1<<30); err != nil {
		log.Fatal(err)
	}

	d, err := disk.Open(context.Background(), name)
	if err != nil {
		log.Fatal(err)
	}
	defer d.Close()
	fmt.Printf("%d of %d blocks have data\n", len(d.Blocks), d.Count())
	// Output: 1 of 2048 blocks have data
}

// Print how a disk boots.
func ExampleDisk_Boot() {
	d, err := disk.Open(context.Background(), "machine.raw")
	if err != nil {
		log.Fatal(err)
	}
	defer d.Close()
	boot, err := d.Boot()
	if err != nil {
		log.Fatal(err)
	}
	for _, warning := range boot.Warnings {
		log.Print(warning)
	}
	fmt.Println(boot.Mode(disk.AMD64))
}
