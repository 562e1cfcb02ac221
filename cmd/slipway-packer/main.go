// Command slipway-packer packs the files of one component into a segment of a
// machine's root filesystem. It runs inside the build, in an empty root
// filesystem.
//
// Its bytes are part of every segment's cache key: each change of the program
// repacks all components of all users. Therefore it does not contain the output
// formats, which slipway-exporter writes, and it has few dependencies.
//
// Usage:
//
//	slipway-packer pack    IMAGE --prefix PATH --rules init|container|volume|none ARCHIVE --out DIR
//	slipway-packer kernel  IMAGE --binary PATH --tar PATH --ucode PATH ARCHIVE --out DIR
//	slipway-packer entries --spec FILE --source DIR ARCHIVE --out DIR
//	slipway-packer layout  --index FILE --name REFERENCE --blob FILE ... --platform OS/ARCH[/VARIANT] ... --prefix PATH ARCHIVE --out DIR
//	slipway-packer repack  --name REFERENCE --image DIR ... --config FILE ... --prefix PATH ARCHIVE --out DIR
//
// An IMAGE is a directory with a root filesystem, --in DIR, or the layers of an
// OCI image, bottom first: --layer FILE --layer FILE ... Layers are tar archives,
// uncompressed or compressed with gzip or zstd.
//
// An ARCHIVE is --archive cpio --compression C, where C is zstd[:1-22],
// gzip[:1-9] or none, or --archive tar, which is never compressed.
//
// The program ignores the environment.
package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/slipway-build/slipway/cmd/internal/command"
	"github.com/slipway-build/slipway/exporter/segment"
)

func main() {
	command.Main("slipway-packer", []command.Command{
		{Name: "pack", Run: pack},
		{Name: "kernel", Run: kernel},
		{Name: "entries", Run: entries},
		{Name: "layout", Run: layout},
		{Name: "repack", Run: repack},
	})
}

func pack(args []string, _ io.Writer) error {
	flags := newFlags("pack")
	image := flags.image()
	prefix := flags.String("prefix", "", "`path` in the machine for the files")
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
	binary := flags.String("binary", "kernel", "`path` of the kernel in the image")
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
	source := flags.String("source", "", "`directory` that holds the sources of files")
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
	var blobs, platforms []string
	flags.ListVar(&blobs, "blob", "`file` with a manifest, configuration or layer of the image; repeated")
	flags.ListVar(&platforms, "platform", "`OS/ARCH[/VARIANT]` to copy from the image; repeated; default: all")
	prefix := flags.String("prefix", "", "`path` in the machine of the OCI image layout")
	packer, err := flags.packer(args, "index", "name")
	if err != nil {
		return err
	}
	return packer.Layout(*index, *name, blobs, platforms, strings.Trim(*prefix, "/"))
}

func repack(args []string, _ io.Writer) error {
	flags := newFlags("repack")
	name := flags.String("name", "", "`reference` of the image")
	var dirs, configs []string
	flags.ListVar(&dirs, "image", "`directory` with the root filesystem for a platform; repeated")
	flags.ListVar(&configs, "config", "`file` with the configuration of the image for that platform; repeated in the same order")
	prefix := flags.String("prefix", "", "`path` in the machine of the OCI image layout")
	packer, err := flags.packer(args, "name")
	if err != nil {
		return err
	}
	if len(dirs) == 0 || len(dirs) != len(configs) {
		return errors.New("repack: requires --image and --config for each platform")
	}
	var images []segment.Image
	for i := range dirs {
		images = append(images, segment.Image{Rootfs: segment.Rootfs{Dir: dirs[i]}, Config: configs[i]})
	}
	return packer.Repack(*name, images, strings.Trim(*prefix, "/"))
}

// A flagSet defines the flags that several subcommands share.
type flagSet struct{ *command.Flags }

func newFlags(name string) flagSet {
	return flagSet{command.NewFlags(name)}
}

// image defines --in and --layer. Exactly one of them is required.
func (f flagSet) image() *segment.Rootfs {
	var image segment.Rootfs
	f.StringVar(&image.Dir, "in", "", "`directory` with the root filesystem of the image")
	f.ListVar(&image.Layers, "layer", "`file` with a layer of the image, instead of --in; repeated, bottom first")
	return &image
}

// oneOf returns an error unless the image is a directory or layers.
func (f flagSet) oneOf(image *segment.Rootfs) error {
	if (image.Dir == "") == (len(image.Layers) == 0) {
		return fmt.Errorf("%s: requires either --in or --layer", f.Name())
	}
	return nil
}

// packer defines the flags for the output, and parses args.
func (f flagSet) packer(args []string, required ...string) (segment.Packer, error) {
	var p segment.Packer
	archive := f.String("archive", string(segment.CPIO), "cpio, for an initramfs, or tar")
	compression := f.String("compression", "", "compression of cpio: zstd[:1-22], gzip[:1-9] or none (default zstd)")
	f.StringVar(&p.Out, "out", "", "`directory` for the segment")
	if err := f.Parse(args, append(required, "out")...); err != nil {
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
