package format

import (
	"os"

	"github.com/slipway-build/slipway/exporter/segment"
	"github.com/slipway-build/slipway/exporter/tree"
)

func init() {
	register(Format{
		Name:        "tar",
		Description: "root filesystem as a tar archive",
		Suffixes:    []string{".tar"},
		Segments:    segment.Tar,
		writer:      tarWriter{boot: true},
	})
}

// tarWriter writes the root filesystem as a tar archive.
type tarWriter struct {
	boot bool // adds the files in boot/
}

func (w tarWriter) write(j *job) error {
	entries, err := j.tree(w.boot)
	if err != nil {
		return err
	}
	return j.createOnly(func(f *os.File) error { return tree.WriteTar(f, entries, j.in.Time) })
}
