package cpio_test

import (
	"bytes"
	"fmt"
	"io"
	"log"

	"github.com/slipway-build/slipway/exporter/cpio"
)

func Example() {
	var archive bytes.Buffer
	w := cpio.NewWriter(&archive)
	greeting := "hello\n"
	if err := w.WriteHeader(cpio.Header{Name: "greeting", Mode: cpio.TypeFile | 0o644, Links: 1, Size: int64(len(greeting))}); err != nil {
		log.Fatal(err)
	}
	if _, err := io.WriteString(w, greeting); err != nil {
		log.Fatal(err)
	}
	if err := w.Close(); err != nil {
		log.Fatal(err)
	}

	r := cpio.NewReader(&archive)
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			log.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s: %q\n", h.Name, content)
	}
	// Output: greeting: "hello\n"
}
