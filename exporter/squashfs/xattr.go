package squashfs

import (
	"encoding/binary"
	"maps"
	"slices"
	"strings"
)

// xattrPrefixes are the names that the format has, by their number.
var xattrPrefixes = []string{"user.", "trusted.", "security."}

// SupportsXattr tells whether the format has a place for an extended attribute.
func SupportsXattr(xattr string) bool {
	return slices.ContainsFunc(xattrPrefixes, func(prefix string) bool { return strings.HasPrefix(xattr, prefix) })
}

// xattrs are the sets of extended attributes that files have.
type xattrs struct {
	sets  [][]byte
	count []uint32 // of attributes in the set
	index map[string]uint32
}

// add gives the number of a set.
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

// writeXattrs writes the sets, and the table that numbers them.
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
