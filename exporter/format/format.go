// Package format writes the output formats of a machine.
//
// A format is a line in the table exporter.Formats, and a function of its own file
// that takes a Machine and writes files into a directory. The bytes of a file
// depend on the Machine alone.
package format

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/slipway-build/slipway/exporter"
	"github.com/slipway-build/slipway/exporter/output"
	"github.com/slipway-build/slipway/exporter/segment"
	"github.com/slipway-build/slipway/exporter/sparse"
)

// Machine is what there is to write.
type Machine struct {
	Name    string // prefix of the output files
	Kernel  string // file name; "" for none
	Cmdline string // kernel command line
	Ucode   string // file name of the microcode; "" or a missing file for none
	// Segments are what the root filesystem is made of: cpio archives, or tar
	// archives where the table says so.
	Segments     []segment.Dir
	Architecture string // as GOARCH
	// Size of a disk in bytes; 0 for the smallest that fits. Formats that
	// are no disk do not look at it.
	Size    int64
	Map     bool      // write the map of a disk beside it
	Loaders string    // directory of the boot loaders, as disk.ReadLoaders takes it
	Time    time.Time // for formats that store times
}

// writers has a function for each of exporter.Formats. It returns the files it
// wrote.
var writers = map[string]func(m Machine, out string, warn func(string)) ([]string, error){
	"kernel+initrd": kernelInitrd,
	"raw":           raw,
	"tar":           tarball,
}

// Names lists all formats, the default first.
func Names() []string {
	var names []string
	for _, f := range exporter.Formats {
		names = append(names, f.Name)
	}
	return names
}

// Write writes a format into the directory out and returns the names of its
// files. If it fails, none of these is incomplete.
func Write(format string, m Machine, out string, warn func(string)) ([]string, error) {
	if !slices.Contains(Names(), format) {
		return nil, fmt.Errorf("unknown format %q; the formats are %s", format, strings.Join(Names(), ", "))
	}
	if len(m.Segments) == 0 {
		return nil, errors.New("no segments are given")
	}
	if m.Name == "" || filepath.Base(m.Name) != m.Name || strings.HasPrefix(m.Name, ".") {
		return nil, fmt.Errorf("name %q cannot be the start of a file name", m.Name)
	}
	files, err := writers[format](m, out, warn)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", format, err)
	}
	return files, nil
}

// writeImage makes a file with the content of an image.
func writeImage(name string, image sparse.Image) error {
	return output.File(name, image.WriteFile)
}

// initrd opens the parts of the initramfs.
func (m Machine) initrd(opened *sparse.Files) ([]sparse.Image, error) {
	parts, err := segment.Initrd(m.Ucode, m.Segments)
	if err != nil {
		return nil, err
	}
	var images []sparse.Image
	for _, p := range parts {
		image := sparse.Bytes(p.Data)
		if p.File != "" {
			if image, err = opened.Open(p.File); err != nil {
				return nil, err
			}
		}
		images = append(images, image.Pad(segment.PartAlignment))
	}
	return images, nil
}
