package format

import (
	"archive/tar"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/klauspost/pgzip"

	"github.com/slipway-build/slipway/exporter/disk"
	"github.com/slipway-build/slipway/exporter/gpt"
	"github.com/slipway-build/slipway/exporter/output"
	"github.com/slipway-build/slipway/exporter/qcow2"
	"github.com/slipway-build/slipway/exporter/sparse"
	"github.com/slipway-build/slipway/exporter/vhd"
	"github.com/slipway-build/slipway/exporter/vmdk"
)

// holder writes a disk into a file of some format.
type holder func(f *os.File, d disk.Disk, m Machine) error

// onDisk writes a disk, and its map if wanted, to NAME and suffix.
func onDisk(boot disk.BootMethod, hold holder, suffix string) writer {
	return func(m Machine, out string, warn func(string)) ([]string, error) {
		var opened sparse.Files
		defer opened.Close()
		d, err := m.disk(boot, &opened, warn)
		if err != nil {
			return nil, err
		}
		files := []string{filepath.Join(out, m.Name+suffix)}
		if err := output.File(files[0], func(f *os.File) error { return hold(f, d, m) }); err != nil || !m.Map {
			return files, err
		}
		files = append(files, files[0]+".map")
		return files, output.File(files[1], func(f *os.File) error { return d.Map().Write(f) })
	}
}

// contents opens what the machine boots, and reads the loaders for it.
func (m Machine) contents(opened *sparse.Files) (disk.Contents, disk.Loaders, error) {
	c, loaders, err := m.kernelAndLoaders(opened)
	if err == nil {
		c.Initrd, err = m.initrd(m.Ucode, opened)
	}
	return c, loaders, err
}

// kernelAndLoaders is contents without the initramfs.
func (m Machine) kernelAndLoaders(opened *sparse.Files) (c disk.Contents, loaders disk.Loaders, err error) {
	if m.Kernel == "" {
		return c, loaders, fmt.Errorf("it needs a kernel: set kernel.image in the machine")
	}
	if loaders, err = disk.ReadLoaders(m.Loaders, m.Architecture); err != nil {
		return c, loaders, err
	}
	c.Cmdline = m.Cmdline
	c.Kernel, err = opened.Open(m.Kernel)
	return c, loaders, err
}

// disk lays out a disk. What boots everywhere boots under UEFI on machines that
// have nothing else.
func (m Machine) disk(boot disk.BootMethod, opened *sparse.Files, warn func(string)) (disk.Disk, error) {
	contents, loaders, err := m.contents(opened)
	if err != nil {
		return disk.Disk{}, err
	}
	if boot == disk.Hybrid && m.Architecture != "amd64" {
		boot = disk.UEFI
	}
	d, err := disk.New(boot, contents, loaders, m.Size, m.Time)
	if err == nil && (boot == disk.Hybrid || boot == disk.BIOS) && d.BIOSCmdline != m.Cmdline {
		warn("under BIOS, GRUB passes the kernel command line on as: " + d.BIOSCmdline)
	}
	return d, err
}

func raw(f *os.File, d disk.Disk, _ Machine) error { return d.WriteFile(f) }

func asQcow2(f *os.File, d disk.Disk, _ Machine) error {
	image, err := qcow2.Image(d.Content)
	if err != nil {
		return err
	}
	return image.WriteFile(f)
}

func fixedVHD(f *os.File, d disk.Disk, m Machine) error {
	image, err := vhd.Fixed(d.Content, gpt.Derive("VHD", d.ID[:]), m.Time)
	if err != nil {
		return err
	}
	return image.WriteFile(f)
}

func dynamicVHD(f *os.File, d disk.Disk, m Machine) error {
	image, err := vhd.Dynamic(d.Content, gpt.Derive("VHD", d.ID[:]), m.Time)
	if err != nil {
		return err
	}
	return image.WriteFile(f)
}

func asVMDK(f *os.File, d disk.Disk, m Machine) error {
	return vmdk.Write(f, d.Content, m.Name+".vmdk", binary.LittleEndian.Uint32(d.ID[:]))
}

const gibibyte = 1 << 30

// gcp writes NAME.img.tar.gz, as Google Compute Engine imports disks (Compute
// Engine, Manually import boot disks): GNU tar's old format, one file disk.raw
// of whole GiB.
func gcp(m Machine, out string, warn func(string)) ([]string, error) {
	if m.Size%gibibyte != 0 {
		return nil, fmt.Errorf("SIZE: Google Compute Engine takes disks of whole GiB, not of %d bytes", m.Size)
	}
	var opened sparse.Files
	defer opened.Close()
	d, err := m.disk(disk.Hybrid, &opened, func(string) {})
	if err == nil && m.Size == 0 {
		m.Size = sparse.RoundUp(d.Size, gibibyte)
	}
	if err != nil {
		return nil, err
	}
	if d, err = m.disk(disk.Hybrid, &opened, warn); err != nil {
		return nil, err
	}
	name := filepath.Join(out, m.Name+".img.tar.gz")
	return []string{name}, output.File(name, func(f *os.File) error {
		compressor := pgzip.NewWriter(f)
		archive := tar.NewWriter(compressor)
		err := archive.WriteHeader(&tar.Header{Name: "disk.raw", Typeflag: tar.TypeReg, Mode: 0o644, Size: d.Size, ModTime: m.Time, Format: tar.FormatGNU})
		if err != nil {
			return err
		}
		if _, err := io.Copy(archive, d.Reader()); err != nil {
			return err
		}
		if err := archive.Close(); err != nil {
			return err
		}
		return compressor.Close()
	})
}

// bareUKI writes NAME.efi.
func bareUKI(m Machine, out string, _ func(string)) ([]string, error) {
	var opened sparse.Files
	defer opened.Close()
	contents, loaders, err := m.contents(&opened)
	if err != nil {
		return nil, err
	}
	image, err := disk.NewUKI(contents, loaders.Stub, disk.Packed)
	if err != nil {
		return nil, err
	}
	name := filepath.Join(out, m.Name+".efi")
	return []string{name}, writeImage(name, image)
}
