package iso9660_test

import (
	"fmt"
	"log"
	"time"

	"github.com/slipway-build/slipway/exporter/iso9660"
	"github.com/slipway-build/slipway/exporter/tree"
)

func Example() {
	entries := tree.AddParents([]tree.Entry{tree.NewFile("etc/hostname", 0o644, "machine\n")})
	volume, err := iso9660.New(entries, iso9660.Options{Label: "MACHINE", Time: time.Unix(315532800, 0)})
	if err != nil {
		log.Fatal(err)
	}
	content, err := volume.Image()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(content.Size/iso9660.SectorSize, "sectors")
	// Output: 24 sectors
}
