// Package eif writes and reads enclave images, which AWS Nitro Enclaves boot.
//
// Format: Enclave Image Format version 4, as the README and the module defs of
// https://github.com/aws/aws-nitro-enclaves-image-format define it. Numbers are
// big-endian. Layout:
//
//	0    header of 548 bytes
//	548  sections, each after a header of 12 bytes: the kernel, the kernel
//	     command line, the metadata, one or more initramfs images, and an
//	     optional signature of PCR0
//
// The hypervisor loads the initramfs images one after another. It measures the
// sections, not their headers, by the rules of [Measurements].
package eif

import (
	"bytes"
	"crypto/sha512"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"time"

	"github.com/slipway-build/slipway/exporter/sparse"
)

const (
	magic       = ".eif"
	version     = 4
	maxSections = 32
	headerSize  = 548
	crcOffset   = headerSize - 4

	sectionHeaderSize = 12

	flagARM64 = 1
)

// Types of sections.
const (
	sectionKernel    = 1
	sectionCmdline   = 2
	sectionRamdisk   = 3
	sectionSignature = 4
	sectionMetadata  = 5
)

// What an enclave has if its parent does not choose. nitro-cli sets the same.
const (
	defaultMemory = 1 << 30 // bytes
	defaultCPUs   = 2
)

// Image is an enclave image.
type Image struct {
	Architecture string // a GOARCH: amd64 or arm64
	Kernel       sparse.Content
	Cmdline      string // kernel command line

	// Ramdisks are the initramfs. The first belongs to what PCR1 measures, the
	// others to PCR2.
	Ramdisks []sparse.Content

	Metadata Metadata

	Signer *Signer // nil for an image without a signature

	// Certificate is that of the key that signed the image, and nil for an image
	// without a signature. Read sets it.
	Certificate *x509.Certificate
}

// Metadata describes an image. Nothing measures it.
type Metadata struct {
	Name    string          `json:"ImageName"`
	Version string          `json:"ImageVersion"`
	Build   Build           `json:"BuildMetadata"`
	Docker  json.RawMessage `json:"DockerInfo"`     // a JSON value; null if nil
	Custom  json.RawMessage `json:"CustomMetadata"` // a JSON value; null if nil
}

// Build is how an image was built.
type Build struct {
	Time            time.Time `json:"BuildTime"`
	Tool            string    `json:"BuildTool"`
	ToolVersion     string    `json:"BuildToolVersion"`
	OperatingSystem string    `json:"OperatingSystem"`
	KernelVersion   string    `json:"KernelVersion"`
}

// Digest is the value of a platform configuration register. Its text is
// hexadecimal.
type Digest [sha512.Size384]byte

// MarshalText returns the hexadecimal form.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// String returns the hexadecimal form.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// Measurements are the values of the registers of an enclave that boots an
// image. Each is SHA-384(48 zero bytes ‖ SHA-384(data)).
//
// See "Understanding cryptographic attestation" in the AWS Nitro Enclaves User
// Guide. PCR3 and PCR4 depend on the parent instance, see [MeasureText].
type Measurements struct {
	HashAlgorithm string  `json:"HashAlgorithm"`  // SHA384
	PCR0          Digest  `json:"PCR0"`           // kernel, command line and all ramdisks
	PCR1          Digest  `json:"PCR1"`           // kernel, command line and the first ramdisk
	PCR2          Digest  `json:"PCR2"`           // the other ramdisks
	PCR3          *Digest `json:"PCR3,omitempty"` // ARN of the role of the parent instance; nil if unknown
	PCR4          *Digest `json:"PCR4,omitempty"` // ID of the parent instance; nil if unknown
	PCR8          *Digest `json:"PCR8,omitempty"` // certificate of the signer; nil without a signature
}

// MeasureText returns the value of PCR3 for the ARN of a role, and of PCR4 for the
// ID of an instance.
func MeasureText(text string) *Digest { return measureBytes([]byte(text)) }

func measureBytes(b []byte) *Digest {
	h := sha512.New384()
	h.Write(b)
	d := extend(h)
	return &d
}

// meter measures sections.
type meter struct {
	image, boot, application hash.Hash
	ramdisks                 int
}

func newMeter() *meter {
	return &meter{image: sha512.New384(), boot: sha512.New384(), application: sha512.New384()}
}

// section returns where the data of the next section goes.
func (m *meter) section(kind uint16) io.Writer {
	switch kind {
	case sectionKernel, sectionCmdline:
		return io.MultiWriter(m.image, m.boot)
	case sectionRamdisk:
		m.ramdisks++
		if m.ramdisks == 1 {
			return io.MultiWriter(m.image, m.boot)
		}
		return io.MultiWriter(m.image, m.application)
	}
	return io.Discard
}

func (m *meter) measurements() Measurements {
	return Measurements{HashAlgorithm: "SHA384", PCR0: extend(m.image), PCR1: extend(m.boot), PCR2: extend(m.application)}
}

// extend returns what a register that was zero has after the digest of h
// extends it.
func extend(h hash.Hash) Digest {
	return sha512.Sum384(append(make([]byte, sha512.Size384), h.Sum(nil)...))
}

// New returns the file of an image and what it measures. It reads the whole
// image, because the header has its checksum.
func New(image Image) (sparse.Content, Measurements, error) {
	var flags uint16
	switch image.Architecture {
	case "amd64":
	case "arm64":
		flags = flagARM64
	default:
		return sparse.Content{}, Measurements{}, fmt.Errorf("there are no enclaves for %s, only for amd64 and arm64", image.Architecture)
	}
	metadata, err := json.Marshal(image.Metadata)
	if err != nil {
		return sparse.Content{}, Measurements{}, fmt.Errorf("metadata: %w", err)
	}
	sections := []section{
		{sectionKernel, image.Kernel},
		{sectionCmdline, sparse.Bytes([]byte(image.Cmdline))},
		{sectionMetadata, sparse.Bytes(metadata)},
	}
	for _, r := range image.Ramdisks {
		sections = append(sections, section{sectionRamdisk, r})
	}
	m := newMeter()
	for _, s := range sections {
		if _, err := io.Copy(m.section(s.kind), s.data.Reader()); err != nil {
			return sparse.Content{}, Measurements{}, err
		}
	}
	measured := m.measurements()
	if image.Signer != nil {
		signature, err := image.Signer.section(measured.PCR0)
		if err != nil {
			return sparse.Content{}, Measurements{}, err
		}
		sections = append(sections, section{sectionSignature, sparse.Bytes(signature)})
		measured.PCR8 = measureBytes(image.Signer.Certificate.Raw)
	}
	content, err := assemble(flags, sections)
	return content, measured, err
}

type section struct {
	kind uint16
	data sparse.Content
}

// assemble returns the file with these sections.
func assemble(flags uint16, sections []section) (sparse.Content, error) {
	if len(sections) > maxSections {
		return sparse.Content{}, fmt.Errorf("an enclave image has at most %d sections, not %d", maxSections, len(sections))
	}
	h := header{
		Version:  version,
		Flags:    flags,
		Memory:   defaultMemory,
		CPUs:     defaultCPUs,
		Sections: uint16(len(sections)),
	}
	copy(h.Magic[:], magic)
	at := int64(headerSize)
	for i, s := range sections {
		h.Offsets[i], h.Sizes[i] = uint64(at), uint64(s.data.Size)
		at += sectionHeaderSize + s.data.Size
	}

	crc := crc32.NewIEEE()
	crc.Write(encode(h)[:crcOffset])
	parts := []sparse.Content{{}}
	for _, s := range sections {
		head := encode(sectionHeader{Kind: s.kind, Size: uint64(s.data.Size)})
		crc.Write(head)
		if _, err := io.Copy(crc, s.data.Reader()); err != nil {
			return sparse.Content{}, err
		}
		parts = append(parts, sparse.Bytes(head), s.data)
	}
	h.CRC = crc.Sum32()
	parts[0] = sparse.Bytes(encode(h))
	return sparse.Concat(parts...), nil
}

// header is the header of the file.
type header struct {
	Magic    [4]byte
	Version  uint16
	Flags    uint16
	Memory   uint64 // bytes
	CPUs     uint64
	_        uint16
	Sections uint16
	Offsets  [maxSections]uint64 // of the headers of sections
	Sizes    [maxSections]uint64 // without headers
	_        uint32
	CRC      uint32 // IEEE 802.3, of the whole file without this field
}

// sectionHeader precedes the data of a section.
type sectionHeader struct {
	Kind uint16
	_    uint16
	Size uint64
}

// encode returns the encoding of a header.
func encode(h any) []byte {
	var b bytes.Buffer
	if err := binary.Write(&b, binary.BigEndian, h); err != nil {
		panic(err) // the headers have fixed sizes
	}
	return b.Bytes()
}
