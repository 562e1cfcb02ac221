package format

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/slipway-build/slipway/exporter/disk"
	"github.com/slipway-build/slipway/exporter/erofs"
	"github.com/slipway-build/slipway/exporter/iso9660"
	"github.com/slipway-build/slipway/exporter/output"
	"github.com/slipway-build/slipway/exporter/segment"
	"github.com/slipway-build/slipway/exporter/sparse"
	"github.com/slipway-build/slipway/exporter/squashfs"
	"github.com/slipway-build/slipway/exporter/tree"
	"github.com/slipway-build/slipway/internal/contract"
	"github.com/slipway-build/slipway/internal/kernel/cmdline"
	"github.com/slipway-build/slipway/internal/kernel/kmod"
)

// rootFS is a file system that the root of a machine can be.
type rootFS struct {
	name   string // for people
	kind   string // as the kernel knows it
	module string
	// drivers of disks without which nothing of this kind is usually reached.
	drivers []string
	holds   func(xattr string) bool
	write   func(f *os.File, entries []tree.Entry, m Machine) error
}

var (
	squashfsRoot = rootFS{
		name: "SquashFS", kind: "squashfs", module: "squashfs", drivers: []string{"virtio_blk", "nvme"}, holds: squashfs.SupportsXattr,
		write: func(f *os.File, entries []tree.Entry, m Machine) error {
			_, err := squashfs.Write(f, entries, squashfs.Options{Compression: m.Compression.Algorithm, Level: m.Compression.Level, Time: m.Time})
			return err
		},
	}
	erofsRoot = rootFS{
		name: "EROFS", kind: "erofs", module: "erofs", drivers: []string{"virtio_blk", "nvme"}, holds: erofs.SupportsXattr,
		write: func(f *os.File, entries []tree.Entry, m Machine) error {
			image, err := erofs.New(entries, m.Time)
			if err != nil {
				return err
			}
			return image.WriteFile(f)
		},
	}
	isoRoot = rootFS{
		name: "ISO 9660", kind: "iso9660", module: "isofs", drivers: []string{"sr_mod"}, holds: func(string) bool { return false },
		write: func(f *os.File, entries []tree.Entry, m Machine) error {
			volume, err := iso9660.New(entries, iso9660.Options{Label: disk.CDLabel, Time: m.Time})
			if err != nil {
				return err
			}
			image, err := volume.Image()
			if err != nil {
				return err
			}
			return image.WriteFile(f)
		},
	}
)

// rootDrivers are the drivers of disks and CDs, of the buses that they are on,
// and of what these lie behind, which a small initramfs has as far as they are
// modules of the machine's kernel.
var rootDrivers = []string{
	"virtio_pci", "virtio_mmio", "virtio_blk", "virtio_scsi", "nvme",
	"ahci", "ata_piix", "ata_generic", "sd_mod", "sr_mod", "cdrom",
	"xen_blkfront", "xen_scsifront", "hv_vmbus", "hv_storvsc", "pci_hyperv", "vmw_pvscsi", "mptspi", "mptsas", "megaraid_sas",
	"xhci_pci", "ehci_pci", "usb_storage", "uas", "sdhci_pci", "mmc_block",
}

// kernelRoot writes NAME-kernel, NAME-cmdline and the root filesystem, and
// NAME-initrd.img where the kernel needs modules to reach that, or there is
// microcode.
func kernelRoot(root rootFS, suffix string) writer {
	return func(m Machine, out string, warn func(string)) ([]string, error) {
		entries, close, err := segment.Tree(m.Segments, nil)
		if err != nil {
			return nil, err
		}
		defer close()
		entries = root.prepare(entries, warn)
		var opened sparse.Files
		defer opened.Close()
		initrd, err := m.startup(entries, root, &opened)
		if err != nil {
			return nil, err
		}
		files, err := m.writeBoot(out, initrd)
		if err != nil {
			return nil, err
		}
		files = append(files, filepath.Join(out, m.Name+suffix))
		return files, output.File(files[len(files)-1], func(f *os.File) error { return root.write(f, entries, m) })
	}
}

// prepare adds the folders that the machine mounts something on, since nobody
// can make them there, and warns of what the file system cannot hold.
func (r rootFS) prepare(entries []tree.Entry, warn func(string)) []tree.Entry {
	there := map[string]bool{}
	lost := map[string]int{}
	for _, e := range entries {
		there[e.Path] = true
		for name := range e.Xattrs {
			if !r.holds(name) {
				lost[name]++
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(lost)) {
		warn(fmt.Sprintf("%s has no place for the extended attribute %s; files that lose it: %d", r.name, name, lost[name]))
	}
	for _, name := range contract.MountPoints() {
		if !there[name] {
			entries = append(entries, tree.NewDir(name))
		}
	}
	return tree.AddParents(entries)
}

// startup gives the parts of the small initramfs that leads to the root
// filesystem: microcode, and the machine's init with the modules that it needs for
// that. There are none if the kernel needs neither.
func (m Machine) startup(entries []tree.Entry, root rootFS, opened *sparse.Files) ([]sparse.Content, error) {
	var parts []sparse.Content
	if m.Ucode != "" {
		switch ucode, err := opened.Open(m.Ucode); {
		case err == nil:
			parts = append(parts, ucode.Pad(segment.PartAlignment))
		case !errors.Is(err, fs.ErrNotExist):
			return nil, fmt.Errorf("microcode: %w", err)
		}
	}
	files, err := root.modules(entries)
	if err != nil || len(files) == 0 {
		return parts, err
	}
	init, err := findInit(entries)
	if err != nil {
		return nil, fmt.Errorf("the kernel needs modules for a root filesystem on %s, and so an init that loads them: %w", root.name, err)
	}
	files = append(files, init, tree.NewFile(contract.StartupMarker, 0o444, root.kind))
	var b bytes.Buffer
	if err := segment.Write(&b, tree.AddParents(files), m.Compression); err != nil {
		return nil, err
	}
	return append(parts, sparse.Bytes(b.Bytes())), nil
}

// findInit gives the machine's init as a small initramfs has it.
func findInit(entries []tree.Entry) (tree.Entry, error) {
	init, err := tree.Find(entries, "sbin/init")
	if errors.Is(err, fs.ErrNotExist) {
		return init, errors.New("there is no /sbin/init: add an init image")
	}
	if err != nil {
		return init, err
	}
	program, err := read(init)
	if err != nil {
		return init, err
	}
	if !bytes.Contains(program, []byte(contract.StartupMarker)) {
		return init, errors.New("this /sbin/init cannot: use slipwaybuild/init, or a kernel that has them built in")
	}
	init.Path, init.Inode, init.Xattrs = "init", 0, nil
	return init, nil
}

func read(e tree.Entry) ([]byte, error) {
	if e.Size == 0 {
		return nil, nil
	}
	content, err := e.Open()
	if err != nil {
		return nil, err
	}
	defer content.Close()
	return io.ReadAll(content)
}

// modules gives the modules for the root filesystem with their index, at their
// places. There are none if the kernel has built in what is usually needed.
func (r rootFS) modules(entries []tree.Entry) ([]tree.Entry, error) {
	byPath := map[string]tree.Entry{}
	var indexes []string
	for _, e := range entries {
		byPath[e.Path] = e
		for _, pattern := range []string{"lib/modules/*/modules.dep", "usr/lib/modules/*/modules.dep"} {
			if ok, _ := path.Match(pattern, e.Path); ok { // the pattern is right
				indexes = append(indexes, e.Path)
			}
		}
	}
	var all []tree.Entry
	for _, name := range indexes {
		dir := path.Dir(name)
		index, err := kmod.Read(func(name string) ([]byte, error) {
			e, ok := byPath[path.Join(dir, name)]
			if !ok {
				return nil, fs.ErrNotExist
			}
			return read(e)
		})
		if err != nil {
			return nil, err
		}
		if len(index.Files(append(r.drivers, r.module)...)) == 0 {
			continue
		}
		// Wherever they are in the machine, init looks here for them.
		at := path.Join("lib/modules", path.Base(dir))
		wanted := map[string]bool{}
		for _, file := range index.Files(append(slices.Clone(rootDrivers), r.module)...) {
			e, ok := byPath[path.Join(dir, file)]
			if !ok {
				return nil, fmt.Errorf("%s names %s, which is not there", name, file)
			}
			wanted[file] = true
			e.Path, e.Inode = path.Join(at, file), 0
			all = append(all, e)
		}
		dep, err := read(byPath[name])
		if err != nil {
			return nil, err
		}
		var kept strings.Builder
		for line := range strings.Lines(string(dep)) {
			if file, _, _ := strings.Cut(line, ":"); wanted[file] {
				kept.WriteString(line)
			}
		}
		all = append(all, tree.NewFile(path.Join(at, "modules.dep"), 0o644, kept.String()))
		for _, name := range []string{"modules.alias", "modules.builtin", "modules.softdep"} {
			if e, ok := byPath[path.Join(dir, name)]; ok {
				e.Path, e.Inode = path.Join(at, name), 0
				all = append(all, e)
			}
		}
	}
	return all, nil
}

// onCDRoot sets root= as LinuxKit does for CDs, unless the user has set it. It
// stands first, since what follows a -- is not the kernel's.
func (m Machine) onCDRoot() Machine {
	if _, ok := cmdline.Lookup(cmdline.Parse(m.Cmdline), "root"); ok {
		return m
	}
	root := "root=/dev/sr0"
	if m.Architecture == "arm64" {
		root = "root=/dev/vda"
	}
	if m.Cmdline != "" {
		root += " "
	}
	m.Cmdline = root + m.Cmdline
	return m
}
