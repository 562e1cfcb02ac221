package eif

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/slipway-build/slipway/exporter/sparse"
)

// maxText is the largest command line and the largest metadata that Read
// accepts, in bytes.
const maxText = 1 << 20

// Is reports whether a file begins like an enclave image.
func Is(r io.ReaderAt) bool {
	var head [len(magic)]byte
	n, _ := r.ReadAt(head[:], 0)
	return string(head[:n]) == magic
}

// Read reads an enclave image of size bytes, and measures it. The contents of
// the image read from r. It returns an error if the checksum is wrong, and
// [ErrSignature] if the image has a signature that does not fit it. Whether to trust
// the certificate of the signature is up to the caller.
func Read(r io.ReaderAt, size int64) (*Image, Measurements, error) {
	var h header
	raw, err := read(r, size, 0, headerSize, &h)
	if err != nil {
		return nil, Measurements{}, err
	}
	switch {
	case string(h.Magic[:]) != magic:
		return nil, Measurements{}, errors.New("not an enclave image")
	case h.Version != version:
		return nil, Measurements{}, fmt.Errorf("the enclave image has version %d; supported is %d", h.Version, version)
	case h.Sections > maxSections:
		return nil, Measurements{}, fmt.Errorf("the enclave image has %d sections; the format allows %d", h.Sections, maxSections)
	}
	image := &Image{Architecture: "amd64"}
	if h.Flags&flagARM64 != 0 {
		image.Architecture = "arm64"
	}
	m := newMeter()
	crc := crc32.NewIEEE()
	crc.Write(raw[:crcOffset])
	at := int64(headerSize)
	var signature []byte
	for i := range h.Sections {
		var s sectionHeader
		if raw, err = read(r, size, at, sectionHeaderSize, &s); err != nil {
			return nil, Measurements{}, err
		}
		if h.Offsets[i] != uint64(at) || h.Sizes[i] != s.Size {
			return nil, Measurements{}, fmt.Errorf("section %d of the enclave image is not where the header says", i)
		}
		crc.Write(raw)
		at += sectionHeaderSize
		if s.Size > uint64(size-at) {
			return nil, Measurements{}, fmt.Errorf("section %d of the enclave image exceeds the file", i)
		}
		data := sparse.FromReader(io.NewSectionReader(r, at, int64(s.Size)), int64(s.Size))
		if _, err := io.Copy(io.MultiWriter(crc, m.section(s.Kind)), data.Reader()); err != nil {
			return nil, Measurements{}, err
		}
		if s.Kind == sectionSignature {
			if signature, err = readText(data); err != nil {
				return nil, Measurements{}, err
			}
		} else if err := image.add(s.Kind, data); err != nil {
			return nil, Measurements{}, err
		}
		at += data.Size
	}
	if at != size {
		return nil, Measurements{}, fmt.Errorf("the enclave image has %d bytes after its last section", size-at)
	}
	if sum := crc.Sum32(); sum != h.CRC {
		return nil, Measurements{}, fmt.Errorf("the checksum of the enclave image is %08x, and its header says %08x", sum, h.CRC)
	}
	measured := m.measurements()
	if signature != nil {
		if image.Certificate, err = verify(signature, measured.PCR0); err != nil {
			return nil, Measurements{}, err
		}
		measured.PCR8 = measureBytes(image.Certificate.Raw)
	}
	return image, measured, nil
}

// add adds a section to the image.
func (image *Image) add(kind uint16, data sparse.Content) error {
	switch kind {
	case sectionKernel:
		image.Kernel = data
	case sectionCmdline:
		text, err := readText(data)
		image.Cmdline = string(text)
		return err
	case sectionMetadata:
		text, err := readText(data)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(text, &image.Metadata); err != nil {
			return fmt.Errorf("metadata of the enclave image: %w", err)
		}
	case sectionRamdisk:
		image.Ramdisks = append(image.Ramdisks, data)
	default:
		return fmt.Errorf("the enclave image has a section of the unknown type %d", kind)
	}
	return nil
}

// readText returns a section that is text.
func readText(c sparse.Content) ([]byte, error) {
	if c.Size > maxText {
		return nil, fmt.Errorf("a text of the enclave image has %d bytes; the limit is %d", c.Size, maxText)
	}
	return io.ReadAll(c.Reader())
}

// read decodes a header of n bytes, and returns these.
func read(r io.ReaderAt, size, at, n int64, h any) ([]byte, error) {
	if at > size-n {
		return nil, errors.New("the enclave image is incomplete")
	}
	raw := make([]byte, n)
	if _, err := io.ReadFull(io.NewSectionReader(r, at, n), raw); err != nil {
		return nil, err
	}
	_, err := binary.Decode(raw, binary.BigEndian, h)
	return raw, err
}
