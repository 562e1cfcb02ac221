package vmdk_test

import (
	"bytes"
	"fmt"
	"log"

	"github.com/slipway-build/slipway/exporter/sparse"
	"github.com/slipway-build/slipway/exporter/vmdk"
)

// Write a disk of 1 GiB with 5 bytes of data.
func ExampleWrite() {
	disk, err := sparse.New(1<<30, sparse.Bytes([]byte("hello")).At(0), nil)
	if err != nil {
		log.Fatal(err)
	}
	var file bytes.Buffer
	if err := vmdk.Write(&file, disk, "machine.vmdk", 0x12345678); err != nil {
		log.Fatal(err)
	}
	fmt.Println(file.Len() < 1<<20)
	// Output: true
}
