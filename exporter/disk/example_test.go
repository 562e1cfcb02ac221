package disk_test

import (
	"fmt"
	"log"
	"os"
	"time"

	"github.com/slipway-build/slipway/exporter/disk"
	"github.com/slipway-build/slipway/exporter/disk/disktest"
	"github.com/slipway-build/slipway/exporter/gpt"
	"github.com/slipway-build/slipway/exporter/sparse"
)

// A disk of 64 MiB that boots a unified kernel image.
func ExampleNew() {
	contents := disk.Contents{
		Kernel:  sparse.Bytes([]byte("the kernel")),
		Initrd:  []sparse.Content{sparse.Bytes([]byte("the initramfs"))},
		Cmdline: "console=ttyS0",
	}
	loaders := disk.Loaders{
		Stub:    disktest.Program(0x8664, 0x400), // in place of systemd's linuxx64.efi.stub
		Program: "BOOTX64.EFI",
	}
	d, err := disk.New(disk.UKI, contents, loaders, 64<<20, time.Unix(315532800, 0))
	if err != nil {
		log.Fatal(err)
	}
	table, err := gpt.Read(d)
	if err != nil {
		log.Fatal(err)
	}
	for _, p := range table.Partitions {
		fmt.Printf("%s: sectors %d to %d\n", p.Name, p.First, p.Last)
	}
	// Output: EFI system: sectors 2048 to 129023
}

// Write a disk that boots under BIOS and UEFI to a file.
func ExampleDisk() {
	loaders, err := disk.ReadLoaders("loaders", "amd64")
	if err != nil {
		log.Fatal(err)
	}
	var files sparse.Files
	defer files.Close()
	kernel, err := files.Open("vmlinuz")
	if err != nil {
		log.Fatal(err)
	}
	initrd, err := files.Open("initrd.img")
	if err != nil {
		log.Fatal(err)
	}
	contents := disk.Contents{Kernel: kernel, Initrd: []sparse.Content{initrd}, Cmdline: "console=ttyS0"}
	d, err := disk.New(disk.Hybrid, contents, loaders, 1<<30, time.Unix(315532800, 0))
	if err != nil {
		log.Fatal(err)
	}
	f, err := os.Create("machine.raw")
	if err != nil {
		log.Fatal(err)
	}
	defer f.Close()
	if err := d.WriteFile(f); err != nil {
		log.Fatal(err)
	}
}
