package iso9660

import (
	"bytes"
	"strings"

	"github.com/slipway-build/slipway/exporter/tree"
)

const (
	maxField     = 255 // bytes of a system use field
	pointerSize  = 28  // bytes of a CE field
	maxComponent = 248 // bytes of a component of a symbolic link in one field

	// Flags of NM and SL fields, and of components of SL.
	continues  = 1
	currentDir = 2
	parentDir  = 4
	rootDir    = 8
)

// area is the system use area of a directory record.
type area struct {
	fields []byte // in the record
	more   piece  // the rest, in the continuation area
}

// piece is a part of the continuation area.
type piece struct{ at, size int }

// pointer is a CE field in the continuation area, to a piece of it.
type pointer struct {
	at int
	to piece
}

// size returns the size of the area in the record in bytes.
func (a area) size() int {
	if a.more.size > 0 {
		return len(a.fields) + pointerSize
	}
	return len(a.fields)
}

// put divides fields between a record, which has left bytes for them, and the
// continuation area.
func (v *Volume) put(fields [][]byte, left int) area {
	if total := len(bytes.Join(fields, nil)); total > left {
		left -= pointerSize
	}
	var a area
	for len(fields) > 0 && len(a.fields)+len(fields[0]) <= left {
		a.fields = append(a.fields, fields[0]...)
		fields = fields[1:]
	}
	// A piece does not cross sectors, as Linux requires (fs/isofs/rock.c,
	// rock_continue), and ends with a pointer to the next piece.
	var last *pointer
	for len(fields) > 0 {
		var content []byte
		for len(fields) > 0 && len(content)+len(fields[0])+pointerSize <= SectorSize {
			content = append(content, fields[0]...)
			fields = fields[1:]
		}
		p := piece{size: len(content)}
		if len(fields) > 0 {
			p.size += pointerSize
		}
		if rest := SectorSize - len(v.continuation)%SectorSize; p.size > rest {
			v.continuation = append(v.continuation, make([]byte, rest)...)
		}
		p.at = len(v.continuation)
		v.continuation = append(append(v.continuation, content...), make([]byte, p.size-len(content))...)
		if last == nil {
			a.more = p
		} else {
			last.to = p
			v.pointers = append(v.pointers, *last)
		}
		last = &pointer{at: p.at + len(content)}
	}
	return a
}

// encodeArea returns the fields of a record.
func (v *Volume) encodeArea(a area) []byte {
	if a.more.size == 0 {
		return a.fields
	}
	return append(bytes.Clone(a.fields), v.pointerField(a.more)...)
}

// pointerField returns CE (SUSP 1.12, section 5.1).
func (v *Volume) pointerField(p piece) []byte {
	f := field("CE")
	f = appendBoth32(f, v.continuationAt+uint32(p.at/SectorSize))
	f = appendBoth32(f, uint32(p.at%SectorSize))
	f = appendBoth32(f, uint32(p.size))
	return finish(f)
}

// protocolFields returns the fields of the root's own record: SP (SUSP 1.12, section
// 5.3) announces the protocol and ER (section 5.5) the extension.
func protocolFields() (sp, er []byte) {
	const (
		id          = "IEEE_1282"
		description = "THE IEEE 1282 PROTOCOL PROVIDES SUPPORT FOR POSIX FILE SYSTEM SEMANTICS"
		source      = "PLEASE CONTACT THE IEEE STANDARDS DEPARTMENT, PISCATAWAY, NJ, USA FOR THE 1282 SPECIFICATION."
	)
	sp = finish(append(field("SP"), 0xbe, 0xef, 0))
	er = append(field("ER"), byte(len(id)), byte(len(description)), byte(len(source)), 1)
	return sp, finish(append(er, id+description+source...))
}

var posixType = map[tree.Type]uint32{
	tree.File: 0o100000, tree.Dir: 0o040000, tree.Symlink: 0o120000,
	tree.Char: 0o020000, tree.Block: 0o060000, tree.FIFO: 0o010000,
}

// attributeFields returns PX, TF and, for devices, PN (RRIP 1.12, section 4.1).
func (v *Volume) attributeFields(n *node) [][]byte {
	px := field("PX")
	for _, value := range []uint32{posixType[n.Type] | n.Mode, n.First.Links, n.UID, n.GID, n.Number} {
		px = appendBoth32(px, value)
	}
	const modified, accessed, changed = 2, 4, 8
	tf := append(field("TF"), modified|accessed|changed)
	for range 3 {
		tf = append(tf, shortTime(v.options.Time)...)
	}
	fields := [][]byte{finish(px), finish(tf)}
	if n.Type == tree.Char || n.Type == tree.Block {
		fields = append(fields, deviceField(n.Major, n.Minor))
	}
	return fields
}

// deviceField returns PN. The protocol stores a device number of 16 bits in the low
// half. For larger ones, Linux reads the major and the minor number from one half
// each (fs/isofs/rock.c).
func deviceField(major, minor uint32) []byte {
	if major > 0 && major <= 0xff && minor <= 0xff {
		major, minor = 0, major<<8|minor
	}
	return finish(appendBoth32(appendBoth32(field("PN"), major), minor))
}

// nameFields returns NM, and SL for symbolic links.
func nameFields(n *node) [][]byte {
	var fields [][]byte
	for name := n.Name; name != ""; {
		const most = maxField - 5
		part := name[:min(len(name), most)]
		name = name[len(part):]
		flags := byte(0)
		if name != "" {
			flags = continues
		}
		fields = append(fields, finish(append(append(field("NM"), flags), part...)))
	}
	if n.Type == tree.Symlink {
		fields = append(fields, linkFields(n.Link)...)
	}
	return fields
}

// linkFields returns SL, which has the components of the target of a symbolic link.
func linkFields(target string) [][]byte {
	var components [][]byte
	if rest, ok := strings.CutPrefix(target, "/"); ok {
		components, target = append(components, []byte{rootDir, 0}), rest
	}
	for name := range strings.SplitSeq(target, "/") {
		switch {
		case target == "": // the root itself
		case name == ".":
			components = append(components, []byte{currentDir, 0})
		case name == "..":
			components = append(components, []byte{parentDir, 0})
		default:
			for len(name) > maxComponent {
				components = append(components, append([]byte{continues, maxComponent}, name[:maxComponent]...))
				name = name[maxComponent:]
			}
			components = append(components, append([]byte{0, byte(len(name))}, name...))
		}
	}
	var fields [][]byte
	current := append(field("SL"), 0)
	for _, c := range components {
		if len(current)+len(c) > maxField {
			current[4] = continues
			fields = append(fields, finish(current))
			current = append(field("SL"), 0)
		}
		current = append(current, c...)
	}
	return append(fields, finish(current))
}

// field returns the start of a system use field of version 1. finish fills in its
// length.
func field(signature string) []byte {
	return append([]byte(signature), 0, 1)
}

func finish(f []byte) []byte {
	f[2] = byte(len(f))
	return f
}
