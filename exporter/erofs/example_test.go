package erofs_test

import (
	"fmt"
	"log"
	"time"

	"github.com/slipway-build/slipway/exporter/erofs"
	"github.com/slipway-build/slipway/exporter/tree"
)

func Example() {
	entries := tree.AddParents([]tree.Entry{tree.NewFile("etc/hostname", 0o644, "machine\n")})
	content, err := erofs.New(entries, time.Unix(315532800, 0))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(content.Size, "bytes")
	// Output: 8192 bytes
}
