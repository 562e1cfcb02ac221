// Package format writes the output formats of a machine.
//
// A format is a function of its own file that takes a Machine and writes files
// into a directory, and a line in the table below. The bytes of a file depend on
// the Machine alone.
package format

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/slipway-build/slipway/exporter/output"
)

// Machine is what there is to write.
type Machine struct {
	Name         string // prefix of the output files
	Kernel       string // file name; "" for none
	Initrd       string // file name
	Cmdline      string // kernel command line
	Architecture string // as GOARCH
	// Size of a disk in bytes; 0 for the smallest that fits. Formats that
	// are no disk do not look at it.
	Size    int64
	Loaders string    // directory of the boot loaders, as disk.ReadLoaders takes it
	Time    time.Time // for formats that store times
}

// formats is the table of all formats. A format returns the files it wrote.
var formats = map[string]func(m Machine, out string, warn func(string)) ([]string, error){
	"kernel+initrd": kernelInitrd,
	"raw":           raw,
}

// Names lists all formats.
func Names() []string {
	var names []string
	for name := range formats {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Write writes a format into the directory out and returns the names of its
// files. If it fails, none of these is incomplete.
func Write(format string, m Machine, out string, warn func(string)) ([]string, error) {
	write, ok := formats[format]
	if !ok {
		return nil, fmt.Errorf("unknown format %q; the formats are %s", format, strings.Join(Names(), ", "))
	}
	if m.Name == "" || filepath.Base(m.Name) != m.Name || strings.HasPrefix(m.Name, ".") {
		return nil, fmt.Errorf("name %q cannot be the start of a file name", m.Name)
	}
	files, err := write(m, out, warn)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", format, err)
	}
	return files, nil
}

// copyFile copies the file from to the file name.
func copyFile(name, from string) error {
	return output.File(name, func(f *os.File) error {
		src, err := os.Open(from)
		if err != nil {
			return err
		}
		defer src.Close()
		_, err = io.Copy(f, src)
		return err
	})
}
