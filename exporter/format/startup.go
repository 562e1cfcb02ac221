package format

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/slipway-build/slipway/exporter/segment"
	"github.com/slipway-build/slipway/exporter/sparse"
	"github.com/slipway-build/slipway/exporter/tree"
	"github.com/slipway-build/slipway/exporter/verity"
	"github.com/slipway-build/slipway/internal/contract"
	"github.com/slipway-build/slipway/internal/kernel/kmod"
)

// startupDrivers are the modules that the small initramfs contains if the
// machine's kernel has them as modules: drivers for disks and CDs, for their
// buses, and for the hypervisors that provide them.
var startupDrivers = []string{
	"virtio_pci", "virtio_mmio", "virtio_blk", "virtio_scsi", "nvme",
	"ahci", "ata_piix", "ata_generic", "sd_mod", "sr_mod", "cdrom",
	"xen_blkfront", "xen_scsifront", "hv_vmbus", "hv_storvsc", "pci_hyperv", "vmw_pvscsi", "mptspi", "mptsas", "megaraid_sas",
	"xhci_pci", "ehci_pci", "usb_storage", "uas", "sdhci_pci", "mmc_block",
}

// startup returns the parts of the small initramfs that mounts the root
// filesystem: the microcode, and the machine's init with the kernel modules that
// it needs. It returns no part if the kernel needs neither, unless dm-verity
// verifies the root filesystem, which only an init can set up.
func (j *job) startup(entries []tree.Entry, root rootFS) ([]sparse.Content, error) {
	var parts []sparse.Content
	if j.in.Ucode != "" {
		switch ucode, err := j.opened.Open(j.in.Ucode); {
		case err == nil:
			parts = append(parts, ucode.Pad(segment.PartAlignment))
		case !errors.Is(err, fs.ErrNotExist):
			return nil, fmt.Errorf("microcode: %w", err)
		}
	}
	files, err := root.modules(entries)
	if err != nil || len(files) == 0 && !root.verity {
		return parts, err
	}
	init, err := findInit(entries, root.verity)
	switch {
	case err != nil && root.verity:
		return nil, fmt.Errorf("a root that dm-verity verifies needs an init that sets it up: %w", err)
	case err != nil:
		return nil, fmt.Errorf("the kernel needs modules to mount %s, and an init that loads them: %w", root.name, err)
	}
	files = append(files, init, tree.NewFile(contract.StartupMarker, 0o444, root.kind))
	var b bytes.Buffer
	if err := segment.Write(&b, tree.AddParents(files), j.in.Compression); err != nil {
		return nil, err
	}
	return append(parts, sparse.Bytes(b.Bytes())), nil
}

// findInit returns the machine's init at its place in the small initramfs. It
// fails if the init cannot mount a root filesystem from there, or set up dm-verity
// if that is wanted.
func findInit(entries []tree.Entry, setUpVerity bool) (tree.Entry, error) {
	init, err := tree.Find(entries, "sbin/init")
	if errors.Is(err, fs.ErrNotExist) {
		return init, errors.New("there is no /sbin/init: add an init image")
	}
	if err != nil {
		return init, err
	}
	program, err := readFile(init)
	if err != nil {
		return init, err
	}
	if !bytes.Contains(program, []byte(contract.StartupMarker)) {
		return init, errors.New("/sbin/init does not support that: use slipwaybuild/init, or a kernel that has the modules built in")
	}
	if setUpVerity && !bytes.Contains(program, []byte(verity.Reaction)) {
		return init, errors.New("/sbin/init does not support that: use slipwaybuild/init of this release")
	}
	init.Path, init.Inode, init.Xattrs = "init", 0, nil
	return init, nil
}

func readFile(e tree.Entry) ([]byte, error) {
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

// modules returns the modules that the kernels of a machine need to mount the
// root filesystem, and their indexes, at their places in the small initramfs. It
// returns nothing for a kernel that has those of rootFS built in.
func (r rootFS) modules(entries []tree.Entry) ([]tree.Entry, error) {
	byPath := map[string]tree.Entry{}
	var indexes []string
	for _, e := range entries {
		byPath[e.Path] = e
		for _, pattern := range []string{"lib/modules/*/modules.dep", "usr/lib/modules/*/modules.dep"} {
			if ok, _ := path.Match(pattern, e.Path); ok { // the patterns are valid
				indexes = append(indexes, e.Path)
			}
		}
	}
	var all []tree.Entry
	for _, index := range indexes {
		files, err := r.modulesOf(path.Dir(index), byPath)
		if err != nil {
			return nil, err
		}
		all = append(all, files...)
	}
	return all, nil
}

// modulesOf returns what modules returns for one kernel, whose modules are in
// dir.
func (r rootFS) modulesOf(dir string, byPath map[string]tree.Entry) ([]tree.Entry, error) {
	index, err := kmod.Read(func(name string) ([]byte, error) {
		e, ok := byPath[path.Join(dir, name)]
		if !ok {
			return nil, fs.ErrNotExist
		}
		return readFile(e)
	})
	if err != nil {
		return nil, err
	}
	if _, known := byPath[path.Join(dir, "modules.builtin")]; known {
		for _, module := range r.needs {
			if !index.Builtin(module) && len(index.Resolve(module)) == 0 {
				return nil, fmt.Errorf("the kernel cannot mount %s: the module %s is neither built in nor in /%s: use a kernel.tar with it, or another format", r.name, module, dir)
			}
		}
	}
	if len(index.Files(slices.Concat(r.drivers, r.needs)...)) == 0 {
		return nil, nil
	}
	// The init looks in /lib/modules, wherever the machine has its modules.
	var all []tree.Entry
	add := func(name string) bool {
		e, ok := byPath[path.Join(dir, name)]
		if ok {
			e.Path, e.Inode = path.Join("lib/modules", path.Base(dir), name), 0
			all = append(all, e)
		}
		return ok
	}
	included := map[string]bool{}
	wanted := slices.Concat(startupDrivers, r.needs)
	if r.verity {
		wanted = append(wanted, verity.DigestModule)
	}
	for _, file := range index.Files(wanted...) {
		if !add(file) {
			return nil, fmt.Errorf("modules of the kernel: %s names %s, which does not exist", path.Join(dir, "modules.dep"), file)
		}
		included[file] = true
	}
	dependencies, err := readFile(byPath[path.Join(dir, "modules.dep")])
	if err != nil {
		return nil, err
	}
	var kept strings.Builder
	for line := range strings.Lines(string(dependencies)) {
		if file, _, _ := strings.Cut(line, ":"); included[file] {
			kept.WriteString(line)
		}
	}
	all = append(all, tree.NewFile(path.Join("lib/modules", path.Base(dir), "modules.dep"), 0o644, kept.String()))
	for _, name := range []string{"modules.alias", "modules.builtin", "modules.softdep"} {
		add(name)
	}
	return all, nil
}
