package measure

import (
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/slipway-build/slipway/exporter/disk"
	"github.com/slipway-build/slipway/exporter/fat"
	"github.com/slipway-build/slipway/exporter/gpt"
	"github.com/slipway-build/slipway/exporter/sparse"
	"github.com/slipway-build/slipway/exporter/uki"
)

// programs are what UEFI firmware starts from a disk (UEFI 2.10, section 3.5.1.1).
var programs = []string{"EFI/BOOT/BOOTX64.EFI", "EFI/BOOT/BOOTAA64.EFI"}

// maxEntry limits the entry of systemd-boot, in bytes.
const maxEntry = 64 << 10

// File predicts the measurements of a unified kernel image or a raw disk, with the
// keys of the firmware as for UKI. The error is ErrUnknown if the first EFI system
// partition has no program whose measurements are known.
func File(r io.ReaderAt, size int64, keys *Keys) (*Measurements, error) {
	magic := make([]byte, 2)
	if _, err := r.ReadAt(magic, 0); err != nil {
		return nil, err
	}
	if string(magic) == "MZ" {
		return UKI(r, size, keys)
	}
	table, err := gpt.Read(r)
	if err != nil {
		return nil, err
	}
	for _, p := range table.Partitions {
		if p.Type != gpt.TypeESP {
			continue
		}
		start, length := int64(p.First)*gpt.SectorSize, int64(p.Last-p.First+1)*gpt.SectorSize
		esp, err := fat.Open(io.NewSectionReader(r, start, length))
		if err != nil {
			return nil, err
		}
		return partition(esp, keys)
	}
	return nil, fmt.Errorf("%w: there is no EFI system partition", ErrUnknown)
}

// partition predicts the measurements of an EFI system partition.
func partition(esp *fat.FS, keys *Keys) (*Measurements, error) {
	for _, name := range programs {
		content, err := esp.Content(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		program, err := uki.Read(content, content.Size())
		if err != nil {
			return nil, err
		}
		if _, ok := program.Section(".linux"); ok {
			return UKI(content, content.Size(), keys)
		}
		if keys != nil {
			return nil, fmt.Errorf("%w: with Secure Boot, firmware starts signed unified kernel images only", ErrUnknown)
		}
		return systemdBoot(esp, content)
	}
	return nil, fmt.Errorf("%w: the EFI system partition has neither of %q", ErrUnknown, programs)
}

// systemdBoot predicts the measurements of the entry that Slipway's disks have.
func systemdBoot(esp *fat.FS, loader *io.SectionReader) (*Measurements, error) {
	file, err := esp.Content(disk.SystemdBootEntry)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	text, err := io.ReadAll(io.NewSectionReader(file, 0, min(file.Size(), maxEntry)))
	if err != nil {
		return nil, err
	}
	entry := disk.ParseBootEntry(string(text))
	kernel, err := esp.Content(entry.Kernel)
	if err != nil {
		return nil, err
	}
	l := &log{}
	l.secureBoot(nil)
	l.bootOption()
	if err := l.addProgram("systemd-boot", loader, loader.Size()); err != nil {
		return nil, err
	}
	if err := l.addProgram("kernel", kernel, kernel.Size()); err != nil {
		return nil, err
	}
	var initrd sparse.Content
	cmdline := entry.Cmdline
	for i := len(entry.Initrds) - 1; i >= 0; i-- {
		content, err := esp.Content(entry.Initrds[i])
		if err != nil {
			return nil, err
		}
		part := sparse.Content{Size: content.Size(), Runs: []sparse.Run{{Size: content.Size(), Data: content}}}
		initrd = sparse.Concat(part, initrd)
		cmdline = `initrd=\` + entry.Initrds[i] + " " + cmdline
	}
	l.addBytes(12, typeIPL, "kernel command line", loadOptions(cmdline))
	if err := l.kernel(cmdline, initrd); err != nil {
		return nil, err
	}
	return l.measurements(false)
}
