// Package image opens what a build writes, and what other tools write in the
// same formats: disks in any container, ISO files, unified kernel images,
// initramfs files and root file systems. It finds the partitions, boot loaders,
// kernel, command line and root file system in them.
//
// Images may come from strangers. The package bounds what it reads and unpacks,
// and returns an error, or a warning in [Image.Warnings], for what it does not
// understand.
package image

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/slipway-build/slipway/exporter/eif"
	"github.com/slipway-build/slipway/exporter/format"
	"github.com/slipway-build/slipway/exporter/tree"
	"github.com/slipway-build/slipway/internal/kernel"
)

// An Image is an opened image. Close it when done.
type Image struct {
	// Name is the path that was opened.
	Name string
	// Kind is what the image is, for example "qcow2 disk".
	Kind  string
	Files []File
	// Size is the size of the disk, or the sum of the sizes of the files, in
	// bytes.
	Size int64

	Partitions []Partition // of a disk
	Loaders    []Loader
	Kernel     *Kernel // nil if there is none
	Cmdline    string  // kernel command line
	Initramfs  []Part  // archives of the initramfs; nil for other root file systems
	// Enclave is what an enclave that boots the image measures, and nil for other
	// images.
	Enclave *eif.Measurements
	// Root is the root file system, sorted by path. The root directory has no
	// entry if the image has none.
	Root     []tree.Entry
	RootKind string // for example "initramfs" or "SquashFS"
	Warnings []string

	bootOnly bool        // do not unpack the initramfs
	kernel   io.ReaderAt // of Kernel
	archives []archive   // of the initramfs
	blocks   io.ReaderAt // of the disk, or of the only file; may be nil
	verity   verityParts
	unpacked *spool
	closers  []io.Closer
}

// A File is a file of an image.
type File struct {
	Name string `json:"name"`
	Size int64  `json:"size"` // bytes
}

// A Partition is a partition of a disk.
type Partition struct {
	Number     int    `json:"number"`
	Name       string `json:"name,omitempty"`
	Type       string `json:"type"`
	Start      int64  `json:"start"` // bytes
	Size       int64  `json:"size"`  // bytes
	FileSystem string `json:"fileSystem,omitempty"`
	Free       int64  `json:"free"`            // bytes of the file system, if it is FAT
	Files      []File `json:"files,omitempty"` // of an EFI system partition

	esp bool // its type says that it is an EFI system partition
	// root and rootVerity report the same of a root file system and its hash tree.
	root, rootVerity bool
}

// A Loader is a program that firmware starts.
type Loader struct {
	Firmware     string `json:"firmware"` // "BIOS" or "UEFI"
	Name         string `json:"name"`     // for example "systemd-boot"
	Path         string `json:"path,omitempty"`
	Architecture string `json:"architecture"` // as in GOARCH
	Signed       bool   `json:"signed"`       // there is a signature
	// Signers are those whose signatures cover the program as it is. Whether
	// firmware trusts them is up to its keys.
	Signers []Signer `json:"signers,omitempty"`
	Entry   string   `json:"entry,omitempty"`
	Cmdline string   `json:"cmdline"`
}

// A Signer is the certificate of a key that signed a program.
type Signer struct {
	Subject     string `json:"subject"`
	Fingerprint string `json:"fingerprint"` // SHA-256 of the certificate in hexadecimal
}

// A Kernel is a Linux kernel.
type Kernel struct {
	Path         string `json:"path"`
	Architecture string `json:"architecture"` // as in GOARCH
	Release      string `json:"release"`
	Compression  string `json:"compression,omitempty"`
	Size         int64  `json:"size"` // bytes

	memory int64 // bytes that it needs to start
}

// A Part is an archive of an initramfs.
type Part struct {
	Offset     int64            `json:"offset"`     // bytes
	Compressed int64            `json:"compressed"` // bytes, with the padding after it
	Unpacked   int64            `json:"unpacked"`   // bytes of files
	Files      int              `json:"files"`
	components map[string]int64 // unpacked bytes
}

// ErrUnknown is the error for a file of a format that the package does not know.
var ErrUnknown = errors.New("unknown format: it is no disk, ISO, unified kernel image, initramfs, root file system or container image")

// Open opens a file, a directory with the files of one machine, or the common
// prefix of the files of one machine: for kernel+initrd, out/aws stands for
// out/aws-kernel, out/aws-initrd.img and out/aws-cmdline, and so does each of
// these names.
func Open(name string) (*Image, error) {
	i := &Image{Name: name}
	if err := i.open(name); err != nil {
		i.Close()
		return nil, err
	}
	return i, nil
}

// OpenReader is like Open for a file of size bytes in r, which must stay open.
func OpenReader(name string, r io.ReaderAt, size int64) (*Image, error) {
	i := &Image{Name: name}
	if err := i.read([]input{{name: name, r: r, size: size}}); err != nil {
		i.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return i, nil
}

// Close closes the files.
func (i *Image) Close() error {
	var errs []error
	for _, c := range i.closers {
		errs = append(errs, c.Close())
	}
	i.closers = nil
	return errors.Join(errs...)
}

func (i *Image) warn(format string, args ...any) {
	const most = 100
	if len(i.Warnings) < most {
		i.Warnings = append(i.Warnings, fmt.Sprintf(format, args...))
	}
}

// input is an opened file.
type input struct {
	name   string
	suffix string // in the table of formats; "" for a file alone
	r      io.ReaderAt
	size   int64
}

func (i *Image) open(name string) error {
	names, err := files(name)
	if err != nil {
		return err
	}
	var inputs []input
	for _, n := range names {
		f, err := os.Open(n.name)
		if err != nil {
			return err
		}
		i.closers = append(i.closers, f)
		info, err := f.Stat()
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return fmt.Errorf("%s is not a regular file", n.name)
		}
		inputs = append(inputs, input{n.name, n.suffix, f, info.Size()})
	}
	if err := i.read(inputs); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// candidate is a file of a machine and its suffix in the table of formats.
type candidate struct{ name, suffix string }

// bootSuffixes are those of formats of several files, longest first.
func bootSuffixes() []string {
	var all []string
	for _, f := range format.All() {
		if len(f.Suffixes) > 1 {
			all = append(all, f.Suffixes...)
		}
	}
	slices.Sort(all)
	all = slices.DeleteFunc(slices.Compact(all), func(s string) bool { return s == isoSuffix || s == ".tar" || strings.HasSuffix(s, ".map") })
	slices.SortFunc(all, func(a, b string) int { return len(b) - len(a) })
	return all
}

// files returns the files that belong to a name, in the order of their names.
func files(name string) ([]candidate, error) {
	info, err := os.Stat(name)
	switch {
	case err == nil && info.IsDir():
		return filesIn(name)
	case err == nil:
		for _, suffix := range bootSuffixes() {
			if prefix, ok := strings.CutSuffix(name, suffix); ok && prefix != "" && !strings.HasSuffix(prefix, "/") {
				return siblings(prefix), nil
			}
		}
		return []candidate{{name, ""}}, nil
	case errors.Is(err, os.ErrNotExist):
		if found := siblings(name); len(found) > 0 {
			return found, nil
		}
	}
	return nil, err
}

// siblings returns the files with a prefix.
func siblings(prefix string) []candidate {
	var found []candidate
	for _, suffix := range bootSuffixes() {
		if info, err := os.Stat(prefix + suffix); err == nil && info.Mode().IsRegular() {
			found = append(found, candidate{prefix + suffix, suffix})
		}
	}
	if iso := prefix + isoSuffix; len(found) > 0 {
		if info, err := os.Stat(iso); err == nil && info.Mode().IsRegular() {
			found = append(found, candidate{iso, isoSuffix})
		}
	}
	slices.SortFunc(found, func(a, b candidate) int { return strings.Compare(a.name, b.name) })
	return found
}

// kernelSuffixes are those of kernels.
var kernelSuffixes = []string{format.KernelSuffix, format.VMLinuxSuffix}

// isoSuffix is that of the root file system of kernel+iso, and of CDs.
const isoSuffix = ".iso"

// filesIn returns the files of the only machine in a directory.
func filesIn(dir string) ([]candidate, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	images := map[string][]candidate{}
	for _, e := range entries {
		if !e.Type().IsRegular() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		switch filepath.Ext(e.Name()) {
		case ".map", ".json", ".yml", ".yaml", ".txt", ".md":
			continue
		}
		name := filepath.Join(dir, e.Name())
		found, err := files(name)
		if err != nil {
			return nil, err
		}
		images[found[0].name] = found
	}
	if len(images) != 1 {
		return nil, fmt.Errorf("%s has %d images: name one of its files", dir, len(images))
	}
	for _, found := range images {
		return found, nil
	}
	panic("unreachable")
}

// read finds out what the inputs are.
func (i *Image) read(inputs []input) error {
	for _, in := range inputs {
		i.Files = append(i.Files, File{in.name, in.size})
		i.Size += in.size
	}
	if len(inputs) == 1 {
		i.blocks = inputs[0].r
	}
	var initrds []archive
	for _, in := range inputs {
		switch in.suffix {
		case format.PCRsSuffix, format.KMSPolicySuffix: // what the image measures, as Enclave
			continue
		case format.FirecrackerSuffix, format.CloudHypervisorSuffix: // how to boot the other files
			continue
		}
		if in.suffix == "-cmdline" {
			text, err := readText(in.r, in.size)
			if err != nil {
				return err
			}
			i.Cmdline = strings.TrimRight(text, "\n")
			continue
		}
		kind, err := sniff(in.r, in.size)
		if err != nil {
			return err
		}
		switch {
		case kind == kindKernel && len(inputs) == 1 || kind == kindKernel && slices.Contains(kernelSuffixes, in.suffix):
			i.setKernel(in.name, in.r, in.size)
			if i.Kind == "" {
				i.Kind = "Linux kernel"
			}
		case kind == kindInitramfs:
			initrds = append(initrds, archive{in.name, in.r, in.size})
		default:
			if err := i.readFile(kind, in); err != nil {
				return err
			}
		}
	}
	if len(initrds) == 0 {
		return nil
	}
	if i.Root != nil { // the initramfs only leads to the root file system
		return nil
	}
	i.Kind = "initramfs"
	if i.Kernel != nil {
		i.Kind = "kernel and initramfs"
	}
	return i.readInitramfs(initrds)
}

// Blocks returns a reader of the Size bytes of the disk, without its container, or
// of the only file. It is nil for an image of several files.
func (i *Image) Blocks() io.ReaderAt { return i.blocks }

// maxText limits configuration files, in bytes.
const maxText = 64 << 10

func readText(r io.ReaderAt, size int64) (string, error) {
	text, err := io.ReadAll(io.NewSectionReader(r, 0, min(size, maxText)))
	return string(text), err
}

// setKernel reads the header of a kernel.
func (i *Image) setKernel(path string, r io.ReaderAt, size int64) {
	if i.Kernel != nil {
		return
	}
	header, err := kernel.ReadHeader(r, size)
	if err != nil {
		i.warn("%s: %v", path, err)
		return
	}
	k := &Kernel{Path: path, Architecture: header.Architecture, Compression: header.Compression, Size: size}
	if k.Release, err = kernel.Release(r, size); err != nil {
		i.warn("%s: %v", path, err)
	}
	if header.X86 != nil {
		k.memory = int64(header.X86.InitSize)
	}
	i.Kernel, i.kernel = k, r
}
