// Command slipway-exporter puts segments together and writes output formats. It
// runs inside the build, from an empty root filesystem.
//
// Usage:
//
//	slipway-exporter join  --ucode FILE --out DIR SEGMENT...
//	slipway-exporter write --format FORMAT --name NAME --kernel FILE --initrd FILE --cmdline FILE --arch ARCH --size BYTES --loaders DIR --epoch SECONDS --out DIR
//	slipway-exporter write --format FORMAT --name NAME --kernel FILE --ucode FILE --cmdline FILE --epoch SECONDS --out DIR SEGMENT...
//
// A SEGMENT is a directory that slipway-packer was given as --out, or NAME=DIR,
// where messages shall call it NAME. Segments for join are cpio archives, those
// for write are tar archives.
//
// The second form of write is for formats that are made of files and not of an
// initramfs: tar. Its first segment has the directories of the machine, what
// follows lies over it.
//
// The environment has no influence: SOURCE_DATE_EPOCH comes as --epoch, for
// formats that store times.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/slipway-build/slipway/cmd/internal/command"
	"github.com/slipway-build/slipway/exporter"
	"github.com/slipway-build/slipway/exporter/format"
	"github.com/slipway-build/slipway/exporter/output"
	"github.com/slipway-build/slipway/exporter/segment"
)

func main() {
	command.Main(program, []command.Command{
		{Name: "join", Run: join},
		{Name: "write", Run: write},
	})
}

const program = "slipway-exporter"

func join(args []string, _ io.Writer) error {
	flags := command.NewFlags("join")
	ucode := flags.String("ucode", "", "microcode `file` to put first, if it exists")
	out := flags.String("out", "", "`directory` for initrd.img")
	flags.Positional = true
	if err := flags.Parse(args, "out"); err != nil {
		return err
	}
	if flags.NArg() == 0 {
		return errors.New("join: no segment directories given")
	}
	return output.File(filepath.Join(*out, "initrd.img"), func(f *os.File) error {
		return segment.Join(f, *ucode, segments(flags))
	})
}

func write(args []string, report io.Writer) error {
	flags := command.NewFlags("write")
	var m format.Machine
	name := flags.String("format", "", "output `format`: "+strings.Join(format.Names(), " or "))
	flags.StringVar(&m.Name, "name", "", "`prefix` of the output files")
	flags.StringVar(&m.Kernel, "kernel", "", "kernel `file`; empty for none")
	flags.StringVar(&m.Initrd, "initrd", "", "initramfs `file`, unless the format is made of segments")
	flags.StringVar(&m.Ucode, "ucode", "", "microcode `file`, if it exists, for a format made of segments")
	cmdline := flags.String("cmdline", "", "`file` with the kernel command line; empty for none")
	flags.StringVar(&m.Architecture, "arch", "amd64", "architecture of the machine")
	flags.Int64Var(&m.Size, "size", 0, "size of a disk in `bytes`; 0 for the smallest")
	flags.StringVar(&m.Loaders, "loaders", "", "`directory` with the boot loaders, for disks")
	epoch := flags.Int64("epoch", exporter.Epoch, "time for formats that store one, in `seconds` since 1970")
	out := flags.String("out", "", "`directory` for the output files")
	flags.Positional = true
	if err := flags.Parse(args, "format", "name", "out"); err != nil {
		return err
	}
	m.Segments = segments(flags)
	m.Time = time.Unix(*epoch, 0)
	if *cmdline != "" {
		text, err := os.ReadFile(*cmdline)
		if err != nil {
			return fmt.Errorf("kernel command line: %w", err)
		}
		m.Cmdline = string(text)
	}
	files, err := format.Write(*name, m, *out, warn)
	if err != nil {
		return err
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

// segments reads the arguments after the flags.
func segments(flags *command.Flags) []segment.Dir {
	var dirs []segment.Dir
	for _, arg := range flags.Args() {
		dirs = append(dirs, segment.ParseDir(arg))
	}
	return dirs
}

func warn(message string) {
	fmt.Fprintln(os.Stderr, program+": warning:", message)
}
