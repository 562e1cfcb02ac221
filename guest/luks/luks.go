// Package luks reads the headers of LUKS disks and checks them before cryptsetup
// does, because the host of a virtual machine can write any header on a disk. One
// with a null cipher opens with every key, and the machine then writes its secrets
// unencrypted (CVE-2025-59054, CVE-2025-58356).
//
// Check a copy of the header, and let cryptsetup open the disk with that copy: the
// host can change the disk at any time.
//
// Formats: LUKS2 On-Disk Format Specification 1.1.3, sections 2 and 3; LUKS1
// On-Disk Format Specification 1.2.3, figure 2.
package luks

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// ErrFormat is the error for a header that is damaged or not one of LUKS.
var ErrFormat = errors.New("not a valid LUKS header")

// Sizes and offsets of a binary header, in bytes.
const (
	binarySize = 4096

	versionAt      = 6
	sizeAt         = 8
	algorithmAt    = 72
	algorithmSize  = 32
	offsetAt       = 256
	checksumAt     = 448
	checksumSize   = 64
	cipherNameAt   = 8 // of LUKS1
	cipherModeAt   = 40
	cipherTextSize = 32
	payloadAt      = 104

	sectorSize = 512
)

// Limits of the specification, and of what is copied, in bytes.
const (
	minHeader = 16 << 10
	maxHeader = 4 << 20
	maxCopy   = 32 << 20
)

var (
	magic          = []byte("LUKS\xba\xbe")
	secondaryMagic = []byte("SKUL\xba\xbe")
)

// A Header is what a header says about a disk.
type Header struct {
	// Copy is the beginning of the disk with all headers and key slots. cryptsetup
	// opens the disk with it as a detached header.
	Copy []byte
	// Ciphers are those of the data and of all key slots.
	Ciphers []string

	metadata metadata // of LUKS2
}

// metadata is the JSON area of LUKS2.
type metadata struct {
	keyslots, tokens, segments, digests, config object
}

// Read reads the header of a disk. It checks the checksums of LUKS2 and that both
// copies of a LUKS2 header are the same, so that it does not matter which of them
// another program uses.
func Read(disk io.ReaderAt) (*Header, error) {
	first := make([]byte, binarySize)
	if _, err := disk.ReadAt(first, 0); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if !bytes.HasPrefix(first, magic) {
		return nil, fmt.Errorf("%w: it has another magic number", ErrFormat)
	}
	switch version := binary.BigEndian.Uint16(first[versionAt:]); version {
	case 1:
		return read1(disk, first)
	case 2:
		return read2(disk, first)
	default:
		return nil, fmt.Errorf("%w: version %d", ErrFormat, version)
	}
}

func read1(disk io.ReaderAt, first []byte) (*Header, error) {
	cipher := text(first[cipherNameAt:][:cipherTextSize]) + "-" + text(first[cipherModeAt:][:cipherTextSize])
	h := &Header{Ciphers: []string{cipher}}
	return h, h.copy(disk, int64(binary.BigEndian.Uint32(first[payloadAt:]))*sectorSize)
}

// text returns a string that a zero ends.
func text(b []byte) string {
	s, _, _ := strings.Cut(string(b), "\x00")
	return s
}

// copy copies the header and the key slots.
func (h *Header) copy(disk io.ReaderAt, size int64) error {
	if size < binarySize || size > maxCopy {
		return fmt.Errorf("%w: it ends at byte %d", ErrFormat, size)
	}
	h.Copy = make([]byte, size)
	_, err := disk.ReadAt(h.Copy, 0)
	return err
}

func read2(disk io.ReaderAt, first []byte) (*Header, error) {
	size := binary.BigEndian.Uint64(first[sizeAt:])
	if size < minHeader || size > maxHeader || size&(size-1) != 0 {
		return nil, fmt.Errorf("%w: it has %d bytes", ErrFormat, size)
	}
	both := make([]byte, 2*size)
	if _, err := disk.ReadAt(both, 0); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	primary, secondary := both[:size], both[size:]
	for i, h := range [][]byte{primary, secondary} {
		if err := checkCopy(h, [][]byte{magic, secondaryMagic}[i], uint64(i)*size); err != nil {
			return nil, fmt.Errorf("%w: %s header: %w", ErrFormat, []string{"primary", "secondary"}[i], err)
		}
	}
	// Everything but the magic number, the salt of the checksum, the offset and the
	// checksum is the same. These are the fields that choose a copy.
	for _, part := range [][2]int{{versionAt, algorithmAt}, {binarySize, int(size)}} {
		if !bytes.Equal(primary[part[0]:part[1]], secondary[part[0]:part[1]]) {
			return nil, fmt.Errorf("%w: its two copies differ", ErrFormat)
		}
	}
	area, padding, _ := bytes.Cut(primary[binarySize:], []byte{0})
	if len(bytes.Trim(padding, "\x00")) > 0 {
		return nil, fmt.Errorf("%w: there is data after the JSON area", ErrFormat)
	}
	h := new(Header)
	if err := h.parse(area); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	// Segments may have any order. The data starts with the first of them.
	start := int64(maxCopy) + 1
	for name, raw := range h.metadata.segments {
		segment, err := parseObject(raw)
		if err != nil {
			return nil, fmt.Errorf("%w: segment %q: %w", ErrFormat, name, err)
		}
		offset, err := segment.number("offset")
		if err != nil {
			return nil, fmt.Errorf("%w: segment %q: %w", ErrFormat, name, err)
		}
		start = min(start, offset)
	}
	slots, err := h.metadata.config.number("keyslots_size")
	if err != nil {
		return nil, fmt.Errorf("%w: configuration: %w", ErrFormat, err)
	}
	end := 2*int64(size) + slots
	if start < end {
		return nil, fmt.Errorf("%w: the data starts at byte %d, and the key slots end at byte %d", ErrFormat, start, end)
	}
	return h, h.copy(disk, end)
}

// checkCopy checks one of the two copies of a LUKS2 header.
func checkCopy(h, want []byte, offset uint64) error {
	switch {
	case !bytes.HasPrefix(h, want):
		return errors.New("it has another magic number")
	case binary.BigEndian.Uint64(h[offsetAt:]) != offset:
		return errors.New("it says that it is at another place")
	case text(h[algorithmAt:][:algorithmSize]) != "sha256":
		return errors.New("its checksum is not SHA-256")
	}
	sum := sha256.New()
	sum.Write(h[:checksumAt])
	sum.Write(make([]byte, checksumSize))
	sum.Write(h[checksumAt+checksumSize:])
	if !bytes.Equal(sum.Sum(nil), h[checksumAt:][:sha256.Size]) {
		return errors.New("it does not match its checksum")
	}
	return nil
}

func (h *Header) parse(area []byte) error {
	top, err := parseObject(area)
	if err != nil {
		return err
	}
	m := &h.metadata
	for key, to := range map[string]*object{"keyslots": &m.keyslots, "tokens": &m.tokens, "segments": &m.segments, "digests": &m.digests, "config": &m.config} {
		if *to, err = top.object(key); err != nil {
			return err
		}
		delete(top, key)
	}
	if len(top) > 0 {
		return errors.New("it has unknown members")
	}
	for name, raw := range m.segments {
		segment, err := parseObject(raw)
		if err != nil {
			return fmt.Errorf("segment %q: %w", name, err)
		}
		// Only segments of this type are encrypted.
		if kind, err := segment.string("type"); err != nil || kind != "crypt" {
			return fmt.Errorf("segment %q: its type is %q: %w", name, kind, err)
		}
		if err := h.addCipher(segment); err != nil {
			return fmt.Errorf("segment %q: %w", name, err)
		}
	}
	for name, raw := range m.keyslots {
		slot, err := parseObject(raw)
		if err != nil {
			return fmt.Errorf("key slot %q: %w", name, err)
		}
		area, err := slot.object("area")
		if err == nil {
			err = h.addCipher(area)
		}
		if err != nil {
			return fmt.Errorf("key slot %q: %w", name, err)
		}
	}
	return nil
}

func (h *Header) addCipher(o object) error {
	cipher, err := o.string("encryption")
	h.Ciphers = append(h.Ciphers, cipher)
	return err
}

// CheckCiphers returns an error if a cipher does not encrypt, or is not known to.
func (h *Header) CheckCiphers() error {
	for _, cipher := range h.Ciphers {
		name, _, _ := strings.Cut(cipher, "-")
		switch name {
		case "aes", "serpent", "twofish", "camellia", "xchacha20,aes", "xchacha12,aes":
		default:
			return fmt.Errorf("the LUKS header has the cipher %q, which does not protect the data: refused", cipher)
		}
	}
	if len(h.Ciphers) == 0 {
		return errors.New("the LUKS header has no cipher: refused")
	}
	return nil
}

// An object is a JSON object. encoding/json ignores case and accepts members twice,
// and other parsers take another member then.
type object map[string]json.RawMessage

func parseObject(data []byte) (object, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("it is not a JSON object")
	}
	o := object{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, err
		}
		key, ok := t.(string)
		if _, twice := o[key]; !ok || twice {
			return nil, fmt.Errorf("it has the member %q twice", key)
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, err
		}
		o[key] = value
	}
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("there is data after the JSON object")
	}
	return o, nil
}

func (o object) object(key string) (object, error) {
	value, err := parseObject(o[key])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return value, nil
}

func (o object) string(key string) (string, error) {
	var s *string
	if err := json.Unmarshal(o[key], &s); err != nil || s == nil {
		return "", fmt.Errorf("%s is not a string", key)
	}
	return *s, nil
}

// number returns a number of 64 bits, which LUKS2 writes as a string.
func (o object) number(key string) (int64, error) {
	s, err := o.string(key)
	if err != nil {
		return 0, err
	}
	var n int64
	for _, c := range s {
		if c < '0' || c > '9' || n > 1<<59 {
			return 0, fmt.Errorf("%s is not a number: %q", key, s)
		}
		n = 10*n + int64(c-'0')
	}
	if s == "" {
		return 0, fmt.Errorf("%s is empty", key)
	}
	return n, nil
}
