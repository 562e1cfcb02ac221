package segment_test

import (
	"bytes"
	"fmt"
	"log"
	"maps"
	"slices"

	"github.com/slipway-build/slipway/exporter/segment"
	"github.com/slipway-build/slipway/exporter/tree"
)

// A cpio segment is a complete initramfs, which the kernel can unpack.
func ExampleWrite() {
	var b bytes.Buffer
	entries := tree.AddParents([]tree.Entry{tree.NewFile("etc/motd", 0o644, "Welcome\n")})
	if err := segment.Write(&b, entries, segment.Compression{Algorithm: "none"}); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s, a multiple of 4 bytes: %t\n", b.Bytes()[:6], b.Len()%4 == 0)
	// Output: 070701, a multiple of 4 bytes: true
}

// PackEntries packs the files that a machine defines itself.
func ExamplePackEntries() {
	spec := []byte(`[{"path": "etc", "type": "dir", "mode": 493}, {"path": "etc/motd", "type": "file", "mode": 420, "contents": "SGkK"}]`)
	files, err := segment.PackEntries(spec, segment.CPIO, "gzip:9")
	if err != nil {
		log.Fatal(err)
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		fmt.Println(name)
	}
	fmt.Printf("%s", files[segment.NamesName])
	// Output:
	// names
	// segment
	// "etc"/
	// "etc/motd"
}
