// Package uki writes unified kernel images: programs for UEFI that hold a kernel
// and all that it needs.
//
// Format: UAPI Group, Unified Kernel Image Specification, and Microsoft, PE
// Format. Numbers are little-endian. An image is systemd's stub, to which
// sections are added: their headers behind those that are there, in the room
// that the stub leaves before its first section, and their contents at the end.
// Each section reaches up to the next one in the file, so that no byte of the
// file is outside of them, as programs that sign it want it.
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

// Section is a section of an image.
type Section struct {
	Name    string // of the specification, such as .linux
	Content sparse.Content
	// Align is what the offset of the content in the file is a multiple of,
	// in bytes; 0 for what the stub demands.
	Align int64
}

// Offsets in a PE file, from its signature on, and what follows from them.
const (
	peSections       = 6
	peOptionalSize   = 20
	peOptional       = 24
	optInitialized   = 8
	optSectionAlign  = 32
	optFileAlign     = 36
	optImageSize     = 56
	optHeadersSize   = 60
	optChecksum      = 64
	optMin           = 112
	sectionSize      = 40
	magicPE32Plus    = 0x20b
	initializedData  = 0x40
	readable         = 0x40000000
	pageSize         = 4096
	maxNameLength    = 8
	maxHeaderOffset  = 4096
	maxAlignmentBits = 16
)

// New makes an image of the stub and sections, in their order in the file. It
// fails if the stub is no PE file for 64 bits or has no room for the headers,
// and if the image does not fit into 4 GiB.
func New(stub []byte, sections []Section) (sparse.Content, error) {
	s, err := parse(stub)
	if err != nil {
		return sparse.Content{}, fmt.Errorf("UKI: the stub is of no use: %w", err)
	}
	if room := (s.headers - s.tableEnd) / sectionSize; len(sections) > room {
		return sparse.Content{}, fmt.Errorf("UKI: the stub has room for %d more sections, not for %d", room, len(sections))
	}

	le := binary.LittleEndian
	head := bytes.Clone(stub)
	content := make([]sparse.Run, 0, len(sections))
	at, address := sparse.RoundUp(int64(len(stub)), s.fileAlign), sparse.RoundUp(s.imageSize, max(s.sectionAlign, pageSize))
	last := s.tableEnd - sectionSize // header of the section that reaches up to the next
	var initialized int64
	reach := func(end int64) {
		size := end - int64(le.Uint32(head[last+20:]))
		le.PutUint32(head[last+16:], uint32(size))
	}
	for i, section := range sections {
		if len(section.Name) > maxNameLength {
			return sparse.Content{}, fmt.Errorf("UKI: %s is too long a name for a section", section.Name)
		}
		at = sparse.RoundUp(at, max(section.Align, s.fileAlign))
		if at+section.Content.Size > math.MaxUint32 || address+section.Content.Size > math.MaxUint32-pageSize {
			return sparse.Content{}, fmt.Errorf("UKI: %s of %d bytes makes it larger than 4 GiB, which UEFI cannot load", section.Name, section.Content.Size)
		}
		if i > 0 {
			reach(at)
		} else if err := s.extendLast(head, at); err != nil {
			return sparse.Content{}, err
		}
		last = s.tableEnd + i*sectionSize
		h := head[last:]
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
	le.PutUint16(head[s.pe+peSections:], uint16(s.sections+len(sections)))
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

// stub is what matters of a PE file.
type stub struct {
	pe           int // offset of the signature
	sections     int
	tableEnd     int // of the section headers
	headers      int // room for headers
	fileAlign    int64
	sectionAlign int64
	imageSize    int64
}

func parse(b []byte) (s stub, err error) {
	le := binary.LittleEndian
	if len(b) < 64 || string(b[:2]) != "MZ" {
		return s, errors.New("it is no program for UEFI")
	}
	s.pe = int(le.Uint32(b[60:]))
	if s.pe > maxHeaderOffset || len(b) < s.pe+peOptional+optMin || string(b[s.pe:s.pe+4]) != "PE\x00\x00" ||
		le.Uint16(b[s.pe+peOptional:]) != magicPE32Plus {
		return s, errors.New("it is no PE file for 64 bits")
	}
	optional := b[s.pe+peOptional:]
	s.sections = int(le.Uint16(b[s.pe+peSections:]))
	s.tableEnd = s.pe + peOptional + int(le.Uint16(b[s.pe+peOptionalSize:])) + s.sections*sectionSize
	s.headers = int(le.Uint32(optional[optHeadersSize:]))
	s.fileAlign = int64(le.Uint32(optional[optFileAlign:]))
	s.sectionAlign = int64(le.Uint32(optional[optSectionAlign:]))
	s.imageSize = int64(le.Uint32(optional[optImageSize:]))
	if s.sections == 0 || s.tableEnd > s.headers || s.headers > len(b) {
		return s, errors.New("its headers are damaged")
	}
	for _, a := range []int64{s.fileAlign, s.sectionAlign} {
		if a == 0 || a&(a-1) != 0 || a > 1<<maxAlignmentBits {
			return s, fmt.Errorf("its sections are aligned to %d bytes", a)
		}
	}
	return s, nil
}

// extendLast makes that section of the stub which ends last in the file reach
// up to an offset.
func (s stub) extendLast(head []byte, end int64) error {
	le := binary.LittleEndian
	var found []byte
	for i := range s.sections {
		h := head[s.tableEnd-(i+1)*sectionSize:][:sectionSize]
		if found == nil || le.Uint32(h[20:]) > le.Uint32(found[20:]) {
			found = h
		}
	}
	start := int64(le.Uint32(found[20:]))
	if start >= int64(len(head)) {
		return errors.New("UKI: the stub is of no use: it is truncated")
	}
	le.PutUint32(found[16:], uint32(end-start))
	return nil
}

// checksum is that of the file: the sum of its 16-bit words with the carries
// added, and its length. The field for it must be 0.
func checksum(image sparse.Content) (uint32, error) {
	var sum uint64
	buf := make([]byte, 256<<10)
	for _, r := range image.Runs {
		// Words are even and odd bytes: a run may start at either.
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
