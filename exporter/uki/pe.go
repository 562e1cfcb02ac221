package uki

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/slipway-build/slipway/exporter/sparse"
)

// ErrFormat is the error for a file that is not a 64-bit program for UEFI, or is
// damaged.
var ErrFormat = errors.New("not a 64-bit program for UEFI")

// A Program is a program for UEFI: a boot loader, a kernel with an EFI stub or a
// unified kernel image.
type Program struct {
	// Architecture is the processor architecture as in GOARCH: "amd64" or
	// "arm64", and "" for others.
	Architecture string
	Sections     []Section // in the order of their headers
	// Signed reports whether there is a table of signatures. It does not verify
	// them, see Signatures.
	Signed bool
}

// Section returns the content of the first section of a name.
func (p Program) Section(name string) (content sparse.Content, ok bool) {
	for _, s := range p.Sections {
		if s.Name == name {
			return s.Content, true
		}
	}
	return sparse.Content{}, false
}

// Offsets in a PE file, in bytes: from its signature, in the optional header, and
// in the header of a section (PE Format, "COFF File Header", "Optional Header"
// and "Section Table").
const (
	peMachine      = 4
	peSections     = 6
	peOptionalSize = 20
	peOptional     = 24

	optInitialized  = 8
	optSectionAlign = 32
	optFileAlign    = 36
	optImageSize    = 56
	optHeadersSize  = 60
	optChecksum     = 64
	optMin          = 112

	// The directory entry of signatures is the fifth (PE Format, "Optional Header
	// Data Directories"). Its offset and size take 4 bytes each.
	optDirectories  = optMin - 4 // number of directory entries
	optCertificates = optMin + 4*8

	sectionSize     = 40
	initializedData = 0x40
	readable        = 0x40000000

	magicPE32Plus = 0x20b
)

// Limits. Windows loads no program with more sections.
const (
	maxSections      = 96
	maxNameLength    = 8
	maxHeaderOffset  = 4096
	maxAlignmentBits = 16
)

var architectures = map[uint16]string{0x8664: "amd64", 0xaa64: "arm64"}

// headers are those of a PE file. Sizes and offsets are in bytes.
type headers struct {
	pe           int // offset of the signature
	machine      uint16
	sections     []sectionHeader
	tableEnd     int // offset of the end of the section headers
	size         int // of all headers, with the unused room at their end
	fileAlign    int64
	sectionAlign int64
	imageSize    int64 // in memory

	hasCertificates bool  // there is a directory entry for the table of signatures
	certificatesAt  int64 // offset of the table of signatures
	certificates    int   // and its size in bytes
}

type sectionHeader struct {
	name       string
	memorySize int64
	at, size   int64 // in the file
}

// readHeaders reads the headers of a file of size bytes. It reads less than
// 128 KiB.
func readHeaders(r io.ReaderAt, size int64) (h headers, err error) {
	invalid := func(at int, what string) (headers, error) {
		return h, fmt.Errorf("%w: byte %d: %s", ErrFormat, at, what)
	}
	le := binary.LittleEndian
	dos := make([]byte, 64)
	if err := readAt(r, size, dos, 0); err != nil {
		return h, err
	}
	if string(dos[:2]) != "MZ" {
		return invalid(0, "it does not start with MZ")
	}
	if le.Uint32(dos[60:]) > maxHeaderOffset {
		return invalid(60, "the PE header is too far from the start")
	}
	h.pe = int(le.Uint32(dos[60:]))
	b := make([]byte, peOptional+optMin)
	if err := readAt(r, size, b, h.pe); err != nil {
		return h, err
	}
	if string(b[:4]) != "PE\x00\x00" || le.Uint16(b[peOptional:]) != magicPE32Plus {
		return invalid(h.pe, "there is no PE32+ header")
	}
	h.machine = le.Uint16(b[peMachine:])
	count := int(le.Uint16(b[peSections:]))
	if count == 0 || count > maxSections {
		return invalid(h.pe+peSections, fmt.Sprintf("it has %d sections", count))
	}
	optional := b[peOptional:]
	if n := le.Uint16(b[peOptionalSize:]); n < optMin {
		return invalid(h.pe+peOptionalSize, fmt.Sprintf("the optional header has %d bytes", n))
	}
	table := h.pe + peOptional + int(le.Uint16(b[peOptionalSize:]))
	if table-h.pe-peOptional >= optCertificates+8 && le.Uint32(optional[optDirectories:]) > 4 {
		entry := make([]byte, 8)
		if err := readAt(r, size, entry, h.pe+peOptional+optCertificates); err != nil {
			return h, err
		}
		h.hasCertificates = true
		h.certificatesAt, h.certificates = int64(le.Uint32(entry)), int(le.Uint32(entry[4:]))
	}
	h.tableEnd = table + count*sectionSize
	h.size = int(le.Uint32(optional[optHeadersSize:]))
	if h.tableEnd > h.size || int64(h.size) > size {
		return invalid(h.pe+peOptional+optHeadersSize, fmt.Sprintf("the headers end at byte %d, and the section headers at %d", h.size, h.tableEnd))
	}
	h.fileAlign, h.sectionAlign = int64(le.Uint32(optional[optFileAlign:])), int64(le.Uint32(optional[optSectionAlign:]))
	h.imageSize = int64(le.Uint32(optional[optImageSize:]))
	for at, a := range map[int]int64{optFileAlign: h.fileAlign, optSectionAlign: h.sectionAlign} {
		if a == 0 || a&(a-1) != 0 || a > 1<<maxAlignmentBits {
			return invalid(h.pe+peOptional+at, fmt.Sprintf("sections are aligned to %d bytes", a))
		}
	}
	b = make([]byte, count*sectionSize)
	if err := readAt(r, size, b, table); err != nil {
		return h, err
	}
	for ; len(b) > 0; b = b[sectionSize:] {
		h.sections = append(h.sections, sectionHeader{
			name:       strings.TrimRight(string(b[:maxNameLength]), "\x00"),
			memorySize: int64(le.Uint32(b[8:])),
			size:       int64(le.Uint32(b[16:])),
			at:         int64(le.Uint32(b[20:])),
		})
	}
	return h, nil
}

func readAt(r io.ReaderAt, size int64, b []byte, at int) error {
	if size < int64(at+len(b)) {
		return fmt.Errorf("%w: byte %d: the file ends in its headers", ErrFormat, size)
	}
	if n, err := r.ReadAt(b, int64(at)); n < len(b) {
		return fmt.Errorf("byte %d: %w", at+n, err)
	}
	return nil
}

// Read reads the headers of a program of size bytes. The contents of its
// sections stay in r. The error is ErrFormat if the file is not a program or a
// section lies outside of it, and the one of r if that fails.
func Read(r io.ReaderAt, size int64) (Program, error) {
	h, err := readHeaders(r, size)
	if err != nil {
		return Program{}, err
	}
	p := Program{Architecture: architectures[h.machine], Signed: h.certificates > 0}
	for i, s := range h.sections {
		if s.size > 0 && (s.at < int64(h.size) || s.size > size-s.at) {
			return Program{}, fmt.Errorf("%w: byte %d: section %q has bytes %d to %d of %d", ErrFormat,
				h.tableEnd-(len(h.sections)-i)*sectionSize, s.name, s.at, s.at+s.size, size)
		}
		// In the file, a section is padded; in memory, it may continue with zeros.
		content := sparse.Content{Size: s.memorySize}
		if n := min(s.size, s.memorySize); n > 0 {
			content.Runs = []sparse.Run{{Size: n, Data: io.NewSectionReader(r, s.at, n)}}
		}
		p.Sections = append(p.Sections, Section{Name: s.name, Content: content})
	}
	return p, nil
}
