package iso9660

import (
	"encoding/binary"
	"fmt"
	"time"
)

// descriptor returns the start of a volume descriptor (ECMA-119, section 8.1).
func descriptor(kind byte) []byte {
	b := make([]byte, SectorSize)
	b[0] = kind
	copy(b[1:], "CD001\x01")
	return b
}

// primaryDescriptor returns the primary volume descriptor (ECMA-119, section 8.4).
func (v *Volume) primaryDescriptor() []byte {
	b := descriptor(1)
	text := func(offset, length int, text string) { copy(b[offset:], fmt.Sprintf("%-*s", length, text)) }
	text(8, 32, "LINUX")
	text(40, 32, v.options.Label)
	copy(b[80:], appendBoth32(nil, v.sectors))
	copy(b[120:], appendBoth16(nil, 1)) // volumes of the set
	copy(b[124:], appendBoth16(nil, 1)) // which of them
	copy(b[128:], appendBoth16(nil, SectorSize))
	copy(b[132:], appendBoth32(nil, uint32(v.pathTable)))
	binary.LittleEndian.PutUint32(b[140:], v.pathTableL)
	binary.BigEndian.PutUint32(b[148:], v.pathTableM)
	root := v.directories[0]
	copy(b[156:], v.record(root.sections()[0], selfIdentifier, flagDirectory, area{}))
	for offset, length := range map[int]int{190: 128, 318: 128, 446: 128, 702: 37, 739: 37, 776: 37} {
		text(offset, length, "") // set, publisher, preparer; files with copyright, abstract, bibliography
	}
	text(574, 128, "SLIPWAY")
	copy(b[813:], longTime(v.options.Time)) // creation
	copy(b[830:], longTime(v.options.Time)) // modification
	copy(b[847:], longTime(time.Time{}))    // expiration
	copy(b[864:], longTime(v.options.Time)) // effective
	b[881] = 1                              // version
	return b
}

const (
	platformBIOS = 0
	platformUEFI = 0xef
	bootable     = 0x88
	// bootSectors is how many sectors of 512 bytes BIOS loads. The program loads
	// the rest of itself.
	bootSectors = 4
	// toTheEnd is the number of sectors that means "up to the end of the volume"
	// (UEFI 2.10, section 13.3.2.1), since the number has only 16 bits.
	toTheEnd = 1
)

// bootRecord returns the descriptor that points to the boot catalog (El Torito 1.0,
// figure 7).
func (v *Volume) bootRecord() []byte {
	b := descriptor(0)
	copy(b[7:], "EL TORITO SPECIFICATION")
	binary.LittleEndian.PutUint32(b[0x47:], v.catalog)
	return b
}

// bootCatalog returns the list of what firmware can start (El Torito 1.0, figures 2
// to 5).
func (v *Volume) bootCatalog() []byte {
	entry := func(count uint16, extent uint32) []byte {
		b := make([]byte, 32)
		b[0] = bootable
		binary.LittleEndian.PutUint16(b[6:], count)
		binary.LittleEndian.PutUint32(b[8:], extent)
		return b
	}
	first := make([]byte, 32)
	first[0] = 1
	first[30], first[31] = 0x55, 0xaa
	var entries []byte
	if v.options.BIOS != "" {
		entries = entry(bootSectors, v.names[v.options.BIOS].first.extent)
	}
	if v.options.UEFI {
		esp := entry(toTheEnd, uint32((v.tail+v.options.UEFIOffset)/SectorSize))
		if entries == nil {
			first[1], entries = platformUEFI, esp
		} else {
			header := make([]byte, 32)
			header[0], header[1] = 0x91, platformUEFI // the last section
			header[2] = 1                             // entries
			entries = append(append(entries, header...), esp...)
		}
	}
	var sum uint16
	for i := 0; i < len(first); i += 2 {
		sum += binary.LittleEndian.Uint16(first[i:])
	}
	binary.LittleEndian.PutUint16(first[28:], -sum)
	b := make([]byte, SectorSize)
	copy(b, append(first, entries...))
	return b
}

// Offsets of the boot information table, with which the program for BIOS finds the
// rest of itself, and of the bytes that its checksum covers (mkisofs(8),
// -boot-info-table).
const (
	bootInfoOffset   = 8
	bootInfoChecksum = 64
)

// bootProgram returns the content of the program for BIOS, with the boot information
// table filled in.
func (n *node) bootProgram() ([]byte, error) {
	if n.Size < bootInfoChecksum {
		return nil, fmt.Errorf("a boot program must have at least %d bytes, not %d", bootInfoChecksum, n.Size)
	}
	program := make([]byte, (n.Size+3)/4*4)
	if got, err := n.ReaderAt().ReadAt(program[:n.Size], 0); int64(got) < n.Size {
		return nil, fmt.Errorf("read %d of %d bytes: %w", got, n.Size, err)
	}
	var sum uint32
	for i := bootInfoChecksum; i < len(program); i += 4 {
		sum += binary.LittleEndian.Uint32(program[i:])
	}
	for i, value := range []uint32{systemSectors, n.extent, uint32(n.Size), sum} {
		binary.LittleEndian.PutUint32(program[bootInfoOffset+4*i:], value)
	}
	return program, nil
}

// appendBoth16 and appendBoth32 append a number in both byte orders (ECMA-119,
// sections 7.2.3 and 7.3.3).
func appendBoth16(b []byte, value uint16) []byte {
	return binary.BigEndian.AppendUint16(binary.LittleEndian.AppendUint16(b, value), value)
}

func appendBoth32(b []byte, value uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.LittleEndian.AppendUint32(b, value), value)
}

// shortTime returns the time in a record (ECMA-119, section 9.1.5).
func shortTime(t time.Time) []byte {
	t = t.UTC()
	return []byte{byte(t.Year() - 1900), byte(t.Month()), byte(t.Day()), byte(t.Hour()), byte(t.Minute()), byte(t.Second()), 0}
}

// longTime returns the time in a volume descriptor (ECMA-119, section 8.4.26.1). The
// zero time stands for none.
func longTime(t time.Time) []byte {
	if t.IsZero() {
		return []byte("0000000000000000\x00")
	}
	return []byte(t.UTC().Format("20060102150405") + "00\x00")
}
