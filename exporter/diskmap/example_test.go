package diskmap_test

import (
	"fmt"
	"log"
	"strings"

	"github.com/slipway-build/slipway/exporter/diskmap"
)

func ExampleRead() {
	m, err := diskmap.Read(strings.NewReader(`{
		"version": 1,
		"size": 104857600,
		"extents": [
			{"offset": 0, "length": 512, "type": "data"},
			{"offset": 512, "length": 523776, "type": "zero"},
			{"offset": 524288, "length": 104333312, "type": "free"}
		]
	}`))
	if err != nil {
		log.Fatal(err)
	}
	for _, e := range m.Extents {
		if e.Type == diskmap.Data {
			fmt.Printf("copy bytes %d to %d\n", e.Offset, e.End())
		}
	}
	// Output: copy bytes 0 to 512
}
