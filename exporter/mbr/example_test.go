package mbr_test

import (
	"bytes"
	"fmt"
	"log"

	"github.com/slipway-build/slipway/exporter/mbr"
)

func Example() {
	table := mbr.Table{ID: 0x12345678}
	table.Partitions[0] = mbr.Partition{Active: true, Type: mbr.TypeLinux, First: 2048, Sectors: 65536}
	sector, err := table.Encode()
	if err != nil {
		log.Fatal(err)
	}

	table, err = mbr.Read(bytes.NewReader(sector))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("partition 1 has type %#x and starts at sector %d\n", table.Partitions[0].Type, table.Partitions[0].First)
	// Output: partition 1 has type 0x83 and starts at sector 2048
}
