package sparse_test

import (
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/slipway-build/slipway/exporter/sparse"
)

func Example() {
	dir, err := os.MkdirTemp("", "sparse")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	// A file of 1 GiB with text at 1 MiB.
	content, err := sparse.New(1<<30, sparse.Bytes([]byte("hello")).At(1<<20), nil)
	if err != nil {
		log.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, "file"))
	if err != nil {
		log.Fatal(err)
	}
	defer f.Close()
	if err := content.WriteFile(f); err != nil {
		log.Fatal(err)
	}

	text := make([]byte, 5)
	if _, err := f.ReadAt(text, 1<<20); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s of %d bytes\n", text, content.Size)
	// Output: hello of 1073741824 bytes
}
