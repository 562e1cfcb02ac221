package graph

import (
	"time"

	"github.com/moby/buildkit/client/llb"

	"github.com/slipway-build/slipway/exporter"
	"github.com/slipway-build/slipway/exporter/format"
	"github.com/slipway-build/slipway/exporter/segment"
)

// A Write is one run of the exporter, for clients that write formats themselves.
type Write struct {
	Format   format.Format
	Input    format.Input // without the names of files
	Boot     *Part        // kernel and microcode; nil without a kernel
	Loaders  *Part        // boot loaders; nil for formats without
	Segments []*Part      // in order; one can be Boot
}

// A Part is a directory with files that a format is made of.
type Part struct {
	Name  string // of the component
	State llb.State
	Path  string            // of the directory in State
	Files map[string][]byte // the same files, if the graph contains them; otherwise nil
}

// Writes returns what each format of the output is made of. [Output] writes the
// same files.
func Writes(in Input, opt Options) ([]Write, error) {
	compression, err := segment.ParseCompression(opt.Compression)
	if err != nil {
		return nil, err
	}
	seconds := exporter.Epoch
	if opt.Epoch != nil {
		seconds = *opt.Epoch
	}
	var writes []Write
	for _, f := range opt.Formats {
		b := builder{in, opt, f.Segments}
		p, err := b.parts()
		if err != nil {
			return nil, err
		}
		w := Write{Format: f, Input: b.input(f)}
		w.Input.Time, w.Input.Compression = time.Unix(seconds, 0), compression
		if in.Plan.Kernel != nil {
			w.Boot = &Part{Name: "kernel", State: p.boot, Path: "/"}
		}
		if f.Firmware != 0 {
			w.Loaders = &Part{Name: "boot loaders", State: b.loaders(), Path: loadersPath}
		}
		for _, s := range p.segments {
			part := w.Boot
			if !s.boot {
				part = &Part{Name: s.component, State: s.state, Path: "/", Files: s.files}
			}
			w.Segments = append(w.Segments, part)
		}
		writes = append(writes, w)
	}
	return writes, nil
}
