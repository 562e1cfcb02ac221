// Command slipway-exporter packs files into segments of a root filesystem and
// writes output formats. It runs inside the build, from an empty root filesystem.
//
// Usage:
//
//	slipway-exporter pack    IMAGE --prefix PATH --rules init|container|volume|none ARCHIVE --out DIR
//	slipway-exporter kernel  IMAGE --binary PATH --tar PATH --ucode PATH ARCHIVE --out DIR
//	slipway-exporter entries --spec FILE --source DIR ARCHIVE --out DIR
//	slipway-exporter layout  --index FILE --name REFERENCE --blob FILE ... --platform OS/ARCH[/VARIANT] ... --prefix PATH ARCHIVE --out DIR
//	slipway-exporter join    --ucode FILE --out DIR SEGMENT...
//	slipway-exporter write   --format FORMAT --name NAME --kernel FILE --initrd FILE --cmdline FILE --arch ARCH --size BYTES --loaders DIR --epoch SECONDS --out DIR
//	slipway-exporter write   --format FORMAT --name NAME --kernel FILE --ucode FILE --cmdline FILE --epoch SECONDS --out DIR SEGMENT...
//
// An IMAGE is a directory with a root filesystem, --in DIR, or the blobs of the
// layers of an OCI image, the bottom one first: --layer FILE --layer FILE ...
// They are tar archives, uncompressed or compressed by gzip or zstd.
//
// An ARCHIVE is --archive cpio --compression C, where C is zstd[:1-22],
// gzip[:1-9] or none, or --archive tar, which is never compressed. Segments for
// join are cpio, those for write are tar. A SEGMENT is the directory that the
// first four commands were given as --out, or NAME=DIR, where messages shall
// call it NAME.
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
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/slipway-build/slipway/exporter"
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
	"layout":  layout,
	"join":    join,
	"write":   write,
}

func run(args []string, report io.Writer) error {
	if len(args) == 0 || commands[args[0]] == nil {
		return errors.New("the first argument must be pack, kernel, entries, layout, join or write")
	}
	return commands[args[0]](args[1:], report)
}

func pack(args []string, _ io.Writer) error {
	flags := newFlags("pack")
	image := flags.image()
	prefix := flags.String("prefix", "", "`path` in the machine under which the files go")
	rules := flags.String("rules", string(segment.RulesNone), "init, container, volume or none")
	packer, err := flags.packer(args)
	if err != nil {
		return err
	}
	if err := flags.oneOf(image); err != nil {
		return err
	}
	return packer.Pack(*image, strings.Trim(*prefix, "/"), segment.Rules(*rules))
}

func kernel(args []string, _ io.Writer) error {
	flags := newFlags("kernel")
	image := flags.image()
	binary := flags.String("binary", "kernel", "`path` of the kernel in it")
	tar := flags.String("tar", "kernel.tar", "`path` of the archive with the modules; empty for none")
	ucode := flags.String("ucode", "", "`path` of the microcode archive; empty for none")
	packer, err := flags.packer(args, "binary")
	if err != nil {
		return err
	}
	if err := flags.oneOf(image); err != nil {
		return err
	}
	return packer.Kernel(*image, *binary, *tar, *ucode)
}

func entries(args []string, _ io.Writer) error {
	flags := newFlags("entries")
	spec := flags.String("spec", "", "JSON `file` with the entries")
	source := flags.String("source", "", "`directory` that the sources of files are in")
	packer, err := flags.packer(args, "spec")
	if err != nil {
		return err
	}
	return packer.Entries(*spec, *source)
}

func layout(args []string, _ io.Writer) error {
	flags := newFlags("layout")
	index := flags.String("index", "", "`file` with the index of the image, or its manifest if it has none")
	name := flags.String("name", "", "`reference` of the image")
	blobs := flags.list("blob", "`file` with a manifest, configuration or layer of the image; repeated")
	platforms := flags.list("platform", "`OS/ARCH[/VARIANT]` to take from the image; repeated; all if not given")
	prefix := flags.String("prefix", "", "`path` in the machine of the OCI image layout")
	packer, err := flags.packer(args, "index", "name")
	if err != nil {
		return err
	}
	return packer.Layout(*index, *name, *blobs, *platforms, strings.Trim(*prefix, "/"))
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
		return segment.Join(f, *ucode, flags.segments())
	})
}

func write(args []string, report io.Writer) error {
	flags := newFlags("write")
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
	flags.positional = true
	if err := flags.parse(args, "format", "name", "out"); err != nil {
		return err
	}
	m.Segments = flags.segments()
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

// image defines --in and --layer, of which there must be one.
func (f *flagSet) image() *segment.Image {
	var image segment.Image
	f.StringVar(&image.Dir, "in", "", "`directory` with the root filesystem of the image")
	f.listVar(&image.Layers, "layer", "`file` with a layer of the image, instead of --in; repeated, the bottom one first")
	return &image
}

// list defines a flag that may be repeated.
func (f *flagSet) list(name, usage string) *[]string {
	var values []string
	f.listVar(&values, name, usage)
	return &values
}

func (f *flagSet) listVar(values *[]string, name, usage string) {
	f.Func(name, usage, func(s string) error {
		*values = append(*values, s)
		return nil
	})
}

func (f *flagSet) oneOf(image *segment.Image) error {
	if (image.Dir == "") == (len(image.Layers) == 0) {
		return fmt.Errorf("%s: give either --in or --layer", f.Name())
	}
	return nil
}

// packer defines the flags that say which segment is made, and parses args.
func (f *flagSet) packer(args []string, required ...string) (segment.Packer, error) {
	var p segment.Packer
	archive := f.String("archive", string(segment.CPIO), "cpio, for an initramfs, or tar")
	compression := f.String("compression", "", "of cpio: zstd[:1-22], gzip[:1-9] or none (default zstd)")
	f.StringVar(&p.Out, "out", "", "`directory` for the segment")
	if err := f.parse(args, append(required, "out")...); err != nil {
		return p, err
	}
	p.Archive = segment.Archive(*archive)
	switch p.Archive {
	case segment.CPIO:
		if *compression == "" {
			*compression = "zstd"
		}
	case segment.Tar:
		if *compression == "" {
			*compression = "none"
		}
		if *compression != "none" {
			return p, fmt.Errorf("%s: --compression %s: tar segments are not compressed", f.Name(), *compression)
		}
	default:
		return p, fmt.Errorf("%s: --archive %s: use cpio or tar", f.Name(), *archive)
	}
	var err error
	if p.Compression, err = segment.ParseCompression(*compression); err != nil {
		return p, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return p, nil
}

// segments reads the arguments after the flags.
func (f *flagSet) segments() []segment.Dir {
	var dirs []segment.Dir
	for _, arg := range f.Args() {
		dirs = append(dirs, segment.ParseDir(arg))
	}
	return dirs
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
