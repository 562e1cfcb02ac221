package disk

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"github.com/slipway-build/slipway/exporter/cpio"
	exporterdisk "github.com/slipway-build/slipway/exporter/disk"
	"github.com/slipway-build/slipway/exporter/fat"
	"github.com/slipway-build/slipway/internal/kernel"
)

// drivers are the modules that EC2's current instance types need.
var drivers = []struct{ module, warning string }{
	{"ena", "the kernel %s has no driver for ENA, the network of EC2's current instance types: choose a kernel with the module ena, or the machine starts without network"},
	{"nvme", "the kernel %s has no driver for NVMe, as which EC2's current instance types have their disks: choose a kernel with nvme, or the machine sees no disk"},
}

// Limits of what missingDrivers reads.
const (
	maxInitrd  = 1 << 30  // bytes of all initramfs files, unpacked too
	maxInitrds = 8        // of one boot entry
	maxEntry   = 64 << 10 // bytes of a boot entry
	maxBuiltin = 1 << 20  // bytes of modules.builtin
)

// errUnknown is the error if the disk does not show which drivers its kernel has.
var errUnknown = errors.New("the drivers of the kernel are not known")

// missingDrivers returns warnings about drivers that the kernel on the disk does
// not have: the initramfs has no such module, and the kernel's list of built-in
// modules does not name it. It returns none if the disk does not show that.
func missingDrivers(esp *fat.FS) []string {
	linux, initrds, err := bootFiles(esp)
	if err != nil {
		return nil
	}
	release, err := kernel.Release(linux, linux.Size())
	if err != nil || release == "" {
		return nil
	}
	found, err := modules(initrds, release)
	if err != nil {
		return nil
	}
	var warnings []string
	for _, d := range drivers {
		if !found[d.module] {
			warnings = append(warnings, fmt.Sprintf(d.warning, release))
		}
	}
	return warnings
}

// bootFiles returns the kernel and the initramfs that the only entry of
// systemd-boot names (UAPI.1 Boot Loader Specification, type 1), or else those in
// a unified kernel image (UAPI.5).
func bootFiles(esp *fat.FS) (linux *io.SectionReader, initrds []io.Reader, err error) {
	const dir = "loader/entries"
	files, err := esp.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return unified(esp)
	}
	if err != nil {
		return nil, nil, err
	}
	var entries []string
	for _, f := range files {
		if !f.IsDir() && strings.EqualFold(path.Ext(f.Name()), ".conf") {
			entries = append(entries, path.Join(dir, f.Name()))
		}
	}
	if len(entries) != 1 {
		return nil, nil, errUnknown
	}
	text, err := esp.Content(entries[0])
	if err != nil {
		return nil, nil, err
	}
	data, err := io.ReadAll(io.LimitReader(text, maxEntry))
	if err != nil {
		return nil, nil, err
	}
	entry := exporterdisk.ParseBootEntry(string(data))
	if entry.Kernel == "" || len(entry.Initrds) > maxInitrds {
		return nil, nil, errUnknown
	}
	if linux, err = esp.Content(entry.Kernel); err != nil {
		return nil, nil, err
	}
	for _, name := range entry.Initrds {
		initrd, err := esp.Content(name)
		if err != nil {
			return nil, nil, err
		}
		initrds = append(initrds, initrd)
	}
	return linux, initrds, nil
}

// unified returns the kernel and the initramfs in the program that UEFI firmware
// starts, if it is a unified kernel image.
func unified(esp *fat.FS) (linux *io.SectionReader, initrds []io.Reader, err error) {
	for _, architecture := range exporterdisk.Architectures {
		program, err := readProgram(esp, exporterdisk.LoaderPath(architecture))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		kernel, hasKernel := program.Section(".linux")
		initrd, hasInitrd := program.Section(".initrd")
		if hasKernel && hasInitrd {
			return io.NewSectionReader(kernel, 0, kernel.Size), []io.Reader{initrd.Reader()}, nil
		}
	}
	return nil, nil, errUnknown
}

// modules reports which of the drivers are in the initramfs or built into the
// kernel of a release. It fails if the initramfs cannot be read, or has no list of
// the kernel's built-in modules and not all drivers.
func modules(initrds []io.Reader, release string) (map[string]bool, error) {
	found := map[string]bool{}
	note := func(file string) {
		module, _, isModule := strings.Cut(path.Base(file), ".ko")
		for _, d := range drivers {
			if isModule && module == d.module {
				found[module] = true
			}
		}
	}
	listed := false
	read := func(initrd io.Reader) error {
		r := cpio.NewInitramfsReader(initrd, maxInitrd)
		defer r.Close()
		for len(found) < len(drivers) {
			h, err := r.Next()
			if err == io.EOF {
				return nil
			}
			if err != nil {
				return err
			}
			if h.Mode&cpio.TypeMask != cpio.TypeFile {
				continue
			}
			note(h.Name)
			if strings.HasSuffix(h.Name, "lib/modules/"+release+"/modules.builtin") && h.Size > 0 && h.Size < maxBuiltin {
				listed = true
				for lines := bufio.NewScanner(r); lines.Scan(); {
					note(lines.Text())
				}
			}
		}
		return nil
	}
	for _, initrd := range initrds {
		if err := read(initrd); err != nil {
			return nil, err
		}
	}
	if !listed && len(found) < len(drivers) {
		return nil, errUnknown
	}
	return found, nil
}
