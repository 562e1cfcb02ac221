package uki

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/slipway-build/slipway/exporter/disk/disktest"
	"github.com/slipway-build/slipway/exporter/sparse"
	"github.com/slipway-build/slipway/internal/testutil/need"
)

func text(s string) sparse.Content { return sparse.Bytes([]byte(s)) }

func sections() []Section {
	return []Section{
		{Name: ".osrel", Content: text("ID=slipway\n")},
		{Name: ".cmdline", Content: text("console=ttyS0")},
		{Name: ".linux", Content: text(strings.Repeat("kernel ", 1001)), Align: 64 << 10},
		{Name: ".initrd", Content: sparse.Concat(text("one").Pad(4096), text("two")), Align: 64 << 10},
	}
}

// objdump and Go's debug/pe find the sections and their contents, with a stub made
// for the test and with systemd's.
func TestSections(t *testing.T) {
	need.Program(t, "objdump", "binutils")
	const systemd = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub"
	need.File(t, systemd, "systemd-boot-efi")
	stub, err := os.ReadFile(systemd)
	if err != nil {
		t.Fatal(err)
	}
	stubs := map[string][]byte{
		"small": disktest.Program(0x8664, 0x400), "large": disktest.Program(0x8664, 0x1000), "systemd": stub,
	}
	// systemd's stub for arm64 has instructions behind the section table.
	filled := bytes.Clone(stubs["large"])
	header := int(binary.LittleEndian.Uint32(filled[0x3c:]))
	table := header + 24 + int(binary.LittleEndian.Uint16(filled[header+20:]))
	for i := table + 40*int(binary.LittleEndian.Uint16(filled[header+6:])); i < 0x1000; i++ {
		filled[i] = 0xd5
	}
	stubs["filled"] = filled
	for name, stub := range stubs {
		t.Run(name, func(t *testing.T) {
			image, err := New(stub, sections())
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), "test.efi")
			f, err := os.Create(file)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := image.WriteFile(f); err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command("objdump", "-h", file).CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			for _, s := range sections() {
				if !regexp.MustCompile(`(?m)^ *\d+ \` + s.Name + ` `).Match(out) {
					t.Errorf("objdump does not list %s:\n%s", s.Name, out)
				}
			}

			program, err := pe.NewFile(f)
			if err != nil {
				t.Fatal(err)
			}
			old, err := pe.NewFile(bytes.NewReader(stub))
			if err != nil {
				t.Fatal(err)
			}
			added := sections()
			var end, memory uint32
			for i, s := range program.Sections {
				if i < len(old.Sections) {
					want := old.Sections[i].SectionHeader
					want.Size = s.Size // the last reaches up to what follows
					if s.SectionHeader != want {
						t.Errorf("section %s of the stub is %+v, was %+v", s.Name, s.SectionHeader, want)
					}
				} else {
					want := added[i-len(old.Sections)]
					data, err := s.Data()
					content := make([]byte, want.Content.Size)
					if _, err := want.Content.ReadAt(content, 0); err != nil {
						t.Fatal(err)
					}
					if err != nil || s.Name != want.Name || int64(s.VirtualSize) != want.Content.Size || !bytes.Equal(data[:s.VirtualSize], content) ||
						want.Align > 0 && int64(s.Offset)%want.Align != 0 {
						t.Errorf("section %+v, want %s of %d bytes: %v", s.SectionHeader, want.Name, want.Content.Size, err)
					}
				}
				if i > 0 && (s.Offset != end || s.VirtualAddress < memory) {
					t.Errorf("section %s is at %d and %#x, what is before it ends at %d and %#x", s.Name, s.Offset, s.VirtualAddress, end, memory)
				}
				end, memory = s.Offset+s.Size, s.VirtualAddress+s.VirtualSize
			}
			header := program.OptionalHeader.(*pe.OptionalHeader64)
			if int64(end) != image.Size || header.SizeOfImage < memory {
				t.Errorf("sections end at %d of %d bytes, in memory at %#x of %#x", end, image.Size, memory, header.SizeOfImage)
			}
			if name == "systemd" && wordSum(stub) != old.OptionalHeader.(*pe.OptionalHeader64).CheckSum {
				t.Error("the test's checksum is not the stub's")
			}
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if want := wordSum(data); header.CheckSum != want {
				t.Errorf("checksum %#x, want %#x", header.CheckSum, want)
			}
		})
	}
}

// wordSum computes the checksum of a PE file word by word, as the definition does.
func wordSum(data []byte) uint32 {
	at := int(binary.LittleEndian.Uint32(data[60:])) + peOptional + optChecksum
	var sum uint32
	for i := 0; i < len(data); i += 2 {
		if i == at || i == at+2 {
			continue
		}
		word := uint32(data[i])
		if i+1 < len(data) {
			word |= uint32(data[i+1]) << 8
		}
		sum += word
		sum = sum&0xffff + sum>>16
	}
	return sum + uint32(len(data))
}

func TestErrors(t *testing.T) {
	good := disktest.Program(0x8664, 0x400)
	many := make([]Section, 20)
	for want, test := range map[string]struct {
		stub     []byte
		sections []Section
	}{
		"invalid stub: not a 64-bit program for UEFI: byte 3: the file ends in its headers":   {[]byte("ELF"), nil},
		"invalid stub: not a 64-bit program for UEFI: byte 0: there is no PE32+ header":       {append([]byte("MZ"), make([]byte, 1000)...), nil},
		"invalid stub: not a 64-bit program for UEFI: byte 212: the headers end at byte 1024": {good[:0x300], nil},
		"invalid stub: it is truncated: its section \".text\" starts at byte 1024 of 1024":    {good[:0x400], []Section{{Name: ".linux"}}},
		"the stub has room for 14 more sections, but there are 20":                            {good, many},
		".initrd of 4294967296 bytes makes the image larger than 4 GiB":                       {good, []Section{{Name: ".initrd", Content: sparse.Content{Size: 1 << 32}}}},
		".longname0 is too long for the name of a section: at most 8 bytes":                   {good, []Section{{Name: ".longname0"}}},
	} {
		if _, err := New(test.stub, test.sections); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}

func content(t *testing.T, c sparse.Content) string {
	t.Helper()
	b, err := io.ReadAll(c.Reader())
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Read returns what New assembled, after the sections of the stub.
func TestRead(t *testing.T) {
	for machine, want := range map[uint16]string{0x8664: "amd64", 0xaa64: "arm64", 0x5064: ""} {
		image, err := New(disktest.Program(machine, 0x400), sections())
		if err != nil {
			t.Fatal(err)
		}
		p, err := Read(image, image.Size)
		if err != nil {
			t.Fatal(err)
		}
		if p.Architecture != want || len(p.Sections) != 1+len(sections()) {
			t.Errorf("architecture %q and %d sections, want %q and %d", p.Architecture, len(p.Sections), want, 1+len(sections()))
		}
		for i, s := range sections() {
			if got := p.Sections[1+i]; got.Name != s.Name || content(t, got.Content) != content(t, s.Content) {
				t.Errorf("section %d is %s of %d bytes, want %s of %d", i, got.Name, got.Content.Size, s.Name, s.Content.Size)
			}
		}
		if c, ok := p.Section(".cmdline"); !ok || content(t, c) != "console=ttyS0" {
			t.Errorf(".cmdline: found %v", ok)
		}
		if _, ok := p.Section(".dtb"); ok {
			t.Error(".dtb was found")
		}
	}
}

// Read and Go's debug/pe agree about systemd's programs.
func TestReadSystemd(t *testing.T) {
	const dir = "/usr/lib/systemd/boot/efi"
	need.File(t, dir, "systemd-boot-efi")
	files, err := filepath.Glob(dir + "/*.efi*")
	if err != nil || len(files) == 0 {
		t.Fatalf("no programs in %s: %v", dir, err)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		want, err := pe.NewFile(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := want.OptionalHeader.(*pe.OptionalHeader64); !ok {
			continue
		}
		got, err := Read(bytes.NewReader(data), int64(len(data)))
		if err != nil || len(got.Sections) != len(want.Sections) {
			t.Errorf("%s: %d sections, want %d, %v", name, len(got.Sections), len(want.Sections), err)
			continue
		}
		for i, s := range want.Sections {
			data, err := s.Data()
			if err != nil {
				t.Fatal(err)
			}
			data = append(data, make([]byte, s.VirtualSize)...)[:s.VirtualSize]
			if g := got.Sections[i]; g.Name != s.Name || content(t, g.Content) != string(data) {
				t.Errorf("%s: section %s of %d bytes, want %s of %d", name, g.Name, g.Content.Size, s.Name, s.VirtualSize)
			}
		}
	}
}

func TestReadErrors(t *testing.T) {
	const header = 0x80 + 24 + 240 // of the section
	for name, test := range map[string]struct {
		at   int
		to   uint32
		want string
	}{
		"no program":     {0, 0, "byte 0: it does not start with MZ"},
		"far header":     {60, 5000, "byte 60: the PE header is too far"},
		"no PE":          {0x80, 0, "byte 128: there is no PE32+ header"},
		"no sections":    {0x84, 0x8664, "byte 134: it has 0 sections"},
		"many sections":  {0x84, 97<<16 | 0x8664, "byte 134: it has 97 sections"},
		"short optional": {0x94, 100, "byte 148: the optional header has 100 bytes"},
		"alignment":      {0x98 + optFileAlign, 3, "byte 188: sections are aligned to 3 bytes"},
		"in the headers": {header + 20, 0x3ff, `byte 392: section ".text" has bytes 1023 to 1535 of 1536`},
		"outside":        {header + 16, 0x201, `byte 392: section ".text" has bytes 1024 to 1537 of 1536`},
		"far outside":    {header + 20, 1 << 31, `byte 392: section ".text" has bytes`},
	} {
		data := disktest.Program(0x8664, 0x400)
		binary.LittleEndian.PutUint32(data[test.at:], test.to)
		if _, err := Read(bytes.NewReader(data), int64(len(data))); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %v, want %q", name, err, test.want)
		}
	}
	broken := iotest.ErrReader(os.ErrPermission)
	if _, err := Read(readerAt{broken}, 1000); !errors.Is(err, os.ErrPermission) {
		t.Errorf("error %v, want that of the reader", err)
	}
}

type readerAt struct{ io.Reader }

func (r readerAt) ReadAt(p []byte, _ int64) (int, error) { return r.Read(p) }

// Sections of any file lie within it.
func FuzzRead(f *testing.F) {
	f.Add(disktest.Program(0xaa64, 0x400))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Read(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return
		}
		for _, s := range p.Sections {
			if _, err := io.Copy(io.Discard, io.LimitReader(s.Content.Reader(), 1<<20)); err != nil {
				t.Errorf("%q: %v", s.Name, err)
			}
		}
	})
}

// A damaged stub is rejected or results in an image at least as large.
func FuzzNew(f *testing.F) {
	f.Add(disktest.Program(0x8664, 0x400))
	f.Fuzz(func(t *testing.T, stub []byte) {
		image, err := New(stub, sections())
		if err == nil && image.Size < int64(len(stub)) {
			t.Errorf("%d bytes became %d", len(stub), image.Size)
		}
	})
}
