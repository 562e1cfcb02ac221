package image_test

import (
	"bytes"
	"io"
	"os"
	"testing"

	"github.com/slipway-build/slipway/exporter/format"
	"github.com/slipway-build/slipway/internal/image"
	"github.com/slipway-build/slipway/internal/image/report"
	"github.com/slipway-build/slipway/internal/testutil/treetest"
)

// FuzzOpen checks that a damaged image ends in an error, or in one that slipway
// inspect, size and diff can describe.
func FuzzOpen(f *testing.F) {
	var whole []byte
	for _, format := range format.All() {
		for _, name := range image.WriteFormat(f, format) {
			data, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			if len(data) < 4<<20 {
				f.Add(data)
				whole = data
			}
		}
	}
	other, err := image.OpenReader("other", bytes.NewReader(whole), int64(len(whole)))
	if err != nil {
		f.Fatal(err)
	}
	defer other.Close()
	f.Fuzz(func(t *testing.T, data []byte) {
		i, err := image.OpenReader("image", bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return
		}
		defer i.Close()
		treetest.Read(t, i.Root, 1<<20)
		r := report.New(i)
		for _, write := range []func(io.Writer) error{r.WriteHTML, func(w io.Writer) error { return r.WriteText(w, true) }} {
			if err := write(io.Discard); err != nil {
				t.Error(err)
			}
		}
		// Files that cannot be read are errors.
		if sizes, err := report.NewSizes(i); err == nil {
			sizes.WriteText(io.Discard)
		}
		for _, pair := range [][2]*image.Image{{i, other}, {other, i}} {
			if d, err := report.Compare(pair[0], pair[1]); err == nil {
				d.WriteText(io.Discard)
				d.WriteHTML(io.Discard)
			}
		}
	})
}
