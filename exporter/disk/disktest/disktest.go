// Package disktest has boot loaders for tests of disks. They have the form of the real
// ones, which change with Debian, but do not boot.
package disktest

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
)

// Loaders creates a directory with boot loaders for all architectures and returns its
// name.
func Loaders(t testing.TB) string {
	t.Helper()
	core := bytes.Repeat([]byte{0xc0}, 10_000)
	binary.LittleEndian.PutUint16(core[0x1fc:], 19) // sectors after the first
	dir := t.TempDir()
	for name, data := range map[string][]byte{
		"boot.img": append(bytes.Repeat([]byte{0xb0}, 510), 0x55, 0xaa), "core.img": core, "eltorito.img": bytes.Repeat([]byte{0xcd}, 3000),
		"systemd-bootx64.efi": Program(0x8664, 0x400), "systemd-bootaa64.efi": Program(0xaa64, 0x400),
		"linuxx64.efi.stub": Program(0x8664, 0x400), "linuxaa64.efi.stub": Program(0xaa64, 0x1000),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// Program returns a program for UEFI with one section. The machine type is that of PE
// Format, "Machine Types", and headers is the size of the headers in bytes.
func Program(machine uint16, headers int) []byte {
	const section, pe = 0x200, 0x80
	b := make([]byte, headers+section)
	le := binary.LittleEndian
	copy(b, "MZ")
	le.PutUint32(b[60:], pe)
	copy(b[pe:], "PE\x00\x00")
	le.PutUint16(b[pe+4:], machine)
	le.PutUint16(b[pe+6:], 1)      // number of sections
	le.PutUint16(b[pe+20:], 240)   // size of the optional header
	le.PutUint16(b[pe+22:], 0x206) // executable, without symbols
	optional := b[pe+24:]
	le.PutUint16(optional, 0x20b)
	le.PutUint32(optional[4:], section)
	le.PutUint32(optional[16:], 0x1000) // entry point
	le.PutUint32(optional[20:], 0x1000)
	le.PutUint32(optional[32:], 0x1000) // alignment of sections
	le.PutUint32(optional[36:], 0x200)  // and in the file
	le.PutUint32(optional[56:], 0x2000) // size in memory
	le.PutUint32(optional[60:], uint32(headers))
	le.PutUint16(optional[68:], 10) // EFI application
	le.PutUint32(optional[108:], 16)
	text := optional[240:]
	copy(text, ".text")
	le.PutUint32(text[8:], section)
	le.PutUint32(text[12:], 0x1000)
	le.PutUint32(text[16:], section)
	le.PutUint32(text[20:], uint32(headers))
	le.PutUint32(text[36:], 0x60000020) // code
	copy(b[headers:], bytes.Repeat([]byte{0xcc}, section))
	return b
}

// Kernel returns a file with the boot header of a kernel of a release for amd64
// (Linux, Documentation/arch/x86/boot.rst).
func Kernel(release string) []byte {
	const magic, version, flags = 0x202, 0x20e, 0x236
	b := make([]byte, 0x1000)
	le := binary.LittleEndian
	copy(b[magic:], "HdrS")
	le.PutUint16(b[magic+4:], 0x20f)
	le.PutUint16(b[version:], 0x800)
	b[flags] = 1 // 64 bits
	copy(b[0xa00:], release+" (builder@host) #1 SMP")
	return b
}
