package iso9660

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/slipway-build/slipway/exporter/tree"
)

const (
	recordSize    = 33  // bytes of a directory record without identifier
	maxRecord     = 254 // bytes: the length is even and has 8 bits
	flagDirectory = 2
	flagContinues = 0x80 // the next record has more of the file

	selfIdentifier, upIdentifier = "\x00", "\x01"
)

// prepareDirectories sorts and numbers the directories for the path tables (ECMA-119,
// section 6.9.1), and computes their sizes.
func (v *Volume) prepareDirectories() {
	slices.SortStableFunc(v.directories, func(a, b *node) int { return cmp.Compare(a.depth, b.depth) })
	for start := 0; start < len(v.directories); {
		end := start
		for end < len(v.directories) && v.directories[end].depth == v.directories[start].depth {
			end++
		}
		level := v.directories[start:end]
		slices.SortFunc(level, func(a, b *node) int {
			return cmp.Or(cmp.Compare(a.parent.number, b.parent.number), cmp.Compare(a.sortKey, b.sortKey))
		})
		for i, d := range level {
			d.number = start + i + 1
		}
		start = end
	}
	for _, d := range v.directories {
		self, up := v.attributeFields(d), v.attributeFields(d.parent)
		if d.parent == d {
			sp, er := protocolFields()
			self = append(append([][]byte{sp}, self...), er)
		}
		d.self = v.put(self, maxRecord-recordLength(selfIdentifier, 0))
		d.up = v.put(up, maxRecord-recordLength(upIdentifier, 0))
		d.addSize(recordLength(selfIdentifier, d.self.size()), 1)
		d.addSize(recordLength(upIdentifier, d.up.size()), 1)
		for _, child := range d.children {
			fields := append(v.attributeFields(child), nameFields(child)...)
			child.attributes = v.put(fields, maxRecord-recordLength(child.identifier, 0))
			d.addSize(recordLength(child.identifier, child.attributes.size()), len(child.sections()))
		}
		d.recordsSize = sectors(d.recordsSize) * SectorSize
	}
}

// recordLength returns the length of a directory record in bytes. Identifiers and
// records are padded to even lengths.
func recordLength(identifier string, attributes int) int {
	n := recordSize + len(identifier)
	return n + n%2 + attributes + attributes%2
}

// addSize adds records of a length to the size. A record does not cross sectors.
func (n *node) addSize(length, count int) {
	for range count {
		n.recordsSize += int64(padding(n.recordsSize, length) + length)
	}
}

// padding returns the number of bytes before a record at an offset.
func padding(offset int64, length int) int {
	if rest := SectorSize - int(offset%SectorSize); length > rest {
		return rest
	}
	return 0
}

// section is the part of a file that one record describes.
type section struct {
	extent, size uint32
	last         bool
}

func (n *node) sections() []section {
	if n.Type != tree.File {
		return []section{{extent: n.extent, size: uint32(n.recordsSize), last: true}}
	}
	var all []section
	extent := n.first.extent
	for size := n.Size; ; {
		part := min(size, maxSection)
		size -= part
		all = append(all, section{extent, uint32(part), size == 0})
		if size == 0 {
			return all
		}
		extent += uint32(part / SectorSize)
	}
}

// encodeDirectory returns the records of a directory (ECMA-119, section 9.1).
func (v *Volume) encodeDirectory(d *node) []byte {
	b := make([]byte, 0, d.recordsSize)
	add := func(record []byte) {
		b = append(b, make([]byte, padding(int64(len(b)), len(record)))...)
		b = append(b, record...)
	}
	add(v.record(d.sections()[0], selfIdentifier, flagDirectory, d.self))
	add(v.record(d.parent.sections()[0], upIdentifier, flagDirectory, d.up))
	for _, child := range d.children {
		flags := byte(0)
		if child.Type == tree.Dir {
			flags = flagDirectory
		}
		for _, s := range child.sections() {
			add(v.record(s, child.identifier, flags, child.attributes))
		}
	}
	return append(b, make([]byte, int(d.recordsSize)-len(b))...)
}

func (v *Volume) record(s section, identifier string, flags byte, attributes area) []byte {
	if !s.last {
		flags |= flagContinues
	}
	b := make([]byte, 2, maxRecord)
	b[0] = byte(recordLength(identifier, attributes.size()))
	b = appendBoth32(b, s.extent)
	b = appendBoth32(b, s.size)
	b = append(b, shortTime(v.options.Time)...)
	b = append(b, flags, 0, 0)
	b = appendBoth16(b, 1) // volume of a set
	b = append(b, byte(len(identifier)))
	b = append(b, identifier...)
	if len(b)%2 == 1 {
		b = append(b, 0)
	}
	b = append(b, v.encodeArea(attributes)...)
	if len(b)%2 == 1 {
		b = append(b, 0)
	}
	return b
}

// pathIdentifier returns the identifier of a directory in the path tables.
func (n *node) pathIdentifier() string {
	if n.parent == n {
		return selfIdentifier
	}
	return n.identifier
}

func pathRecordSize(d *node) int64 {
	n := len(d.pathIdentifier())
	return int64(8 + n + n%2)
}

// encodePathTable returns a path table (ECMA-119, section 9.4).
func (v *Volume) encodePathTable(order binary.AppendByteOrder) []byte {
	b := make([]byte, 0, v.pathTable)
	for _, d := range v.directories {
		id := d.pathIdentifier()
		b = append(b, byte(len(id)), 0)
		b = order.AppendUint32(b, d.extent)
		b = order.AppendUint16(b, uint16(d.parent.number))
		b = append(b, id...)
		if len(id)%2 == 1 {
			b = append(b, 0)
		}
	}
	return b
}
