// Package format writes the output formats of a machine.
//
// A format is a line in the table exporter.Formats, and a function of its own file
// that takes a Machine and writes files into a directory. The bytes of a file
// depend on the Machine alone.
package format

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/slipway-build/slipway/exporter"
	"github.com/slipway-build/slipway/exporter/output"
	"github.com/slipway-build/slipway/exporter/segment"
)

// Machine is what there is to write.
type Machine struct {
	Name    string // prefix of the output files
	Kernel  string // file name; "" for none
	Cmdline string // kernel command line
	// Initrd is the file name of the initramfs. Formats that are made of the
	// tree take the segments and the microcode (file name; "" or a missing
	// file for none) instead.
	Initrd       string
	Segments     []segment.Dir
	Ucode        string
	Architecture string // as GOARCH
	// Size of a disk in bytes; 0 for the smallest that fits. Formats that
	// are no disk do not look at it.
	Size    int64
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
	i := slices.Index(Names(), format)
	if i < 0 {
		return nil, fmt.Errorf("unknown format %q; the formats are %s", format, strings.Join(Names(), ", "))
	}
	switch fromTree := exporter.Formats[i].Tree; {
	case fromTree && (len(m.Segments) == 0 || m.Initrd != ""):
		return nil, fmt.Errorf("%s is made of segments: give their directories and no initramfs", format)
	case !fromTree && (len(m.Segments) > 0 || m.Initrd == ""):
		return nil, fmt.Errorf("%s is made of an initramfs: give one and no segments", format)
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
