package uki_test

import (
	"fmt"
	"io"
	"log"

	"github.com/slipway-build/slipway/exporter/disk/disktest"
	"github.com/slipway-build/slipway/exporter/sparse"
	"github.com/slipway-build/slipway/exporter/uki"
)

func Example() {
	stub := disktest.Program(0x8664, 0x400) // in place of systemd's linuxx64.efi.stub
	image, err := uki.New(stub, []uki.Section{
		{Name: ".cmdline", Content: sparse.Bytes([]byte("console=ttyS0"))},
		{Name: ".linux", Content: sparse.Bytes([]byte("the kernel"))},
	})
	if err != nil {
		log.Fatal(err)
	}

	program, err := uki.Read(image, image.Size)
	if err != nil {
		log.Fatal(err)
	}
	cmdline, _ := program.Section(".cmdline")
	text, err := io.ReadAll(cmdline.Reader())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s: %s\n", program.Architecture, text)
	// Output: amd64: console=ttyS0
}
