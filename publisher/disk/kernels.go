package disk

import (
	"fmt"
	"io"
	"slices"

	exporterdisk "github.com/slipway-build/slipway/exporter/disk"
	"github.com/slipway-build/slipway/exporter/fat"
	"github.com/slipway-build/slipway/internal/kernel"
)

// architectures maps the architecture in the boot header of a kernel to the one
// of the machine. Old kernels for x86 do not say whether they have 64 bits.
var architectures = map[string]Architecture{"386": AMD64, "amd64": AMD64, "arm64": ARM64}

// grub is the boot loader for BIOS.
const grub = "GRUB"

// A mismatch is a boot loader that cannot start its kernel.
type mismatch struct {
	loader               string
	architecture, kernel Architecture
}

func (m mismatch) String() string {
	return fmt.Sprintf("%s is for %s, but its kernel for %s", m.loader, m.architecture, m.kernel)
}

// mismatches returns the boot loaders for UEFI and BIOS whose kernel is for
// another architecture. It ignores kernels that it does not find or recognize.
func mismatches(esp *fat.FS, uefi []Architecture, bios bool) []mismatch {
	var found []mismatch
	add := func(loader string, a Architecture, linux *io.SectionReader) {
		if h, err := kernel.ReadHeader(linux, linux.Size()); err == nil && architectures[h.Architecture] != a {
			found = append(found, mismatch{loader, a, architectures[h.Architecture]})
		}
	}
	entry, _, entryErr := bootFiles(esp)
	for _, architecture := range exporterdisk.Architectures {
		a, path := architectures[architecture], exporterdisk.LoaderPath(architecture)
		if !slices.Contains(uefi, a) {
			continue
		}
		if program, err := readProgram(esp, path); err == nil {
			if linux, ok := program.Section(".linux"); ok {
				add(path, a, io.NewSectionReader(linux, 0, linux.Size))
				continue
			}
		}
		if entryErr == nil {
			add(path, a, entry)
		}
	}
	if linux := grubKernel(esp); bios && linux != nil {
		add(grub, AMD64, linux)
	}
	return found
}

// grubKernel returns the kernel that the configuration of GRUB names first, or
// nil if there is none.
func grubKernel(esp *fat.FS) *io.SectionReader {
	text, err := esp.Content("grub/grub.cfg")
	if err != nil {
		return nil
	}
	script, err := io.ReadAll(io.LimitReader(text, maxEntry))
	if err != nil {
		return nil
	}
	linux, err := esp.Content(exporterdisk.ParseGRUB(string(script)).Kernel)
	if err != nil {
		return nil
	}
	return linux
}
