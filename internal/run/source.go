// Package run runs machines on this computer for slipway run: it finds out what
// a file is and how it boots, keeps the state of running machines, and connects
// the terminal to them.
package run

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	exporterdisk "github.com/slipway-build/slipway/exporter/disk"
	"github.com/slipway-build/slipway/exporter/fat"
	"github.com/slipway-build/slipway/exporter/format"
	"github.com/slipway-build/slipway/exporter/gpt"
	"github.com/slipway-build/slipway/exporter/sparse"
	"github.com/slipway-build/slipway/exporter/uki"
	"github.com/slipway-build/slipway/internal/kernel"
	"github.com/slipway-build/slipway/internal/vm"
)

// A Source is what a machine boots.
type Source struct {
	Name         string // base name, for example aws for out/aws.raw
	Architecture string // "" if the files do not say

	Kernel, Initrd, Cmdline string // paths; Cmdline has the command line
	Root                    string // filesystem that the kernel mounts, if it is not in the initrd
	Disk, Format            string // path and QEMU's name of the format
	CD                      string
	Program                 string // for UEFI

	bios, uefi bool // what a Disk or CD boots under
}

// errUnknown is the error for a file that is not a machine.
var errUnknown = errors.New("is not a machine: it must be a YAML file, the folder of a build, a disk (raw, qcow2, vhd, vmdk), an ISO or a UKI")

// IsYAML reports whether a path names a machine YAML, which must be built.
func IsYAML(path string) bool {
	ext := filepath.Ext(path)
	return path == "-" || ext == ".yml" || ext == ".yaml"
}

// Open finds out how to boot the output of a build: a file, a folder, or as
// with LinuxKit the common start of the paths of a kernel and its initramfs.
func Open(path string) (Source, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil && kernelOf(path) != "":
		return openKernel(path)
	case err != nil:
		return Source{}, err
	case info.IsDir():
		return openFolder(path)
	}
	if prefix, ok := cutKernel(path); ok {
		return openKernel(prefix)
	}
	s, err := openFile(path, info.Size())
	if err != nil {
		return Source{}, fmt.Errorf("%s: %w", path, err)
	}
	s.Name = strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
	return s, nil
}

// kernelSuffixes are those of the kernels of the formats kernel+… and microvm.
var kernelSuffixes = []string{format.KernelSuffix, format.VMLinuxSuffix}

// cutKernel returns the common start of the paths of a machine's files from that
// of its kernel.
func cutKernel(path string) (prefix string, ok bool) {
	for _, suffix := range kernelSuffixes {
		if prefix, ok := strings.CutSuffix(path, suffix); ok {
			return prefix, true
		}
	}
	return path, false
}

// kernelOf returns the path of the kernel beside other files of a machine, or ""
// if there is none.
func kernelOf(prefix string) string {
	for _, suffix := range kernelSuffixes {
		if path := prefix + suffix; exists(path) {
			return path
		}
	}
	return ""
}

// OpenBuilt opens the files that a build has written, which belong to one
// machine.
func OpenBuilt(paths []string) (Source, error) {
	for _, path := range paths {
		if _, ok := cutKernel(path); ok {
			return Open(path)
		}
	}
	paths = slices.DeleteFunc(slices.Clone(paths), func(path string) bool { return filepath.Ext(path) == ".json" })
	if len(paths) == 0 {
		return Source{}, errors.New("the build has written no files")
	}
	return Open(paths[0])
}

// openFolder finds the one machine in a folder.
func openFolder(dir string) (Source, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return Source{}, err
	}
	var prefixes, disks []string
	for _, e := range entries {
		name := e.Name()
		if prefix, ok := cutKernel(name); ok {
			prefixes = append(prefixes, prefix)
		}
		switch filepath.Ext(name) {
		case ".raw", ".img", ".qcow2", ".vhd", ".vmdk", ".iso", ".efi":
			disks = append(disks, name)
		}
	}
	disks = slices.DeleteFunc(disks, func(name string) bool { // parts of a kernel+… format
		return slices.ContainsFunc(prefixes, func(prefix string) bool {
			rest, ok := strings.CutPrefix(name, prefix)
			return ok && (rest == format.InitrdSuffix || slices.Contains(format.RootSuffixes(), rest))
		})
	})
	found := append(slices.Clone(prefixes), disks...)
	switch {
	case len(found) == 0:
		return Source{}, fmt.Errorf("%s has no kernel, disk, ISO or UKI: name a folder that a build has written", dir)
	case len(found) > 1:
		return Source{}, fmt.Errorf("%s has several machines: name one of %s", dir, strings.Join(found, ", "))
	}
	return Open(filepath.Join(dir, found[0]))
}

// openKernel opens a kernel with the files beside it.
func openKernel(prefix string) (Source, error) {
	s := Source{Name: filepath.Base(prefix), Kernel: kernelOf(prefix)}
	f, err := os.Open(s.Kernel)
	if err != nil {
		return s, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return s, err
	}
	header, err := kernel.ReadHeader(f, info.Size())
	if err != nil {
		return s, fmt.Errorf("%s: %w", s.Kernel, err)
	}
	s.Architecture = header.Architecture
	if path := prefix + format.InitrdSuffix; exists(path) {
		s.Initrd = path
	}
	for _, suffix := range format.RootSuffixes() {
		if path := prefix + suffix; exists(path) {
			s.Root = path
			break
		}
	}
	line, err := os.ReadFile(prefix + format.CmdlineSuffix)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return s, err
	}
	s.Cmdline = strings.TrimSpace(string(line))
	return s, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// openFile recognizes a file by its contents.
func openFile(path string, size int64) (Source, error) {
	f, err := os.Open(path)
	if err != nil {
		return Source{}, err
	}
	defer f.Close()
	head := make([]byte, 40<<10)
	n, err := f.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return Source{}, err
	}
	head = head[:n]
	tail := make([]byte, min(size, 512))
	if _, err := f.ReadAt(tail, size-int64(len(tail))); err != nil {
		return Source{}, err
	}
	has := func(at int, magic string) bool {
		return len(head) >= at+len(magic) && string(head[at:at+len(magic)]) == magic
	}
	// Other formats than raw contain a disk that Slipway does not read. It has
	// the names of Slipway's files.
	inside := func(format string) Source {
		uefiOnly := strings.HasSuffix(strings.TrimSuffix(path, filepath.Ext(path)), "-efi")
		return Source{Disk: path, Format: format, bios: !uefiOnly, uefi: true}
	}
	switch {
	case has(0, "QFI\xfb"):
		return inside("qcow2"), nil
	case has(0, "KDMV"):
		return inside("vmdk"), nil
	case has(0, "conectix"), bytes.HasPrefix(tail, []byte("conectix")):
		return inside("vpc"), nil
	case has(0x8001, "CD001"):
		s := inside("raw")
		s.CD, s.Disk, s.Format = s.Disk, "", ""
		return s, nil
	case has(0, "MZ"):
		program, err := uki.Read(f, size)
		if err != nil {
			return Source{}, errUnknown
		}
		return Source{Program: path, Architecture: program.Architecture, uefi: true}, nil
	case has(510, "\x55\xaa"):
		return openRaw(f, path), nil
	case has(0, "\x1f\x8b"):
		return Source{}, errors.New("is compressed: unpack the disk first, for example with tar -xf")
	}
	return Source{}, errUnknown
}

// openRaw finds out what a disk boots under. A disk without a partition table
// that Slipway reads is left to the firmware.
func openRaw(disk *os.File, path string) Source {
	s := Source{Disk: path, Format: "raw"}
	table, err := gpt.Read(disk)
	if err != nil {
		s.bios, s.uefi = true, true
		return s
	}
	s.bios = len(bytes.Trim(table.BootCode, "\x00")) > 0
	for _, p := range table.Partitions {
		if p.Type != gpt.TypeESP {
			continue
		}
		fsys, err := fat.Open(io.NewSectionReader(disk, int64(p.First)*gpt.SectorSize, int64(p.Last-p.First+1)*gpt.SectorSize))
		if err != nil {
			continue
		}
		for _, architecture := range exporterdisk.Architectures {
			if _, err := fsys.Stat(exporterdisk.LoaderPath(architecture)); err == nil {
				s.uefi, s.Architecture = true, architecture
			}
		}
	}
	return s
}

// Configure sets in the configuration of a machine what the source boots from.
// Files that it requires are created in dir.
func (s Source) Configure(c *vm.Config, dir string) error {
	switch {
	case c.Architecture == "":
		c.Architecture = s.Architecture
	case s.Architecture != "" && s.Architecture != c.Architecture:
		return fmt.Errorf("%s is for %s, not %s", s.Name, s.Architecture, c.Architecture)
	}
	if c.Architecture == "" {
		c.Architecture = runtime.GOARCH
	}
	if s.Kernel != "" {
		if c.Firmware != "" {
			return fmt.Errorf("QEMU loads %s itself: to boot with firmware, run a YAML, a disk or an ISO", s.Kernel)
		}
		c.Kernel, c.Initrd, c.Cmdline, c.Disk = s.Kernel, s.Initrd, s.Cmdline, s.Root
		if console := vm.Consoles[c.Architecture]; !strings.Contains(c.Cmdline, console) {
			c.Cmdline = strings.TrimSpace(c.Cmdline + " " + console)
		}
		return nil
	}
	if c.MicroVM {
		return fmt.Errorf("a microVM has no firmware that boots %s: build the format microvm", s.Name)
	}
	if c.Firmware == "" {
		if c.Firmware = vm.UEFI; s.bios && c.Architecture == "amd64" {
			c.Firmware = vm.BIOS
		}
	}
	switch {
	case c.Firmware == vm.BIOS && !s.bios:
		return fmt.Errorf("%s does not boot under BIOS: use --uefi", s.Name)
	case c.Firmware != vm.BIOS && !s.uefi:
		return fmt.Errorf("%s does not boot under UEFI: use --bios", s.Name)
	}
	c.Disk, c.DiskFormat, c.CD = s.Disk, s.Format, s.CD
	if s.Program != "" {
		c.Disk, c.DiskFormat = filepath.Join(dir, "system.img"), "raw"
		return writeSystemPartition(c.Disk, s.Program, exporterdisk.LoaderPath(c.Architecture))
	}
	return nil
}

// writeSystemPartition writes a filesystem from which UEFI boots a program.
func writeSystemPartition(path, program, loader string) error {
	f, err := os.Open(program)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	var files sparse.Files
	defer files.Close()
	content, err := files.Open(program)
	if err != nil {
		return err
	}
	const overhead = 64 << 20 // FAT32 has at least 65,525 clusters
	volume, err := fat.New(sparse.RoundUp(info.Size()+overhead, 1<<20), []fat.File{{Path: loader, Parts: []fat.Part{{Content: content}}}},
		fat.Options{Label: "SYSTEM", Time: time.Unix(315532800, 0)})
	if err != nil {
		return fmt.Errorf("system partition: %w", err)
	}
	image, err := volume.Image(1)
	if err != nil {
		return fmt.Errorf("system partition: %w", err)
	}
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(image.WriteFile(out), out.Close())
}
