package uki

import (
	"bytes"
	"crypto"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"

	"github.com/slipway-build/slipway/exporter/sparse"
)

// Fields of an entry in the certificate table (PE Format, "The Attribute
// Certificate Table (Image Only)").
const (
	certificateHeader   = 8
	certificateRevision = 0x200 // WIN_CERT_REVISION_2_0
	certificatePKCS7    = 2     // WIN_CERT_TYPE_PKCS_SIGNED_DATA
	certificateAlign    = 8
)

// Limits for programs from strangers.
const (
	maxCertificateTable = 1 << 20
	maxSignatures       = 16
)

// hashParts calls add with each part of a program that its signatures cover, in
// order: the headers without the checksum and without the directory entry of the
// certificate table, the sections by their places in the file, and what follows
// them, without the certificate table (Microsoft, Windows Authenticode Portable
// Executable Signature Format, "Calculating the PE Image Hash").
func (h headers) hashParts(r io.ReaderAt, size int64, add func(io.Reader) error) error {
	optional := int64(h.pe + peOptional)
	checksum, directory := optional+optChecksum, optional+optCertificates
	parts := []sparse.Range{
		{Offset: 0, Size: checksum},
		{Offset: checksum + 4, Size: directory - checksum - 4},
		{Offset: directory + 8, Size: int64(h.size) - directory - 8},
	}
	end := int64(h.size) // sum of the sizes
	sections := slices.Clone(h.sections)
	slices.SortStableFunc(sections, func(a, b sectionHeader) int { return int(a.at - b.at) })
	for _, s := range sections {
		if s.size == 0 {
			continue
		}
		if s.at < int64(h.size) || s.size > size-s.at {
			return fmt.Errorf("%w: section %q lies outside of the file", ErrFormat, s.name)
		}
		parts = append(parts, sparse.Range{Offset: s.at, Size: s.size})
		end += s.size
	}
	if rest := size - int64(h.certificates) - end; rest > 0 {
		parts = append(parts, sparse.Range{Offset: end, Size: rest})
	}
	for _, p := range parts {
		if err := add(io.NewSectionReader(r, p.Offset, p.Size)); err != nil {
			return err
		}
	}
	return nil
}

// checkSignable returns an error for a program that has no room for a directory
// entry of the certificate table, or whose table is not the end of the file.
func (h headers) checkSignable(size int64) error {
	if !h.hasCertificates {
		return fmt.Errorf("%w: byte %d: there is no directory entry for signatures", ErrFormat, h.pe+peOptional+optCertificates)
	}
	if h.certificates == 0 {
		return nil
	}
	if h.certificates > maxCertificateTable {
		return fmt.Errorf("%w: the certificate table has %d bytes: at most %d", ErrFormat, h.certificates, maxCertificateTable)
	}
	if end := h.certificatesAt + int64(h.certificates); end != size || h.certificatesAt < int64(h.size) {
		return fmt.Errorf("%w: the certificate table is at bytes %d to %d of %d, not at the end of the file", ErrFormat, h.certificatesAt, end, size)
	}
	return nil
}

// Hash adds the Authenticode hash of a program of size bytes to each hash. It
// does not depend on the signatures of the program, except that Sign pads the
// program to a multiple of 8 bytes.
func Hash(r io.ReaderAt, size int64, hashes ...hash.Hash) error {
	h, err := readHeaders(r, size)
	if err != nil {
		return err
	}
	if err := h.checkSignable(size); err != nil {
		return err
	}
	writers := make([]io.Writer, len(hashes))
	for i, sum := range hashes {
		writers[i] = sum
	}
	all := io.MultiWriter(writers...)
	buf := make([]byte, 1<<20)
	return h.hashParts(r, size, func(part io.Reader) error {
		_, err := io.CopyBuffer(all, part, buf)
		return err
	})
}

// reservedTable is the size of the table that a signer without a key reserves, in
// bytes. A signature has 1.5 to 3 kB, with one certificate.
const reservedTable = 4096

// Sign returns a program with a signature added to those that it has. The result
// depends on the arguments only: it contains no time. Sign reads the whole program.
//
// A signer without a key reserves room for the signature of SignFile.
func Sign(program sparse.Content, s *Signer) (sparse.Content, error) {
	h, err := readHeaders(program, program.Size)
	if err != nil {
		return sparse.Content{}, err
	}
	if err := h.checkSignable(program.Size); err != nil {
		return sparse.Content{}, err
	}
	head := make([]byte, h.size)
	if _, err := program.ReadAt(head, 0); err != nil {
		return sparse.Content{}, err
	}
	table := make([]byte, h.certificates)
	at := program.Size
	if h.certificates > 0 {
		at = h.certificatesAt
		if _, err := program.ReadAt(table, at); err != nil {
			return sparse.Content{}, err
		}
	} else {
		at = sparse.RoundUp(at, certificateAlign)
		program.Size = at // the padding is hashed
	}
	certificate, err := s.certificate(program, program.Size)
	if err != nil {
		return sparse.Content{}, err
	}
	table = append(table, certificate...)

	le := binary.LittleEndian
	optional := head[h.pe+peOptional:]
	le.PutUint32(optional[optCertificates:], uint32(at))
	le.PutUint32(optional[optCertificates+4:], uint32(len(table)))
	le.PutUint32(optional[optChecksum:], 0)
	runs := append(between(program, int64(h.size), at), sparse.Bytes(head).At(0)...)
	signed, err := sparse.New(at+int64(len(table)), append(runs, sparse.Bytes(table).At(at)...), nil)
	if err != nil {
		return sparse.Content{}, err
	}
	total, err := checksum(signed)
	le.PutUint32(optional[optChecksum:], total)
	return signed, err
}

// certificate returns the entry of the certificate table for a program.
func (s *Signer) certificate(program io.ReaderAt, size int64) ([]byte, error) {
	if s.Key == nil {
		return encodeCertificate(nil, reservedTable), nil
	}
	sum := crypto.SHA256.New()
	if err := Hash(program, size, sum); err != nil {
		return nil, err
	}
	signature, err := s.authenticode(sum.Sum(nil))
	if err != nil {
		return nil, err
	}
	return encodeCertificate(signature, certificateHeader+len(signature)), nil
}

// A File is a program that can be changed in place.
type File interface {
	io.ReaderAt
	io.WriterAt
}

// ErrNoRoom is the error for a program that has no room for a signature.
var ErrNoRoom = errors.New("the program has no room for the signature")

// SignFile signs a program of size bytes in place. The signature replaces those that
// the program has. The size stays the same, so that the file system does not change.
// The error is ErrNoRoom if Sign has not reserved room.
func SignFile(f File, size int64, s *Signer) error {
	h, err := readHeaders(f, size)
	if err != nil {
		return err
	}
	if err := h.checkSignable(size); err != nil {
		return err
	}
	table, err := s.certificate(f, size)
	if err != nil {
		return err
	}
	if len(table) > h.certificates {
		return fmt.Errorf("%w: it needs %d bytes, and %d are reserved", ErrNoRoom, len(table), h.certificates)
	}
	// The entry fills the table: what is after it would be part of the program.
	table = append(table, make([]byte, h.certificates-len(table))...)
	binary.LittleEndian.PutUint32(table, uint32(h.certificates))
	return h.writeTable(f, size, table)
}

// writeTable overwrites the certificate table of a program in place.
func (h headers) writeTable(f File, size int64, table []byte) error {
	if _, err := f.WriteAt(table, h.certificatesAt); err != nil {
		return err
	}
	// The checksum is over the file with a zero in its place.
	at := int64(h.pe + peOptional + optChecksum)
	if _, err := f.WriteAt(make([]byte, 4), at); err != nil {
		return err
	}
	total, err := checksum(sparse.Content{Size: size, Runs: []sparse.Run{{Size: size, Data: f}}})
	if err != nil {
		return err
	}
	_, err = f.WriteAt(binary.LittleEndian.AppendUint32(nil, total), at)
	return err
}

// CopySignatures copies the signatures of a program into the room that Sign has
// reserved in another program of the same size, and returns them. It copies
// nothing if the first program has no signatures, or the other one has some or no
// room. The error is ErrSignature if a signature does not cover the first program.
func CopySignatures(to File, from io.ReaderAt, size int64) ([]Signature, error) {
	signatures, err := Signatures(from, size)
	if err != nil || len(signatures) == 0 {
		return nil, err
	}
	source, err := readHeaders(from, size)
	if err != nil {
		return nil, err
	}
	h, err := readHeaders(to, size)
	if err != nil {
		return nil, err
	}
	if h.certificates == 0 || h.certificates != source.certificates || h.certificatesAt != source.certificatesAt {
		return nil, nil
	}
	if present, err := Signatures(to, size); err != nil || len(present) > 0 {
		return nil, err
	}
	table := make([]byte, h.certificates)
	if _, err := from.ReadAt(table, h.certificatesAt); err != nil {
		return nil, err
	}
	return signatures, h.writeTable(to, size, table)
}

// between returns the runs of a content from one offset to another.
func between(c sparse.Content, from, to int64) []sparse.Run {
	var runs []sparse.Run
	for _, r := range c.Runs {
		start, end := max(r.Offset, from), min(r.End(), to)
		switch {
		case start >= end:
			continue
		case start != r.Offset:
			r.Data = io.NewSectionReader(r.Data, start-r.Offset, end-start)
		}
		r.Offset, r.Size = start, end-start
		runs = append(runs, r)
	}
	return runs
}

// encodeCertificate returns an entry of the certificate table of at least size bytes.
func encodeCertificate(signature []byte, size int) []byte {
	size = int(sparse.RoundUp(int64(size), certificateAlign))
	b := make([]byte, size)
	binary.LittleEndian.PutUint32(b, uint32(size))
	binary.LittleEndian.PutUint16(b[4:], certificateRevision)
	binary.LittleEndian.PutUint16(b[6:], certificatePKCS7)
	copy(b[certificateHeader:], signature)
	return b
}

// Signatures returns the signatures of a program of size bytes. It verifies that
// each covers the program as it is and is by the key of the certificate that it
// contains, but not who that is. The error is ErrSignature if one does not.
func Signatures(r io.ReaderAt, size int64) ([]Signature, error) {
	h, err := readHeaders(r, size)
	if err != nil {
		return nil, err
	}
	if h.certificates == 0 {
		return nil, nil
	}
	if err := h.checkSignable(size); err != nil {
		return nil, err
	}
	table := make([]byte, h.certificates)
	if _, err := r.ReadAt(table, h.certificatesAt); err != nil {
		return nil, err
	}
	sum := crypto.SHA256.New()
	if err := Hash(r, size, sum); err != nil {
		return nil, err
	}
	var signatures []Signature
	for len(table) >= certificateHeader && len(signatures) < maxSignatures {
		length := int64(binary.LittleEndian.Uint32(table))
		if length < certificateHeader || length > int64(len(table)) {
			return nil, fmt.Errorf("%w: an entry of the certificate table has %d bytes", ErrFormat, length)
		}
		reserved := bytes.Count(table[certificateHeader:length], []byte{0}) == int(length)-certificateHeader
		if !reserved && binary.LittleEndian.Uint16(table[6:]) == certificatePKCS7 {
			s, err := readSignature(table[certificateHeader:length])
			if err != nil {
				return nil, err
			}
			if !bytes.Equal(s.digest, sum.Sum(nil)) {
				return nil, fmt.Errorf("%w: the program was changed after %q signed it", ErrSignature, s.Certificate.Subject)
			}
			signatures = append(signatures, s)
		}
		table = table[min(sparse.RoundUp(length, certificateAlign), int64(len(table))):]
	}
	return signatures, nil
}
