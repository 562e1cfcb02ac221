package vhd_test

import (
	"fmt"
	"log"
	"time"

	"github.com/slipway-build/slipway/exporter/sparse"
	"github.com/slipway-build/slipway/exporter/vhd"
)

// Write a disk of 1 GiB with 5 bytes of data.
func ExampleDynamic() {
	disk, err := sparse.New(1<<30, sparse.Bytes([]byte("hello")).At(0), nil)
	if err != nil {
		log.Fatal(err)
	}
	file, err := vhd.Dynamic(disk, [16]byte{1, 2, 3}, time.Unix(315532800, 0))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(file.Size, "bytes")
	// Output: 2101760 bytes
}
