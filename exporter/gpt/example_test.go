package gpt_test

import (
	"fmt"
	"log"

	"github.com/slipway-build/slipway/exporter/gpt"
)

func Example() {
	table := gpt.Table{ID: gpt.Derive("disk", []byte("example")), Sectors: 1 << 20}
	table.Partitions = []gpt.Partition{
		{Type: gpt.TypeESP, ID: gpt.Derive("ESP", []byte("example")), First: 2048, Last: 262143, Name: "EFI system"},
		{Type: gpt.TypeLinux, ID: gpt.Derive("root", []byte("example")), First: 262144, Last: table.LastUsable(), Name: "root"},
	}
	disk, err := table.Encode()
	if err != nil {
		log.Fatal(err)
	}

	table, err = gpt.Read(disk)
	if err != nil {
		log.Fatal(err)
	}
	for _, p := range table.Partitions {
		fmt.Printf("%d: %s, sectors %d to %d\n", p.Number, p.Name, p.First, p.Last)
	}
	// Output:
	// 1: EFI system, sectors 2048 to 262143
	// 2: root, sectors 262144 to 1048542
}
