package image

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slipway-build/slipway/exporter"
	"github.com/slipway-build/slipway/exporter/disk/disktest"
	"github.com/slipway-build/slipway/exporter/format"
	"github.com/slipway-build/slipway/exporter/segment"
	"github.com/slipway-build/slipway/exporter/tree"
	"github.com/slipway-build/slipway/exporter/verity"
	"github.com/slipway-build/slipway/internal/contract"
	"github.com/slipway-build/slipway/internal/testutil/treetest"
)

const release = "6.12.1-test"

// spec is an entry of a segment.
type spec struct {
	Path     string            `json:"path"`
	Type     string            `json:"type"`
	Mode     uint32            `json:"mode"`
	Contents []byte            `json:"contents,omitempty"`
	Xattrs   map[string][]byte `json:"xattrs,omitempty"`
}

// segments are those of a machine with one service.
var segments = [][]spec{
	{
		{Path: "etc", Type: "dir", Mode: 0o755}, {Path: "init", Type: "file", Mode: 0o755, Contents: []byte("#!/bin/init")},
		{Path: "etc/large", Type: "file", Mode: 0o644, Contents: bytes.Repeat([]byte("0123456789abcdef"), 20_000)},
		{Path: "lib", Type: "dir", Mode: 0o755}, {Path: "lib/modules", Type: "dir", Mode: 0o755},
		{Path: "lib/modules/" + release, Type: "dir", Mode: 0o755},
		{Path: "lib/modules/" + release + "/modules.builtin", Type: "file", Mode: 0o644, Contents: []byte("kernel/fs/squashfs/squashfs.ko\nkernel/fs/erofs/erofs.ko\nkernel/fs/isofs/isofs.ko\nkernel/drivers/md/dm-verity.ko\n")},
		{Path: "sbin", Type: "dir", Mode: 0o755}, {Path: "sbin/init", Type: "file", Mode: 0o755, Contents: []byte(contract.StartupMarker + " " + verity.Reaction)},
	},
	{
		{Path: "containers", Type: "dir", Mode: 0o755}, {Path: "containers/services", Type: "dir", Mode: 0o755},
		{Path: "containers/services/web", Type: "dir", Mode: 0o755},
		{Path: "containers/services/web/config.json", Type: "file", Mode: 0o644, Contents: []byte(`{"process":{"args":["/web"]}}`)},
	},
}

// machine returns the input of a format, for a machine whose packages are in
// segments.
func machine(t testing.TB, f format.Format) format.Input {
	t.Helper()
	kernel := filepath.Join(t.TempDir(), "kernel")
	if err := os.WriteFile(kernel, withPayload(disktest.Kernel(release)), 0o644); err != nil {
		t.Fatal(err)
	}
	in := format.Input{
		Name: "m", Kernel: kernel, Cmdline: `console=ttyS0 "a=b c"`, Architecture: "amd64", Loaders: disktest.Loaders(t),
		Time: time.Unix(exporter.Epoch, 0), Compression: segment.Compression{Algorithm: "zstd", Level: 3},
	}
	for _, s := range segments {
		data, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		files, err := segment.PackEntries(data, f.Segments, "zstd")
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		for name, content := range files {
			if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		in.Segments = append(in.Segments, segment.Dir{Path: dir})
	}
	return in
}

// withPayload adds an uncompressed vmlinux to a kernel, which has the banner with
// its release.
func withPayload(kernel []byte) []byte {
	const payload, offset, length = 0xc00, 0x248, 0x24c
	le := binary.LittleEndian
	le.PutUint32(kernel[offset:], payload-5*512)
	le.PutUint32(kernel[length:], 0x200)
	copy(kernel[payload:], elf.ELFMAG+string([]byte{byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB)}))
	le.PutUint16(kernel[payload+18:], uint16(elf.EM_X86_64))
	copy(kernel[payload+64:], "Linux version "+release+" ")
	return kernel
}

// write writes a format and returns its files.
func write(t testing.TB, f format.Format) []string {
	t.Helper()
	names, err := format.Write(f.Name, machine(t, f), t.TempDir(), func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// content returns the content of a file in the root file system.
func content(t testing.TB, i *Image, path string) string {
	t.Helper()
	e, err := tree.NewFS(i.Root).Lookup(path)
	if err != nil {
		t.Fatal(err)
	}
	return treetest.Content(t, e)
}

// Every format can be opened, and shows the same machine.
func TestFormats(t *testing.T) {
	for _, f := range format.All() {
		t.Run(f.Name, func(t *testing.T) {
			names := write(t, f)
			// Of a format of several files, any will do.
			for _, name := range names {
				if strings.HasSuffix(name, "-cmdline") || len(names) > 1 && strings.HasSuffix(name, ".iso") {
					continue
				}
				i, err := Open(name)
				if err != nil {
					t.Fatal(err)
				}
				defer i.Close()
				if len(i.Warnings) > 0 {
					t.Errorf("%s: warnings %q", name, i.Warnings)
				}
				if f.Firmware != 0 || len(names) > 1 || f.Name == "tar-kernel-initrd" {
					if i.Kernel == nil || i.Kernel.Release != release || i.Kernel.Architecture != "amd64" {
						t.Errorf("%s: kernel %+v", name, i.Kernel)
					}
					if !strings.HasSuffix(i.Cmdline, `"a=b c"`) {
						t.Errorf("%s: command line %q", name, i.Cmdline)
					}
				}
				if f.Firmware != 0 {
					firmware := format.Firmware(0)
					for _, l := range i.Loaders {
						firmware |= map[string]format.Firmware{"BIOS": format.BIOS, "UEFI": format.UEFI}[l.Firmware]
					}
					if want := f.FirmwareOn("amd64"); firmware != want {
						t.Errorf("%s: boots under %b, want %b: %+v", name, firmware, want, i.Loaders)
					}
				}
				for _, s := range slices.Concat(segments...) {
					if s.Type == "file" && content(t, i, s.Path) != string(s.Contents) {
						t.Errorf("%s: %s has another content", name, s.Path)
					}
				}
			}
		})
	}
}

// The archives of an initramfs show how well each component is compressed.
func TestComponents(t *testing.T) {
	f, _ := format.Lookup("raw")
	i, err := Open(write(t, f)[0])
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	sizes := map[string]Size{}
	for _, s := range i.Components() {
		sizes[s.Name] = s
	}
	base, web := sizes["base"], sizes["services/web"]
	if base.Unpacked != 320_047 || base.Compressed == 0 || base.Compressed > 100_000 || !base.Shared {
		t.Errorf("base: %+v", base)
	}
	if web.Unpacked != 29 || web.Compressed == 0 || web.Shared {
		t.Errorf("services/web: %+v", web)
	}
	if i.MinMemory() < 20<<20 {
		t.Errorf("memory %d", i.MinMemory())
	}
	// What the parts take is what the initramfs has.
	var compressed, parts int64
	for _, s := range sizes {
		compressed += s.Compressed
	}
	for _, p := range i.Initramfs {
		parts += p.Compressed
	}
	if compressed != parts {
		t.Errorf("the components have %d bytes, the parts %d", compressed, parts)
	}
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	for name, data := range map[string]string{"a.raw": "text", "b.raw": "", "sub/one-kernel": "x", "sub/two-kernel": "x"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{
		"a.raw": "unknown format", "b.raw": "the file is empty", "none": "no such file", "sub": "has 2 images: name one of its files",
	} {
		if _, err := Open(filepath.Join(dir, name)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", name, err, want)
		}
	}
}
