package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/slipway-build/slipway/exporter/output"
)

// formatInputs is what a writer of a format gets.
type formatInputs struct {
	name    string // prefix of the output files
	kernel  string // file names; kernel is "" for none
	initrd  string
	cmdline string // content
	size    int64  // of a disk in bytes; 0 for the smallest
	arch    string // as in GOARCH
	loaders string // directory
	out     string // directory
}

// formats are the output formats. Each returns the files that it wrote.
var formats = map[string]func(formatInputs) ([]string, error){
	"kernel+initrd": writeKernelInitrd,
}

func write(args []string, report io.Writer) error {
	flags := newFlags("write")
	var in formatInputs
	format := flags.String("format", "", "output format")
	flags.StringVar(&in.name, "name", "", "`prefix` of the output files")
	flags.StringVar(&in.kernel, "kernel", "", "kernel `file`; empty for none")
	flags.StringVar(&in.initrd, "initrd", "", "initramfs `file`")
	cmdline := flags.String("cmdline", "", "`file` with the kernel command line; empty for none")
	flags.Int64Var(&in.size, "size", 0, "size of the disk in `bytes`; 0 for the smallest")
	flags.StringVar(&in.arch, "arch", "amd64", "architecture of the machine")
	flags.StringVar(&in.loaders, "loaders", "", "`directory` with the boot loaders")
	flags.StringVar(&in.out, "out", "", "`directory` for the output files")
	if err := flags.parse(args, "format", "name", "initrd", "out"); err != nil {
		return err
	}
	if filepath.Base(in.name) != in.name || strings.HasPrefix(in.name, ".") {
		return fmt.Errorf("name %q cannot be the start of a file name", in.name)
	}
	writeFormat, ok := formats[*format]
	if !ok {
		return fmt.Errorf("unknown format %q; the formats are %s", *format, strings.Join(formatNames(), ", "))
	}
	if *cmdline != "" {
		text, err := os.ReadFile(*cmdline)
		if err != nil {
			return fmt.Errorf("command line: %w", err)
		}
		in.cmdline = string(text)
	}
	files, err := writeFormat(in)
	if err != nil {
		return fmt.Errorf("%s: %w", *format, err)
	}
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil {
			return err
		}
		fmt.Fprintf(report, "%12d %s\n", info.Size(), filepath.Base(file))
	}
	return nil
}

func formatNames() []string {
	var names []string
	for name := range formats {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// writeKernelInitrd writes the files that QEMU and network boot loaders take.
// As LinuxKit, it leaves out a kernel or command line that is empty.
func writeKernelInitrd(in formatInputs) ([]string, error) {
	if in.size != 0 {
		return nil, errors.New("size has no meaning for this format, which writes no disk")
	}
	var files []string
	file := func(suffix string, write func(*os.File) error) error {
		name := filepath.Join(in.out, in.name+suffix)
		files = append(files, name)
		return output.File(name, write)
	}
	if in.kernel != "" {
		if err := file("-kernel", copyFrom(in.kernel)); err != nil {
			return nil, err
		}
	}
	if err := file("-initrd.img", copyFrom(in.initrd)); err != nil {
		return nil, err
	}
	if in.cmdline != "" {
		err := file("-cmdline", func(f *os.File) error {
			_, err := f.WriteString(in.cmdline)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return files, nil
}

func copyFrom(name string) func(*os.File) error {
	return func(f *os.File) error {
		src, err := os.Open(name)
		if err != nil {
			return err
		}
		defer src.Close()
		_, err = io.Copy(f, src)
		return err
	}
}
