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
//	  ]
//	}
//
// Numbers are bytes. The extents are in order and cover the disk without gaps or
// overlaps. docs/reference/formats.md specifies the format.
package diskmap

import (
	"bytes"
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

// A Map is the map of a disk of Size bytes.
type Map struct {
	Version int      `json:"version"`
	Size    int64    `json:"size"`
	Extents []Extent `json:"extents"`
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
// disk in order, without gaps and overlaps, and have known types.
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
	return nil
}

// Write writes the map as JSON with one extent per line. The same map results in
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
	b.WriteString("\n  ]\n}\n")
	_, err := w.Write(b.Bytes())
	return err
}
