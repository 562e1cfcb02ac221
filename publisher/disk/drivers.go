package disk

import (
	"bufio"
	"bytes"
	"cmp"
	"debug/pe"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"strings"
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
	kernel, initrds, err := bootFiles(esp)
	if err != nil {
		return nil
	}
	version := kernelVersion(kernel)
	if version == "" {
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
func bootFiles(esp *fatReader) (kernel io.ReaderAt, initrds []io.Reader, err error) {
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
			kernel = file
		} else {
			initrds = append(initrds, file)
		}
	}
	if kernel == nil || len(initrds) > 8 {
		return nil, nil, errNotFound
	}
	return kernel, initrds, lines.Err()
}

// unified looks for the sections of a kernel in what the firmware starts.
func unified(esp *fatReader) (kernel io.ReaderAt, initrds []io.Reader, err error) {
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
			return linux, []io.Reader{initrd.Open()}, nil
		}
	}
	return nil, nil, errNotFound
}

var validVersion = regexp.MustCompile(`^[0-9]+\.[0-9]+[\w.+~-]*$`)

// kernelVersion is what uname -r would say, or "".
func kernelVersion(kernel io.ReaderAt) string {
	head := make([]byte, 0x210)
	if _, err := kernel.ReadAt(head, 0); err != nil {
		return ""
	}
	var text []byte
	switch {
	case string(head[0x202:0x206]) == "HdrS": // Linux, Documentation/arch/x86/boot.rst
		at := int64(binary.LittleEndian.Uint16(head[0x20e:]))
		if at == 0 {
			return ""
		}
		text = make([]byte, 128)
		if _, err := kernel.ReadAt(text, at+0x200); err != nil {
			return ""
		}
	case string(head[0x38:0x3c]) == "ARM\x64": // Linux, Documentation/arch/arm64/booting.rst
		text = banner(kernel)
	}
	text, _, _ = bytes.Cut(text, []byte{0})
	fields := bytes.Fields(text)
	if len(fields) == 0 || !validVersion.Match(fields[0]) {
		return ""
	}
	return string(fields[0])
}

// banner finds what follows the words that a kernel begins its log with.
func banner(kernel io.ReaderAt) []byte {
	const most, piece, overlap = 128 << 20, 1 << 20, 256
	words := []byte("Linux version ")
	block := make([]byte, piece+overlap)
	for at := int64(0); at < most; at += piece {
		n, err := kernel.ReadAt(block, at)
		if i := bytes.Index(block[:n], words); i >= 0 && i < piece {
			return block[i+len(words) : n]
		}
		if err != nil {
			return nil
		}
	}
	return nil
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
