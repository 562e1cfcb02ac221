package qcow2_test

import (
	"fmt"
	"log"

	"github.com/slipway-build/slipway/exporter/qcow2"
	"github.com/slipway-build/slipway/exporter/sparse"
)

// Write a disk of 1 GiB with 5 bytes of data.
func Example() {
	disk, err := sparse.New(1<<30, sparse.Bytes([]byte("hello")).At(0), nil)
	if err != nil {
		log.Fatal(err)
	}
	file, err := qcow2.New(disk)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(file.Size, "bytes")
	// Output: 393216 bytes
}
