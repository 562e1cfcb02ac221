// Package diskmap tells which parts of a disk image matter, so that whoever
// uploads or writes it can leave out the rest.
//
// A map is a JSON object, kept as NAME.raw.map beside NAME.raw:
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
// Numbers are bytes. Extents are in order and cover the disk without gaps or
// overlaps. docs/reference/formats.md describes the format for others.
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

// Type says what a part of a disk holds.
type Type string

// The types of extents.
const (
	Data Type = "data" // bytes that must be as they are in the image
	Zero Type = "zero" // zeros that are read: they must be zeros on the disk too
	Free Type = "free" // never read before it is written: any bytes will do
)

// Extent is a part of a disk, in bytes.
type Extent struct {
	Offset int64 `json:"offset"`
	Length int64 `json:"length"`
	Type   Type  `json:"type"`
}

// End is the offset behind the extent.
func (e Extent) End() int64 { return e.Offset + e.Length }

// Map is the map of a disk of Size bytes.
type Map struct {
	Version int      `json:"version"`
	Size    int64    `json:"size"`
	Extents []Extent `json:"extents"`
}

// maxSize of a map in bytes. A disk has a few extents for each component of its
// machine.
const maxSize = 16 << 20

// Read reads a map. It fails if the map is of another version, or is not one
// of a whole disk: Check says how.
func Read(r io.Reader) (Map, error) {
	var m Map
	data, err := io.ReadAll(io.LimitReader(r, maxSize+1))
	if err != nil {
		return Map{}, fmt.Errorf("read the map of the disk: %w", err)
	}
	if len(data) > maxSize {
		return Map{}, fmt.Errorf("map of the disk: it is longer than %d bytes", maxSize)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&m); err != nil {
		return Map{}, fmt.Errorf("map of the disk: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Map{}, errors.New("map of the disk: something follows the JSON object")
	}
	if err := m.Check(); err != nil {
		return Map{}, fmt.Errorf("map of the disk: %w", err)
	}
	return m, nil
}

// Check returns an error unless the extents cover the disk in order, without
// gaps and overlaps, and have known types.
func (m Map) Check() error {
	if m.Version != Version {
		return fmt.Errorf("version %d is unknown: this program reads version %d", m.Version, Version)
	}
	var end int64
	for i, e := range m.Extents {
		switch {
		case e.Offset != end:
			return fmt.Errorf("extent %d starts at %d, but the one before it ends at %d", i, e.Offset, end)
		case e.Length <= 0 || e.Length > m.Size-e.Offset:
			return fmt.Errorf("extent %d at %d has %d bytes, which a disk of %d bytes cannot hold", i, e.Offset, e.Length, m.Size)
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

// Write writes the map, one extent a line. The same map has the same bytes.
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
