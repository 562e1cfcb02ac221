// Package uki writes and reads unified kernel images: programs for UEFI that contain
// a kernel with its initramfs and command line.
//
// Formats: UAPI.5 Unified Kernel Image, and Microsoft, PE Format. Numbers are
// little-endian. An image is systemd's stub with additional sections. Their headers
// follow those of the stub, in the room before its first section, and their contents
// are at the end of the file. Each section reaches up to the next one, so that
// every byte belongs to a section, which tools for signing require.
package uki

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/slipway-build/slipway/exporter/sparse"
)

// A Section is a section of a program.
type Section struct {
	Name    string // up to 8 bytes, for example .linux (UAPI.5, "UKI Components")
	Content sparse.Content
	// Align is the alignment of the content in the file in bytes. It is a power
	// of two, and 0 stands for the alignment of the stub. Read does not set it.
	Align int64
}

// pageSize is the least distance of sections in memory, in bytes.
const pageSize = 4096

// New returns the stub with sections added in their order. It fails if the stub is
// not a 64-bit program for UEFI or has no room for the headers, and if the image
// exceeds 4 GiB.
func New(stub []byte, sections []Section) (sparse.Content, error) {
	s, err := readHeaders(bytes.NewReader(stub), int64(len(stub)))
	if err != nil {
		return sparse.Content{}, fmt.Errorf("UKI: invalid stub: %w", err)
	}
	if room := (s.size - s.tableEnd) / sectionSize; len(sections) > room {
		return sparse.Content{}, fmt.Errorf("UKI: the stub has room for %d more sections, but there are %d", room, len(sections))
	}

	le := binary.LittleEndian
	head := bytes.Clone(stub)
	content := make([]sparse.Run, 0, len(sections))
	at, address := sparse.RoundUp(int64(len(stub)), s.fileAlign), sparse.RoundUp(s.imageSize, max(s.sectionAlign, pageSize))
	last := s.tableEnd - sectionSize // header of the section to extend up to the next
	var initialized int64
	reach := func(end int64) {
		size := end - int64(le.Uint32(head[last+20:]))
		le.PutUint32(head[last+16:], uint32(size))
	}
	for i, section := range sections {
		if len(section.Name) > maxNameLength {
			return sparse.Content{}, fmt.Errorf("UKI: %s is too long for the name of a section: at most %d bytes", section.Name, maxNameLength)
		}
		at = sparse.RoundUp(at, max(section.Align, s.fileAlign))
		if at+section.Content.Size > math.MaxUint32 || address+section.Content.Size > math.MaxUint32-pageSize {
			return sparse.Content{}, fmt.Errorf("UKI: section %s of %d bytes makes the image larger than 4 GiB, which UEFI cannot load", section.Name, section.Content.Size)
		}
		if i > 0 {
			reach(at)
		} else if err := s.extendLast(head, at); err != nil {
			return sparse.Content{}, err
		}
		last = s.tableEnd + i*sectionSize
		h := head[last : last+sectionSize]
		clear(h) // stubs for arm64 fill the space behind the table with instructions
		copy(h, section.Name)
		le.PutUint32(h[8:], uint32(section.Content.Size))
		le.PutUint32(h[12:], uint32(address))
		le.PutUint32(h[20:], uint32(at))
		le.PutUint32(h[36:], initializedData|readable)
		content = append(content, section.Content.At(at)...)
		at += section.Content.Size
		address = sparse.RoundUp(address+section.Content.Size, max(s.sectionAlign, pageSize))
		initialized += sparse.RoundUp(section.Content.Size, s.fileAlign)
	}
	size := sparse.RoundUp(at, s.fileAlign)
	reach(size)
	le.PutUint16(head[s.pe+peSections:], uint16(len(s.sections)+len(sections)))
	optional := head[s.pe+peOptional:]
	le.PutUint32(optional[optInitialized:], uint32(int64(le.Uint32(optional[optInitialized:]))+initialized))
	le.PutUint32(optional[optImageSize:], uint32(address))
	le.PutUint32(optional[optChecksum:], 0)

	image, err := sparse.New(size, append(content, sparse.Bytes(head).At(0)...), nil)
	if err != nil {
		return sparse.Content{}, err
	}
	sum, err := checksum(image)
	le.PutUint32(optional[optChecksum:], sum)
	return image, err
}

// extendLast makes the section of the stub that ends last in the file reach up to
// an offset.
func (h headers) extendLast(head []byte, end int64) error {
	last := 0
	for i, s := range h.sections {
		if s.at >= h.sections[last].at {
			last = i
		}
	}
	start := h.sections[last].at
	if start >= int64(len(head)) {
		return fmt.Errorf("UKI: invalid stub: it is truncated: its section %q starts at byte %d of %d", h.sections[last].name, start, len(head))
	}
	binary.LittleEndian.PutUint32(head[h.tableEnd-(len(h.sections)-last)*sectionSize+16:], uint32(end-start))
	return nil
}

// checksum returns the checksum of a PE file: the sum of its 16-bit words, with
// carries added, plus its size. The field for it must be 0.
func checksum(image sparse.Content) (uint32, error) {
	var sum uint64
	buf := make([]byte, 256<<10)
	for _, r := range image.Runs {
		// A run may start at an odd byte, in the middle of a word.
		for done := int64(0); done < r.Size; {
			odd := int((r.Offset + done) & 1)
			n := int(min(int64(len(buf)-8), r.Size-done))
			clear(buf[:8])
			if _, err := r.Data.ReadAt(buf[odd:odd+n], done); err != nil && !errors.Is(err, io.EOF) {
				return 0, err
			}
			words := buf[:(odd+n+3)/4*4]
			clear(words[odd+n:])
			for i := 0; i < len(words); i += 4 {
				sum += uint64(binary.LittleEndian.Uint32(words[i:]))
			}
			done += int64(n)
		}
	}
	for sum > math.MaxUint16 {
		sum = sum>>16 + sum&math.MaxUint16
	}
	return uint32(sum) + uint32(image.Size), nil
}

// ChecksumOffset returns the offset of the checksum in a program of size bytes.
func ChecksumOffset(r io.ReaderAt, size int64) (int64, error) {
	h, err := readHeaders(r, size)
	return int64(h.pe + peOptional + optChecksum), err
}

// Checksum returns the checksum of a program of size bytes, as it is at
// ChecksumOffset.
func Checksum(r io.ReaderAt, size int64) (field [4]byte, err error) {
	at, err := ChecksumOffset(r, size)
	if err != nil {
		return field, err
	}
	end := at + int64(len(field))
	sum, err := checksum(sparse.Content{Size: size, Runs: []sparse.Run{
		{Size: at, Data: io.NewSectionReader(r, 0, at)},
		{Offset: end, Size: size - end, Data: io.NewSectionReader(r, end, size-end)},
	}})
	binary.LittleEndian.PutUint32(field[:], sum)
	return field, err
}
