package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/slipway-build/slipway/exporter/disk"
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
	epoch   time.Time
	out     string // directory
}

// formats are the output formats. Each returns the files that it wrote.
var formats = map[string]func(formatInputs) ([]string, error){
	"kernel+initrd": writeKernelInitrd,
	"raw":           writeRaw,
}

func write(args []string, report io.Writer) error {
	flags := newFlags("write")
	var in formatInputs
	format := flags.String("format", "", "output format")
	flags.StringVar(&in.name, "name", "", "`prefix` of the output files")
	flags.StringVar(&in.kernel, "kernel", "", "kernel `file`; empty for none")
	flags.StringVar(&in.initrd, "initrd", "", "initramfs `file`")
	cmdline := flags.String("cmdline", "", "`file` with the kernel command line; empty for none")
	flags.Int64Var(&in.size, "size", 0, "size of a disk in `bytes`; 0 for the smallest")
	flags.StringVar(&in.arch, "arch", "amd64", "architecture of the machine")
	flags.StringVar(&in.loaders, "loaders", "", "`directory` with the boot loaders")
	epoch := flags.Int64("epoch", 0, "time for formats that store one, in `seconds` since 1970")
	flags.StringVar(&in.out, "out", "", "`directory` for the output files")
	if err := flags.parse(args, "format", "name", "initrd", "out"); err != nil {
		return err
	}
	if filepath.Base(in.name) != in.name || strings.HasPrefix(in.name, ".") {
		return fmt.Errorf("name %q cannot be the start of a file name", in.name)
	}
	in.epoch = time.Unix(*epoch, 0).UTC()
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

// writeRaw writes a disk for BIOS and UEFI.
func writeRaw(in formatInputs) ([]string, error) {
	if in.arch != "amd64" {
		return nil, fmt.Errorf("there is no disk for %s yet: use kernel+initrd", in.arch)
	}
	if in.kernel == "" {
		return nil, errors.New("a disk needs a kernel: set kernel.image in the machine")
	}
	if in.loaders == "" {
		return nil, errors.New("--loaders is missing")
	}
	loaders, err := disk.ReadLoaders(in.loaders)
	if err != nil {
		return nil, err
	}
	contents := disk.Contents{Cmdline: in.cmdline}
	if contents.Kernel, err = blob(in.kernel); err != nil {
		return nil, err
	}
	if contents.Initrd, err = blob(in.initrd); err != nil {
		return nil, err
	}
	raw, err := disk.New(contents, loaders, in.size, in.epoch)
	if err != nil {
		return nil, err
	}
	if raw.BIOSCmdline() != in.cmdline {
		warn("under BIOS, GRUB passes the kernel command line on as: " + raw.BIOSCmdline())
	}
	name := filepath.Join(in.out, in.name+".raw")
	return []string{name}, output.File(name, func(f *os.File) error {
		if err := f.Truncate(raw.Size()); err != nil {
			return err
		}
		return raw.Write(f)
	})
}

func blob(name string) (disk.Blob, error) {
	info, err := os.Stat(name)
	if err != nil {
		return disk.Blob{}, err
	}
	return disk.Blob{Size: info.Size(), Open: func() (io.ReadCloser, error) { return os.Open(name) }}, nil
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
