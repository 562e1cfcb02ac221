// Package kernel reads the boot header of Linux kernels, and unpacks them.
//
// Formats: Linux, Documentation/arch/x86/boot.rst ("The Real-Mode Kernel
// Header") for bzImage, Documentation/arch/arm64/booting.rst ("Call the kernel
// image") for Image, drivers/firmware/efi/libstub/zboot-header.S for compressed
// EFI images, and elf(5) for vmlinux. Numbers are little-endian.
//
// Kernels may come from strangers. The package reads a bounded number of bytes
// and returns an error for a header that it does not know.
package kernel

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"regexp"

	"github.com/klauspost/compress/zstd"
)

// ErrFormat is the error for a file that has no known boot header.
var ErrFormat = errors.New("not a Linux kernel for x86 or arm64")

// Compressions of a kernel.
const (
	Uncompressed = "none"
	Gzip         = "gzip"
	Zstd         = "zstd"
)

// A Header holds the facts in a kernel's boot header.
type Header struct {
	// Architecture is the processor architecture as in GOARCH: "386", "amd64"
	// or "arm64".
	Architecture string
	// EFI reports whether UEFI firmware can start the kernel.
	EFI bool
	// Compression is Uncompressed, Gzip, Zstd, or another name that the kernel
	// build uses, for example "xz" and "lz4". It is "" if the kernel does not
	// say.
	Compression string
	// X86 holds the fields for boot loaders on x86. It is nil for others.
	X86 *X86

	payload int64 // offset in bytes of what Release unpacks or searches
	length  int64 // of the payload in bytes; 0: to the end of the file
	release int64 // offset in bytes of the release on x86, 0 for none
}

// X86 holds those fields of the header of a bzImage that limit where a boot
// loader may put the kernel and the initramfs. A field is 0 if the boot
// protocol is too old for it.
type X86 struct {
	Protocol      uint16 // version of the boot protocol: 0x020f is 2.15
	InitrdAddrMax uint32 // highest address that the initramfs may occupy
	PrefAddress   uint64 // address at which the kernel prefers to be loaded
	InitSize      uint32 // bytes of memory from there that the kernel needs to start
}

// Offsets in a bzImage, and the protocol versions that introduced the fields.
const (
	x86SetupSectors  = 0x1f1
	x86Magic         = 0x202
	x86Protocol      = 0x206
	x86KernelVersion = 0x20e
	x86InitrdAddrMax = 0x22c // 2.03
	x86LoadFlags     = 0x236 // 2.12
	x86PayloadOffset = 0x248 // 2.08
	x86PayloadLength = 0x24c // 2.08
	x86PrefAddress   = 0x258 // 2.10
	x86InitSize      = 0x260 // 2.10
	x86HeaderSize    = 0x264

	x86Is64Bit = 1 << 0 // XLF_KERNEL_64
)

// Offsets in an Image for arm64 and in a compressed EFI image.
const (
	armMagic         = 56
	zbootMagic       = 4
	zbootPayload     = 8
	zbootCompression = 24
	peOffset         = 60

	peMachineARM64 = 0xaa64
)

// ReadHeader reads the boot header of a kernel of size bytes. The error is
// ErrFormat if the file has none that is known, and the one of r if that fails.
func ReadHeader(r io.ReaderAt, size int64) (*Header, error) {
	head, err := read(r, size, 0, x86HeaderSize)
	if err != nil {
		return nil, err
	}
	if bytes.HasPrefix(head, []byte("\x1f\x8b")) {
		z, err := gzip.NewReader(io.NewSectionReader(r, 0, size))
		if err != nil {
			return nil, fmt.Errorf("%w: at byte 0: %v", ErrFormat, err)
		}
		n, _ := io.ReadFull(z, head[:cap(head)])
		h, err := parseARM64(head[:n])
		if err != nil {
			return nil, err
		}
		h.EFI, h.Compression = false, Gzip
		return h, nil
	}
	if bytes.HasPrefix(head, []byte(elf.ELFMAG)) {
		return parseELF(head)
	}
	if len(head) >= x86Protocol+2 && string(head[x86Magic:][:4]) == "HdrS" {
		return parseX86(r, size, head)
	}
	if len(head) >= peOffset+4 && string(head[:2]) == "MZ" && string(head[zbootMagic:][:4]) == "zimg" {
		return parseZboot(r, size, head)
	}
	return parseARM64(head)
}

// read reads up to n bytes at an offset, and fewer where the file ends.
func read(r io.ReaderAt, size, at int64, n int) ([]byte, error) {
	b := make([]byte, n)
	if at < 0 || at >= size {
		return nil, nil
	}
	b = b[:min(int64(n), size-at)]
	got, err := r.ReadAt(b, at)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read the kernel at byte %d: %w", at, err)
	}
	return b[:got], nil
}

func parseX86(r io.ReaderAt, size int64, head []byte) (*Header, error) {
	full := make([]byte, x86HeaderSize) // zeros after the end of a short file
	copy(full, head)
	le := binary.LittleEndian
	x := &X86{Protocol: le.Uint16(full[x86Protocol:])}
	h := &Header{Architecture: "386", EFI: isPE(r, size, head), X86: x}
	if at := le.Uint16(full[x86KernelVersion:]); at != 0 {
		h.release = int64(at) + 0x200
	}
	if x.Protocol >= 0x203 {
		x.InitrdAddrMax = le.Uint32(full[x86InitrdAddrMax:])
	}
	if x.Protocol >= 0x208 {
		setup := int64(full[x86SetupSectors])
		if setup == 0 {
			setup = 4 // for compatibility, says boot.rst
		}
		at := (setup+1)*512 + int64(le.Uint32(full[x86PayloadOffset:]))
		magic, err := read(r, size, at, 6)
		if err != nil {
			return nil, err
		}
		h.Compression = compressionOf(magic)
		h.payload, h.length = at, int64(le.Uint32(full[x86PayloadLength:]))
	}
	if x.Protocol >= 0x20a {
		x.PrefAddress, x.InitSize = le.Uint64(full[x86PrefAddress:]), le.Uint32(full[x86InitSize:])
	}
	if x.Protocol >= 0x20c && le.Uint16(full[x86LoadFlags:])&x86Is64Bit != 0 {
		h.Architecture = "amd64"
	}
	return h, nil
}

// compressionOf returns the compression of a bzImage's payload, from the magic
// numbers in boot.rst.
func compressionOf(payload []byte) string {
	for _, c := range []struct{ magic, name string }{
		{"\x1f\x8b", Gzip}, {"\x28\xb5\x2f\xfd", Zstd}, {"BZ", "bzip2"}, {"\x5d\x00", "lzma"},
		{"\xfd7zXZ", "xz"}, {"\x89LZO", "lzo"}, {"\x02\x21", "lz4"}, {"\x7fELF", Uncompressed},
	} {
		if bytes.HasPrefix(payload, []byte(c.magic)) {
			return c.name
		}
	}
	return ""
}

// elfMachines maps the machine of an ELF file to the architecture.
var elfMachines = map[elf.Machine]string{elf.EM_X86_64: "amd64", elf.EM_AARCH64: "arm64"}

// parseELF parses the header of a vmlinux.
func parseELF(head []byte) (*Header, error) {
	const machine = 18 // offset of e_machine
	if len(head) < machine+2 {
		return nil, ErrFormat
	}
	architecture, ok := elfMachines[elf.Machine(binary.LittleEndian.Uint16(head[machine:]))]
	if !ok || elf.Class(head[elf.EI_CLASS]) != elf.ELFCLASS64 || elf.Data(head[elf.EI_DATA]) != elf.ELFDATA2LSB {
		return nil, ErrFormat
	}
	return &Header{Architecture: architecture, Compression: Uncompressed}, nil
}

func parseARM64(head []byte) (*Header, error) {
	if len(head) < armMagic+4 || string(head[armMagic:][:4]) != "ARM\x64" {
		return nil, ErrFormat
	}
	return &Header{Architecture: "arm64", EFI: string(head[:2]) == "MZ", Compression: Uncompressed}, nil
}

func parseZboot(r io.ReaderAt, size int64, head []byte) (*Header, error) {
	le := binary.LittleEndian
	at := int64(le.Uint32(head[peOffset:]))
	machine, err := read(r, size, at, 6)
	if err != nil {
		return nil, err
	}
	if len(machine) < 6 || string(machine[:4]) != "PE\x00\x00" || le.Uint16(machine[4:]) != peMachineARM64 {
		return nil, fmt.Errorf("%w: the EFI image has no arm64 PE header at byte %d", ErrFormat, at)
	}
	name, _, _ := bytes.Cut(head[zbootCompression:][:32], []byte{0})
	h := &Header{Architecture: "arm64", EFI: true, Compression: string(name), payload: int64(le.Uint32(head[zbootPayload:]))}
	if h.Compression == "zstd22" {
		h.Compression = Zstd // at level 22
	}
	return h, nil
}

// isPE reports whether a PE header follows the DOS header: the EFI stub.
func isPE(r io.ReaderAt, size int64, head []byte) bool {
	if len(head) < peOffset+4 || string(head[:2]) != "MZ" {
		return false
	}
	signature, err := read(r, size, int64(binary.LittleEndian.Uint32(head[peOffset:])), 4)
	return err == nil && string(signature) == "PE\x00\x00"
}

// Limits of what the package reads.
const (
	maxUnpacked = 256 << 20 // bytes of an uncompressed kernel
	maxWindow   = 128 << 20 // bytes of zstd's history: what level 22 needs
	maxRelease  = 64        // characters (include/uapi/linux/utsname.h, __NEW_UTS_LEN)
)

var validRelease = regexp.MustCompile(`^[0-9]+\.[0-9]+[\w.+~-]*$`)

// Release returns the release of a kernel of size bytes, as uname -r prints it.
//
// On x86, the boot header points to it. On arm64, no header does: Release
// searches the kernel for the banner "Linux version …", and unpacks it first if
// it is compressed with gzip or zstd.
//
// Release returns "" for a kernel that has none or that it cannot unpack. The
// error is as for ReadHeader.
func Release(r io.ReaderAt, size int64) (string, error) {
	h, err := ReadHeader(r, size)
	if err != nil {
		return "", err
	}
	if h.X86 != nil {
		if h.release == 0 {
			return "", nil
		}
		text, err := read(r, size, h.release, maxRelease+1)
		return releaseOf(text), err
	}
	content, end, err := h.unpack(r, size)
	if err != nil || content == nil {
		return "", nil // a damaged kernel has no release
	}
	defer end()
	return findBanner(io.LimitReader(content, maxUnpacked)), nil
}

// unpack returns the uncompressed kernel, or nil if it does not know the
// compression.
func (h *Header) unpack(r io.ReaderAt, size int64) (content io.Reader, end func(), err error) {
	length := max(0, size-h.payload)
	if h.length > 0 {
		length = min(length, h.length)
	}
	if h.X86 != nil && h.Compression == Zstd {
		length = max(0, length-4) // the kernel's build adds the size of the vmlinux
	}
	packed := io.NewSectionReader(r, h.payload, length)
	switch h.Compression {
	case Uncompressed:
		return packed, func() {}, nil
	case Gzip:
		z, err := gzip.NewReader(packed)
		if err == nil {
			z.Multistream(false)
		}
		return z, func() {}, err
	case Zstd:
		z, err := zstd.NewReader(packed, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, nil, err
		}
		return z, z.Close, nil
	}
	return nil, nil, nil
}

// Unpack writes the kernel of size bytes without its compression and without the
// program that unpacks it: a vmlinux for x86, and an Image for arm64. Kernels
// that are such files already stay as they are. The error is as for ReadHeader
// if the file has no known boot header.
func Unpack(w io.Writer, r io.ReaderAt, size int64) error {
	h, err := ReadHeader(r, size)
	if err != nil {
		return err
	}
	content, end, err := h.unpack(r, size)
	if err != nil {
		return fmt.Errorf("unpack the kernel: %w", err)
	}
	if h.Compression == "" {
		return errors.New("the kernel does not say how it is compressed")
	}
	if content == nil {
		return fmt.Errorf("the kernel is compressed with %q; supported are %s, %s and no compression", h.Compression, Gzip, Zstd)
	}
	defer end()
	written, err := io.Copy(w, io.LimitReader(content, maxUnpacked+1))
	switch {
	case err != nil:
		return fmt.Errorf("unpack the kernel: %w", err)
	case written > maxUnpacked:
		return fmt.Errorf("the uncompressed kernel exceeds %d MiB", maxUnpacked>>20)
	case written == 0:
		return errors.New("the kernel has no payload")
	}
	return nil
}

// findBanner returns the release in the first banner, "" if there is none.
func findBanner(r io.Reader) string {
	words := []byte("Linux version ")
	b := bufio.NewReaderSize(r, 64<<10)
	for {
		piece, err := b.Peek(b.Size())
		for at := 0; ; {
			i := bytes.Index(piece[at:], words)
			if i < 0 || err == nil && at+i+len(words)+maxRelease+1 > len(piece) {
				break
			}
			at += i + len(words)
			if release := releaseOf(piece[at:min(at+maxRelease+1, len(piece))]); release != "" {
				return release
			}
		}
		if err != nil {
			return ""
		}
		// The next piece overlaps, so that a banner is whole in one of them.
		_, _ = b.Discard(len(piece) - len(words) - maxRelease)
	}
}

// releaseOf returns the first word of text if it is a release, else "".
func releaseOf(text []byte) string {
	if end := bytes.IndexAny(text, " \x00\n"); end >= 0 {
		text = text[:end]
	}
	if len(text) > maxRelease || !validRelease.Match(text) {
		return ""
	}
	return string(text)
}
