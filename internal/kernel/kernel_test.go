package kernel

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/internal/testutil/need"
	"github.com/slipway-build/slipway/internal/testutil/packed"
	"github.com/slipway-build/slipway/internal/testutil/stack"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const release = "6.1.0-7-cloud-amd64"

// bzImage returns the start of a kernel for x86_64 with a zstd payload.
func bzImage(text string) []byte {
	le := binary.LittleEndian
	b := make([]byte, 0x1400)
	copy(b, "MZ")
	le.PutUint32(b[peOffset:], 0x80)
	copy(b[0x80:], "PE\x00\x00\x64\x86")
	b[x86SetupSectors] = 7
	copy(b[x86Magic:], "HdrS")
	le.PutUint16(b[x86Protocol:], 0x20f)
	le.PutUint16(b[x86KernelVersion:], 0x800)
	le.PutUint32(b[x86InitrdAddrMax:], 0x7fffffff)
	le.PutUint16(b[x86LoadFlags:], x86Is64Bit)
	le.PutUint32(b[x86PayloadOffset:], 0x200)
	le.PutUint64(b[x86PrefAddress:], 16<<20)
	le.PutUint32(b[x86InitSize:], 48<<20)
	copy(b[0xa00:], text)
	copy(b[8*512+0x200:], "\x28\xb5\x2f\xfd")
	return b
}

// armImage returns a kernel for arm64 that has text at an offset.
func armImage(at int, text string) []byte {
	b := make([]byte, at+len(text)+1)
	copy(b, "MZ")
	copy(b[armMagic:], "ARM\x64")
	copy(b[at:], text)
	return b
}

// zboot wraps a kernel as the kernel's build does for vmlinuz.efi.
func zboot(compression string, payload []byte) []byte {
	b := make([]byte, 0x200)
	copy(b, "MZ\x00\x00zimg")
	binary.LittleEndian.PutUint32(b[zbootPayload:], uint32(len(b)))
	binary.LittleEndian.PutUint32(b[zbootPayload+4:], uint32(len(payload)))
	copy(b[zbootCompression:], compression)
	binary.LittleEndian.PutUint32(b[peOffset:], 0x40)
	copy(b[0x40:], "PE\x00\x00\x64\xaa")
	return append(b, payload...)
}

func TestReadHeader(t *testing.T) {
	old := bzImage("")
	binary.LittleEndian.PutUint16(old[x86Protocol:], 0x200)
	arm := armImage(100, "")
	notEFI := bytes.Clone(arm)
	copy(notEFI, "\x00\x00")
	for name, test := range map[string]struct {
		kernel []byte
		want   Header
	}{
		"x86": {bzImage(""), Header{Architecture: "amd64", EFI: true, Compression: Zstd,
			X86: &X86{Protocol: 0x20f, InitrdAddrMax: 0x7fffffff, PrefAddress: 16 << 20, InitSize: 48 << 20}}},
		"old protocol": {old, Header{Architecture: "386", EFI: true, X86: &X86{Protocol: 0x200}}},
		"truncated":    {bzImage("")[:x86Protocol+2], Header{Architecture: "386", EFI: true, X86: &X86{Protocol: 0x20f}}},
		"arm64":        {arm, Header{Architecture: "arm64", EFI: true, Compression: Uncompressed}},
		"no EFI stub":  {notEFI, Header{Architecture: "arm64", Compression: Uncompressed}},
		"Image.gz":     {packed.Gzip(t, arm), Header{Architecture: "arm64", Compression: Gzip}},
		"zboot gzip":   {zboot("gzip", packed.Gzip(t, arm)), Header{Architecture: "arm64", EFI: true, Compression: Gzip}},
		"zboot zstd22": {zboot("zstd22", nil), Header{Architecture: "arm64", EFI: true, Compression: Zstd}},
		"vmlinux":      {vmlinux(elf.EM_X86_64, ""), Header{Architecture: "amd64", Compression: Uncompressed}},
		"arm64 ELF":    {vmlinux(elf.EM_AARCH64, ""), Header{Architecture: "arm64", Compression: Uncompressed}},
		"zboot xz":     {zboot("xzkern", nil), Header{Architecture: "arm64", EFI: true, Compression: "xzkern"}},
	} {
		got, err := ReadHeader(bytes.NewReader(test.kernel), int64(len(test.kernel)))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(test.want, *got, cmpopts.IgnoreUnexported(Header{})); diff != "" {
			t.Errorf("%s: -want +got\n%s", name, diff)
		}
	}
}

func TestErrFormat(t *testing.T) {
	foreign := zboot("gzip", nil)
	foreign[0x44] = 0 // another machine
	for name, kernel := range map[string][]byte{
		"empty": nil, "text": bytes.Repeat([]byte("x"), 0x1000), "short": []byte("MZ"), "gzip of text": packed.Gzip(t, []byte("text")),
		"gzip header": []byte("\x1f\x8b"), "ELF for RISC-V": vmlinux(elf.EM_RISCV, ""), "short ELF": vmlinux(elf.EM_X86_64, "")[:19], "zboot for others": foreign,
	} {
		if _, err := ReadHeader(bytes.NewReader(kernel), int64(len(kernel))); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: error %v, want ErrFormat", name, err)
		}
		if _, err := Release(bytes.NewReader(kernel), int64(len(kernel))); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: release: error %v, want ErrFormat", name, err)
		}
	}
}

func TestRelease(t *testing.T) {
	const banner = "Linux version 6.6.13-linuxkit (root@host) (gcc)\n"
	arm := armImage(1<<20-5, banner)
	decoy := armImage(1000, "Linux version %s"+strings.Repeat("\x00", 500)+banner)
	damaged := zboot("zstd22", packed.Zstd(t, arm))
	damaged = damaged[:len(damaged)-40]
	for name, test := range map[string]struct {
		kernel []byte
		want   string
	}{
		"x86":           {bzImage(release + " (builder@host) #1 SMP"), release},
		"x86, no text":  {bzImage(""), ""},
		"x86, no word":  {bzImage("Linux\x01 "), ""},
		"x86, too long": {bzImage("6.1" + strings.Repeat("x", 62)), ""},
		"x86, longest":  {bzImage("6.1" + strings.Repeat("x", 61)), "6.1" + strings.Repeat("x", 61)},
		"arm64":         {arm, "6.6.13-linuxkit"},
		"decoy":         {decoy, "6.6.13-linuxkit"},
		"no banner":     {armImage(100, "Linux version of what"), ""},
		"Image.gz":      {packed.Gzip(t, arm), "6.6.13-linuxkit"},
		"zboot gzip":    {zboot("gzip", packed.Gzip(t, arm)), "6.6.13-linuxkit"},
		"zboot zstd":    {zboot("zstd22", packed.Zstd(t, arm)), "6.6.13-linuxkit"},
		"zboot xz":      {zboot("xzkern", nil), ""},
		"zboot damaged": {damaged, ""},
	} {
		got, err := Release(bytes.NewReader(test.kernel), int64(len(test.kernel)))
		if err != nil || got != test.want {
			t.Errorf("%s: release %q, %v; want %q", name, got, err, test.want)
		}
	}
}

// The banner is found wherever the pieces that are searched begin and end.
func TestReleaseAtEveryOffset(t *testing.T) {
	const size = 64 << 10
	for at := size - 120; at < size+20; at++ {
		kernel := armImage(at, "Linux version 6.6.13 (root)")
		if got, err := Release(bytes.NewReader(kernel), int64(len(kernel))); err != nil || got != "6.6.13" {
			t.Fatalf("banner at %d: release %q, %v", at, got, err)
		}
	}
}

// file(1) reads the same release from the kernel package of the stack.
func TestRealKernel(t *testing.T) {
	name := stack.File(t, "kernel", "kernel")
	need.Program(t, "file", "file")
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Release(f, info.Size())
	if err != nil || got == "" {
		t.Fatalf("release %q, %v", got, err)
	}
	h, err := ReadHeader(f, info.Size())
	if err != nil || h.Architecture != "amd64" || !h.EFI || h.Compression == "" {
		t.Errorf("header %+v, %v", h, err)
	}
	out, err := exec.Command("file", "-b", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(out), "version "+got+" ") {
		t.Errorf("release %q; file says %s", got, out)
	}
}

// payload returns a bzImage with a payload. The build adds a size to those of
// zstd.
func payload(packed []byte) []byte {
	b := bzImage("")[:8*512+0x200]
	binary.LittleEndian.PutUint32(b[x86PayloadLength:], uint32(len(packed)))
	return append(append(b, packed...), "code after the payload"...)
}

// vmlinux returns the start of a kernel as ELF file.
func vmlinux(machine elf.Machine, text string) []byte {
	b := make([]byte, 64)
	copy(b, elf.ELFMAG)
	b[elf.EI_CLASS], b[elf.EI_DATA] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB)
	binary.LittleEndian.PutUint16(b[18:], uint16(machine))
	return append(b, text...)
}

func TestUnpack(t *testing.T) {
	x86, arm := vmlinux(elf.EM_X86_64, "Linux version 6.6.13 "), armImage(200, "Linux version 6.6.13 ")
	for name, test := range map[string]struct{ kernel, want []byte }{
		"bzImage zstd": {payload(append(packed.Zstd(t, x86), 0x10, 0, 0, 0)), x86},
		"bzImage gzip": {payload(packed.Gzip(t, x86)), x86},
		"bzImage none": {payload(x86), x86},
		"vmlinux":      {x86, x86},
		"Image":        {arm, arm},
		"Image.gz":     {packed.Gzip(t, arm), arm},
		"zboot zstd":   {zboot("zstd22", packed.Zstd(t, arm)), arm},
	} {
		var got bytes.Buffer
		if err := Unpack(&got, bytes.NewReader(test.kernel), int64(len(test.kernel))); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !bytes.Equal(got.Bytes(), test.want) {
			t.Errorf("%s: %d bytes, want %d", name, got.Len(), len(test.want))
		}
	}
	damaged := packed.Zstd(t, x86)
	damaged[len(damaged)-1] ^= 1 // its checksum
	for name, test := range map[string]struct {
		kernel []byte
		want   string
	}{
		"xz":      {payload([]byte("\xfd7zXZ\x00")), `the kernel is compressed with "xz"; supported are gzip, zstd and no compression`},
		"unknown": {payload([]byte("text")), "the kernel does not say how it is compressed"},
		"damaged": {payload(append(damaged, 0x10, 0, 0, 0)), "unpack the kernel: "},
		"text":    {bytes.Repeat([]byte("x"), 0x1000), ErrFormat.Error()},
	} {
		err := Unpack(io.Discard, bytes.NewReader(test.kernel), int64(len(test.kernel)))
		if err == nil || !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("%s: error %v, want %q", name, err, test.want)
		}
	}
}

// TestUnpackReal checks that the kernel package of the stack unpacks to an ELF file
// of the same release.
func TestUnpackReal(t *testing.T) {
	data, err := os.ReadFile(stack.File(t, "kernel", "kernel"))
	if err != nil {
		t.Fatal(err)
	}
	var unpacked bytes.Buffer
	if err := Unpack(&unpacked, bytes.NewReader(data), int64(len(data))); err != nil {
		t.Fatal(err)
	}
	f, err := elf.NewFile(bytes.NewReader(unpacked.Bytes()))
	if err != nil || f.Machine != elf.EM_X86_64 || f.Section(".text") == nil {
		t.Errorf("%+v, %v", f, err)
	}
	want, _ := Release(bytes.NewReader(data), int64(len(data)))
	if got, err := Release(bytes.NewReader(unpacked.Bytes()), int64(unpacked.Len())); got != want || want == "" {
		t.Errorf("release %q, %v; want %q", got, err, want)
	}
}

// A reader's error is returned, not taken for a foreign file.
func TestReadErrors(t *testing.T) {
	broken := errors.New("broken")
	for _, first := range []string{"", "MZ"} {
		r := failingReader{data: []byte(first), err: broken}
		if _, err := ReadHeader(r, 1<<20); !errors.Is(err, broken) {
			t.Errorf("error %v, want %v", err, broken)
		}
	}
}

type failingReader struct {
	data []byte
	err  error
}

func (r failingReader) ReadAt(p []byte, at int64) (int, error) { return copy(p, r.data), r.err }

// No file makes the reader panic, and each release is one that uname can have.
func FuzzRelease(f *testing.F) {
	f.Add(bzImage(release))
	f.Add(armImage(200, "Linux version 6.6.13 "))
	f.Add(packed.Gzip(f, armImage(200, "Linux version 6.6.13 ")))
	f.Add(zboot("gzip", packed.Gzip(f, armImage(200, "Linux version 6.6.13 "))))
	f.Add(zboot("zstd22", packed.Zstd(f, armImage(200, "Linux version 6.6.13 "))))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := Release(bytes.NewReader(data), int64(len(data)))
		if err != nil && !errors.Is(err, ErrFormat) {
			t.Error(err)
		}
		if got != "" && !validRelease.MatchString(got) {
			t.Errorf("release %q", got)
		}
	})
}
