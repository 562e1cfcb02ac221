package uki

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/exporter/disk/disktest"
	"github.com/slipway-build/slipway/exporter/sparse"
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

// Programs of others find the sections and their contents in stubs of both
// kinds: made for the test, and systemd's.
func TestSections(t *testing.T) {
	if _, err := exec.LookPath("objdump"); err != nil {
		t.Skip("objdump is not installed (Debian package binutils)")
	}
	stubs := map[string][]byte{
		"small": disktest.Program(0x8664, 0x400), "large": disktest.Program(0x8664, 0x1000),
	}
	const systemd = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub"
	if stub, err := os.ReadFile(systemd); err == nil {
		stubs["systemd"] = stub
	} else if os.Getenv("CI") != "" {
		t.Error(err)
	}
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

// wordSum is the checksum of a PE file, as its definition says: the words one by
// one, without that of the checksum itself.
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
		"it is no program for UEFI":                              {[]byte("ELF"), nil},
		"it is no PE file for 64 bits":                           {append([]byte("MZ"), make([]byte, 1000)...), nil},
		"its headers are damaged":                                {good[:0x300], nil},
		"the stub has room for 14 more sections, not for 20":     {good, many},
		".initrd of 4294967296 bytes makes it larger than 4 GiB": {good, []Section{{Name: ".initrd", Content: sparse.Content{Size: 1 << 32}}}},
		".longname0 is too long a name for a section":            {good, []Section{{Name: ".longname0"}}},
	} {
		if _, err := New(test.stub, test.sections); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}

// A damaged stub is refused or gives an image of its own size and more.
func FuzzNew(f *testing.F) {
	f.Add(disktest.Program(0x8664, 0x400))
	f.Fuzz(func(t *testing.T, stub []byte) {
		image, err := New(stub, sections())
		if err == nil && image.Size < int64(len(stub)) {
			t.Errorf("%d bytes became %d", len(stub), image.Size)
		}
	})
}
