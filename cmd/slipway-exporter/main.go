// Command slipway-exporter packs files into initramfs segments and writes
// output formats. It runs inside the build, from an empty root filesystem.
//
// Usage:
//
//	slipway-exporter pack    --in DIR --prefix PATH --rules init|container|volume|none --compression C --out DIR
//	slipway-exporter kernel  --in DIR --binary PATH --tar PATH --ucode PATH --compression C --out DIR
//	slipway-exporter entries --spec FILE --source DIR --compression C --out DIR
//	slipway-exporter join    --ucode FILE --out DIR SEGMENTDIR...
//	slipway-exporter write   --format FORMAT --name NAME --kernel FILE --initrd FILE --cmdline FILE --arch ARCH --size BYTES --loaders DIR --epoch SECONDS --out DIR
//
// A compression C is zstd[:1-22], gzip[:1-9] or none. The environment has no
// influence: SOURCE_DATE_EPOCH comes as --epoch, for formats that store times.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/slipway-build/slipway/exporter/format"
	"github.com/slipway-build/slipway/exporter/output"
	"github.com/slipway-build/slipway/exporter/segment"
)

func main() {
	err := run(os.Args[1:], os.Stdout)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "slipway-exporter:", err)
		os.Exit(1)
	}
}

var commands = map[string]func(args []string, report io.Writer) error{
	"pack":    pack,
	"kernel":  kernel,
	"entries": entries,
	"join":    join,
	"write":   write,
}

func run(args []string, report io.Writer) error {
	if len(args) == 0 || commands[args[0]] == nil {
		return errors.New("the first argument must be pack, kernel, entries, join or write")
	}
	return commands[args[0]](args[1:], report)
}

func pack(args []string, _ io.Writer) error {
	flags := newFlags("pack")
	in := flags.String("in", "", "`directory` with the root filesystem of the image")
	prefix := flags.String("prefix", "", "`path` in the machine under which the files go")
	rules := flags.String("rules", string(segment.RulesNone), "init, container, volume or none")
	compression := flags.compression()
	out := flags.String("out", "", "`directory` for the segment")
	if err := flags.parse(args, "in", "out"); err != nil {
		return err
	}
	return segment.Pack(*in, strings.Trim(*prefix, "/"), segment.Rules(*rules), *compression, *out, warn)
}

func kernel(args []string, _ io.Writer) error {
	flags := newFlags("kernel")
	in := flags.String("in", "", "`directory` with the root filesystem of the kernel image")
	binary := flags.String("binary", "kernel", "`path` of the kernel in it")
	tar := flags.String("tar", "kernel.tar", "`path` of the archive with the modules; empty for none")
	ucode := flags.String("ucode", "", "`path` of the microcode archive; empty for none")
	compression := flags.compression()
	out := flags.String("out", "", "`directory` for kernel, microcode and segment")
	if err := flags.parse(args, "in", "binary", "out"); err != nil {
		return err
	}
	return segment.Kernel(*in, *binary, *tar, *ucode, *compression, *out, warn)
}

func entries(args []string, _ io.Writer) error {
	flags := newFlags("entries")
	spec := flags.String("spec", "", "JSON `file` with the entries")
	source := flags.String("source", "", "`directory` that the sources of files are in")
	compression := flags.compression()
	out := flags.String("out", "", "`directory` for the segment")
	if err := flags.parse(args, "spec", "out"); err != nil {
		return err
	}
	return segment.Entries(*spec, *source, *compression, *out)
}

func join(args []string, _ io.Writer) error {
	flags := newFlags("join")
	ucode := flags.String("ucode", "", "microcode `file` to put first, if it exists")
	out := flags.String("out", "", "`directory` for initrd.img")
	flags.positional = true
	if err := flags.parse(args, "out"); err != nil {
		return err
	}
	if flags.NArg() == 0 {
		return errors.New("join: no segment directories given")
	}
	return output.File(filepath.Join(*out, "initrd.img"), func(f *os.File) error {
		return segment.Join(f, *ucode, flags.Args())
	})
}

func write(args []string, report io.Writer) error {
	flags := newFlags("write")
	var m format.Machine
	name := flags.String("format", "", "output `format`: "+strings.Join(format.Names(), " or "))
	flags.StringVar(&m.Name, "name", "", "`prefix` of the output files")
	flags.StringVar(&m.Kernel, "kernel", "", "kernel `file`; empty for none")
	flags.StringVar(&m.Initrd, "initrd", "", "initramfs `file`")
	cmdline := flags.String("cmdline", "", "`file` with the kernel command line; empty for none")
	flags.StringVar(&m.Architecture, "arch", "amd64", "architecture of the machine")
	flags.Int64Var(&m.Size, "size", 0, "size of a disk in `bytes`; 0 for the smallest")
	flags.StringVar(&m.Loaders, "loaders", "", "`directory` with the boot loaders, for disks")
	epoch := flags.Int64("epoch", 0, "time for formats that store one, in `seconds` since 1970")
	out := flags.String("out", "", "`directory` for the output files")
	if err := flags.parse(args, "format", "name", "initrd", "out"); err != nil {
		return err
	}
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

// flagSet is a flag.FlagSet whose errors are returned, not printed.
type flagSet struct {
	*flag.FlagSet
	positional bool // arguments after the flags are expected
}

func newFlags(command string) *flagSet {
	flags := &flagSet{FlagSet: flag.NewFlagSet(command, flag.ContinueOnError)}
	flags.SetOutput(io.Discard)
	return flags
}

// compression defines the flag --compression.
func (f *flagSet) compression() *segment.Compression {
	c, err := segment.ParseCompression("zstd")
	if err != nil {
		panic(err)
	}
	f.Func("compression", "zstd[:1-22], gzip[:1-9] or none", func(s string) error {
		c, err = segment.ParseCompression(s)
		return err
	})
	return &c
}

// parse reads args and makes sure that the required flags have a value.
func (f *flagSet) parse(args []string, required ...string) error {
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			f.SetOutput(os.Stdout)
			f.Usage()
			return err
		}
		return fmt.Errorf("%s: %w", f.Name(), err)
	}
	if !f.positional && f.NArg() > 0 {
		return fmt.Errorf("%s: unexpected argument %q", f.Name(), f.Arg(0))
	}
	for _, name := range required {
		if f.Lookup(name).Value.String() == "" {
			return fmt.Errorf("%s: --%s is missing", f.Name(), name)
		}
	}
	return nil
}

func warn(message string) {
	fmt.Fprintln(os.Stderr, "slipway-exporter: warning:", message)
}
