package squashfs

import (
	"encoding/binary"
	"maps"
	"slices"
	"strings"
)

// xattrPrefixes are the prefixes of names that the format supports, by number.
var xattrPrefixes = []string{"user.", "trusted.", "security."}

// SupportsXattr reports whether the format supports an extended attribute of this
// name: one in the namespaces user, trusted and security.
func SupportsXattr(xattr string) bool {
	return slices.ContainsFunc(xattrPrefixes, func(prefix string) bool { return strings.HasPrefix(xattr, prefix) })
}

// xattrs is the table of the sets of extended attributes.
type xattrs struct {
	sets  [][]byte
	count []uint32 // number of attributes in each set
	index map[string]uint32
}

// add returns the index of a set.
func (x *xattrs) add(set map[string]string) uint32 {
	var b []byte
	var count uint32
	le := binary.LittleEndian
	for _, name := range slices.Sorted(maps.Keys(set)) {
		for number, prefix := range xattrPrefixes {
			rest, ok := strings.CutPrefix(name, prefix)
			if !ok {
				continue
			}
			b = le.AppendUint16(b, uint16(number))
			b = le.AppendUint16(b, uint16(len(rest)))
			b = append(b, rest...)
			b = le.AppendUint32(b, uint32(len(set[name])))
			b = append(b, set[name]...)
			count++
		}
	}
	if count == 0 {
		return none
	}
	if i, ok := x.index[string(b)]; ok {
		return i
	}
	if x.index == nil {
		x.index = map[string]uint32{}
	}
	i := uint32(len(x.sets))
	x.sets, x.count = append(x.sets, b), append(x.count, count)
	x.index[string(b)] = i
	return i
}

// writeXattrs writes the sets and their table, and returns the offset of the table
// in bytes.
func (w *writer) writeXattrs() (uint64, error) {
	le := binary.LittleEndian
	sets := metadata{codec: w.codec}
	var table []byte
	for i, set := range w.xattrs.sets {
		table = le.AppendUint64(table, sets.reference())
		table = le.AppendUint32(table, w.xattrs.count[i])
		table = le.AppendUint32(table, uint32(len(set)))
		sets.write(set)
	}
	head := le.AppendUint64(nil, uint64(w.at))
	head = le.AppendUint32(head, uint32(len(w.xattrs.sets)))
	head = le.AppendUint32(head, 0)
	if err := w.append(sets.finish()); err != nil {
		return 0, err
	}
	return w.writeTable(table, head)
}
