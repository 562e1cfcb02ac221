// Package diskmap writes and reads maps of disk images: which parts of an image
// matter, so that programs that upload or write it can skip the rest.
//
// A map is a JSON object, in the file NAME.raw.map beside NAME.raw:
//
//	{
//	  "version": 1,
//	  "size": 104857600,
//	  "extents": [
//	    {"offset": 0, "length": 512, "type": "data"},
//	    {"offset": 512, "length": 523776, "type": "zero"},
//	    {"offset": 524288, "length": 104333312, "type": "free"}
//	  ],
//	  "digests": [
//	    {"block": 0, "sha256": "a2b…"}
//	  ]
//	}
//
// Offsets and lengths are bytes. The extents are in order and cover the disk
// without gaps or overlaps. The digests are those of the blocks of 512 KiB that
// are not all zeros, in order; the last block is padded with zeros. docs/reference/formats.md specifies the format.
package diskmap

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Version of the format.
const Version = 1

// A Type is what a part of a disk contains.
type Type string

// The types of extents.
const (
	Data Type = "data" // bytes that must be the same on the disk
	Zero Type = "zero" // zeros that must be zeros on the disk
	Free Type = "free" // never read before written: the disk may have any bytes
)

// An Extent is a part of a disk.
type Extent struct {
	Offset int64 `json:"offset"` // bytes
	Length int64 `json:"length"` // bytes
	Type   Type  `json:"type"`
}

// End returns the offset of the end of the extent in bytes.
func (e Extent) End() int64 { return e.Offset + e.Length }

// BlockSize is the size of the blocks that have digests, in bytes: that of a
// block of EBS.
const BlockSize = 512 << 10

// A Digest is that of a block.
type Digest struct {
	Block  int32  `json:"block"`  // number, from 0
	SHA256 string `json:"sha256"` // of its bytes, in lowercase hexadecimal
}

// A Map is the map of a disk of Size bytes.
type Map struct {
	Version int      `json:"version"`
	Size    int64    `json:"size"`
	Extents []Extent `json:"extents"`
	// Digests has all blocks that are not zero, or is nil if they are not known.
	Digests []Digest `json:"digests,omitempty"`
	// Reserved has the parts that can be filled after the build, in order.
	Reserved []Area `json:"reserved,omitempty"`
}

// An Area is a part of a disk that can be filled after the build.
type Area struct {
	Kind   string `json:"kind"`   // for example user-data
	Offset int64  `json:"offset"` // bytes
	Length int64  `json:"length"` // bytes
}

// maxSize limits a map, in bytes. A disk has a few extents for each component of
// its machine.
const maxSize = 16 << 20

// Read reads a map of up to 16 MiB. It fails if the JSON is invalid, and where
// Check does.
func Read(r io.Reader) (Map, error) {
	var m Map
	data, err := io.ReadAll(io.LimitReader(r, maxSize+1))
	if err != nil {
		return Map{}, fmt.Errorf("read the map of the disk: %w", err)
	}
	if len(data) > maxSize {
		return Map{}, fmt.Errorf("map of the disk: it has more than %d bytes", maxSize)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&m); err != nil {
		return Map{}, fmt.Errorf("map of the disk: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Map{}, errors.New("map of the disk: there is more after the JSON object")
	}
	if err := m.Check(); err != nil {
		return Map{}, fmt.Errorf("map of the disk: %w", err)
	}
	return m, nil
}

// Check returns an error unless the version is known and the extents cover the
// disk in order, without gaps and overlaps, and have known types, and the digests
// are in order and valid.
func (m Map) Check() error {
	if m.Version != Version {
		return fmt.Errorf("unknown version %d: this program reads version %d", m.Version, Version)
	}
	var end int64
	for i, e := range m.Extents {
		switch {
		case e.Offset != end:
			return fmt.Errorf("extent %d starts at %d, but the one before it ends at %d", i, e.Offset, end)
		case e.Length <= 0 || e.Length > m.Size-e.Offset:
			return fmt.Errorf("extent %d at %d has %d bytes, which do not fit on a disk of %d bytes", i, e.Offset, e.Length, m.Size)
		case e.Type != Data && e.Type != Zero && e.Type != Free:
			return fmt.Errorf("extent %d at %d has the unknown type %q", i, e.Offset, e.Type)
		}
		end = e.End()
	}
	if end != m.Size || m.Size <= 0 {
		return fmt.Errorf("the extents end at %d, but the disk has %d bytes", end, m.Size)
	}
	end = 0
	for _, a := range m.Reserved {
		if a.Offset < end || a.Length <= 0 || a.Length > m.Size-a.Offset {
			return fmt.Errorf("the reserved area %q at %d has %d bytes", a.Kind, a.Offset, a.Length)
		}
		end = a.Offset + a.Length
	}
	return m.checkDigests()
}

func (m Map) checkDigests() error {
	next := int64(0)
	for _, d := range m.Digests {
		sum, err := hex.DecodeString(d.SHA256)
		switch {
		case int64(d.Block) < next:
			return fmt.Errorf("the digest of block %d follows the one of block %d", d.Block, next-1)
		case int64(d.Block) > (m.Size-1)/BlockSize:
			return fmt.Errorf("block %d with a digest is after the end of the disk", d.Block)
		case err != nil || len(sum) != sha256.Size || hex.EncodeToString(sum) != d.SHA256:
			return fmt.Errorf("invalid digest %q of block %d", d.SHA256, d.Block)
		}
		next = int64(d.Block) + 1
	}
	return nil
}

// Write writes the map as JSON with one extent or digest per line. The same map results in
// the same bytes.
func (m Map) Write(w io.Writer) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "{\n  \"version\": %d,\n  \"size\": %d,\n  \"extents\": [", m.Version, m.Size)
	for i, e := range m.Extents {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "\n    {\"offset\": %d, \"length\": %d, \"type\": %q}", e.Offset, e.Length, e.Type)
	}
	b.WriteString("\n  ]")
	for i, d := range m.Digests {
		if i == 0 {
			b.WriteString(",\n  \"digests\": [")
		} else {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "\n    {\"block\": %d, \"sha256\": %q}", d.Block, d.SHA256)
	}
	if len(m.Digests) > 0 {
		b.WriteString("\n  ]")
	}
	for i, a := range m.Reserved {
		if i == 0 {
			b.WriteString(",\n  \"reserved\": [")
		} else {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "\n    {\"kind\": %q, \"offset\": %d, \"length\": %d}", a.Kind, a.Offset, a.Length)
	}
	if len(m.Reserved) > 0 {
		b.WriteString("\n  ]")
	}
	b.WriteString("\n}\n")
	_, err := w.Write(b.Bytes())
	return err
}
