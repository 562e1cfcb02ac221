package verity_test

import (
	"fmt"
	"io"
	"strings"

	"github.com/slipway-build/slipway/exporter/sparse"
	"github.com/slipway-build/slipway/exporter/verity"
)

func Example() {
	data := sparse.Bytes([]byte(strings.Repeat("a file system ", 1000)))
	root, tree, err := verity.New(data)
	if err != nil {
		panic(err)
	}
	fmt.Printf("%s=%s…, %d bytes of hashes\n", verity.CmdlineKey, root.String()[:8], tree.Size)

	superblock, err := verity.Read(tree)
	if err != nil {
		panic(err)
	}
	fmt.Println(superblock.Verify(io.NewSectionReader(data.Pad(verity.BlockSize), 0, superblock.DataSize()), io.NewSectionReader(tree, 0, tree.Size), root))
	// Output:
	// roothash=3056ffa4…, 8192 bytes of hashes
	// <nil>
}
