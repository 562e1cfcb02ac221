package disk

import (
	"bufio"
	"cmp"
	"debug/pe"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/slipway-build/slipway/internal/kernel"
)

// What EC2's current instance types have, and the kernel's names of the drivers.
var drivers = []struct{ module, warning string }{
	{"ena", "the kernel %s has no driver for ENA, the network of EC2's current instance types: choose a kernel with the module ena, or the machine starts without network"},
	{"nvme", "the kernel %s has no driver for NVMe, as which EC2's current instance types have their disks: choose a kernel with nvme, or the machine sees no disk"},
}

// missingDrivers warns of drivers that the kernel on the disk lacks for certain:
// the initramfs has no such module, the list of what is built into this very
// kernel does not name it, and there is no other partition where it could be.
// Wherever one of these cannot be told, there is no warning.
func missingDrivers(esp *fatReader) []string {
	linux, initrds, err := bootFiles(esp)
	if err != nil {
		return nil
	}
	version, err := kernel.Release(linux, linux.Size())
	if err != nil || version == "" {
		return nil
	}
	has, err := modules(initrds, version)
	if err != nil {
		return nil
	}
	var warnings []string
	for _, d := range drivers {
		if !has[d.module] {
			warnings = append(warnings, fmt.Sprintf(d.warning, version))
		}
	}
	return warnings
}

// bootFiles finds kernel and initramfs: in the one entry of systemd-boot (UAPI.1
// Boot Loader Specification, type 1), or in a unified kernel image (UAPI.5).
func bootFiles(esp *fatReader) (linux *io.SectionReader, initrds []io.Reader, err error) {
	entries, err := esp.lookup(esp.root, "LOADER     ", true)
	if err == nil {
		entries, err = esp.lookup(entries, "ENTRIES    ", true)
	}
	if errors.Is(err, errNotFound) {
		return unified(esp)
	}
	if err != nil {
		return nil, nil, err
	}
	var found []place
	err = esp.walk(entries, func(entry fatEntry) bool {
		if !entry.directory && strings.HasSuffix(entry.name, "CON") {
			found = append(found, entry.place)
		}
		return true
	})
	if err != nil || len(found) != 1 {
		return nil, nil, cmp.Or(err, errNotFound)
	}
	text, err := esp.open(found[0])
	if err != nil {
		return nil, nil, err
	}
	lines := bufio.NewScanner(io.LimitReader(text, 64<<10))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) != 2 || fields[0] != "linux" && fields[0] != "initrd" {
			continue
		}
		at, err := esp.file(fields[1])
		if err != nil {
			return nil, nil, err
		}
		file, err := esp.open(at)
		if err != nil {
			return nil, nil, err
		}
		if fields[0] == "linux" {
			linux = file
		} else {
			initrds = append(initrds, file)
		}
	}
	if linux == nil || len(initrds) > 8 {
		return nil, nil, errNotFound
	}
	return linux, initrds, lines.Err()
}

// unified looks for the sections of a kernel in what the firmware starts.
func unified(esp *fatReader) (linux *io.SectionReader, initrds []io.Reader, err error) {
	for _, l := range loaderNames {
		at, err := esp.file("EFI/BOOT/" + strings.TrimSpace(l.short[:8]) + ".EFI")
		if err != nil {
			continue
		}
		file, err := esp.open(at)
		if err != nil {
			return nil, nil, err
		}
		program, err := pe.NewFile(file)
		if err != nil {
			return nil, nil, err
		}
		linux, initrd := program.Section(".linux"), program.Section(".initrd")
		if linux != nil && initrd != nil {
			return io.NewSectionReader(linux, 0, int64(linux.Size)), []io.Reader{initrd.Open()}, nil
		}
	}
	return nil, nil, errNotFound
}

// modules tells which of the drivers are in the initramfs or built into the
// kernel. It fails if that cannot be known.
func modules(initrds []io.Reader, version string) (map[string]bool, error) {
	has := map[string]bool{}
	note := func(file string) {
		module, _, found := strings.Cut(path.Base(file), ".ko")
		for _, d := range drivers {
			if found && module == d.module {
				has[module] = true
			}
		}
	}
	listed := false
	for _, initrd := range initrds {
		err := walkInitrd(initrd, func(file string, size int64, content io.Reader) bool {
			note(file)
			if strings.HasSuffix(file, "lib/modules/"+version+"/modules.builtin") && size > 0 && size < 1<<20 {
				listed = true
				for lines := bufio.NewScanner(content); lines.Scan(); {
					note(lines.Text())
				}
			}
			return len(has) < len(drivers)
		})
		if err != nil {
			return nil, err
		}
		if len(has) == len(drivers) {
			return has, nil
		}
	}
	if !listed {
		return nil, errNotFound
	}
	return has, nil
}
