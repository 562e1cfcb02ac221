// Package gpt writes and reads GUID partition tables.
//
// Format: UEFI Specification 2.10, chapter 5. A disk has, in sectors (LBA) of
// 512 bytes: 0 the protective MBR (5.2.3), 1 the header, 2 to 33 the array of
// 128 partition entries (5.3.2, 5.3.3), then the partitions, and at the end the
// array again and, in the very last sector, the backup header.
package gpt

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"slices"
	"strings"
	"unicode/utf16"

	"github.com/slipway-build/slipway/exporter/sparse"
)

// SectorSize in bytes of the disks that this package knows.
const SectorSize = 512

const (
	headerSize   = 92
	entryCount   = 128
	entrySize    = 128
	arraySectors = entryCount * entrySize / SectorSize
	nameUnits    = 36 // of UTF-16

	// FirstUsable is the first sector that a partition can have.
	FirstUsable = 2 + arraySectors
	// BackupSectors is the room of the backup at the end of the disk.
	BackupSectors = 1 + arraySectors

	// BootCodeSize is the room for boot code in the protective MBR, in bytes.
	BootCodeSize = 440
)

// GUID is a globally unique identifier as it stands on the disk: its first
// three fields are little-endian.
type GUID [16]byte

// Types of partitions.
var (
	// TypeBIOSBoot is for boot loader code that has no file system (GRUB).
	TypeBIOSBoot = MustParse("21686148-6449-6E6F-744E-656564454649")
	// TypeESP is the EFI system partition (UEFI 2.10, table 5.7).
	TypeESP = MustParse("C12A7328-F81F-11D2-BA4B-00A0C93EC93B")
	// TypeData is for file systems of Windows and those that are for all
	// (UEFI 2.10, table 5.7, does not name it; it is Microsoft's).
	TypeData = MustParse("EBD0A0A2-B9E5-4433-87C0-68B6B72699C7")
	// TypeLinux is for file systems of Linux
	// (https://uapi-group.org/specifications/specs/discoverable_partitions_specification).
	TypeLinux = MustParse("0FC63DAF-8483-4772-8E79-3D69D8477DE4")
)

// MustParse reads the usual text form and panics if it is wrong.
func MustParse(text string) GUID {
	b, err := hex.DecodeString(strings.ReplaceAll(text, "-", ""))
	if err != nil || len(b) != 16 || len(text) != 36 {
		panic(fmt.Sprintf("gpt: %q is no GUID", text))
	}
	return swap(GUID(b))
}

// Derive makes a GUID from content, so that the same content has the same
// one. Its text form is a UUID of version 8 (RFC 9562, 5.8): the SHA-256 of
// purpose and content.
func Derive(purpose string, content []byte) GUID {
	sum := sha256.Sum256(append([]byte(purpose+"\x00"), content...))
	g := GUID(sum[:16])
	g[6] = g[6]&0x0f | 0x80
	g[8] = g[8]&0x3f | 0x80
	return swap(g)
}

// String gives the usual text form.
func (g GUID) String() string {
	b := swap(g)
	return strings.ToUpper(fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16]))
}

// swap turns the disk's form into that of the text, and back.
func swap(g GUID) GUID {
	return GUID{g[3], g[2], g[1], g[0], g[5], g[4], g[7], g[6], g[8], g[9], g[10], g[11], g[12], g[13], g[14], g[15]}
}

// Partition is one partition. First and Last are its sectors.
type Partition struct {
	Type, ID    GUID
	First, Last uint64
	Attributes  uint64 // UEFI 2.10, table 5.8
	Name        string
}

// Table is a partition table.
type Table struct {
	ID         GUID   // of the disk
	Sectors    uint64 // of the whole disk
	Partitions []Partition
	BootCode   []byte // for the protective MBR, up to BootCodeSize bytes
}

// Image gives both copies of the table and the protective MBR, as an image of
// the disk. It fails if a partition lies outside the usable sectors or overlaps
// with another.
func (t Table) Image() (sparse.Content, error) {
	if err := t.check(); err != nil {
		return sparse.Content{}, err
	}
	array := t.array()
	backup := t.Sectors - 1
	var runs []sparse.Run
	for _, part := range []struct {
		sector uint64
		data   []byte
	}{
		{0, t.protectiveMBR()},
		{1, t.header(1, backup, 2, array)},
		{2, array},
		{backup - arraySectors, array},
		{backup, t.header(backup, 1, backup-arraySectors, array)},
	} {
		runs = append(runs, sparse.Bytes(part.data).At(int64(part.sector)*SectorSize)...)
	}
	return sparse.New(int64(t.Sectors)*SectorSize, runs, nil)
}

// Read reads the first copy of a table.
func Read(disk io.ReaderAt) (Table, error) {
	b := make([]byte, FirstUsable*SectorSize)
	if _, err := disk.ReadAt(b, 0); err != nil {
		return Table{}, fmt.Errorf("gpt: %w", err)
	}
	le := binary.LittleEndian
	mbr, header, array := b[:SectorSize], b[SectorSize:2*SectorSize], b[2*SectorSize:]
	sum := le.Uint32(header[16:])
	clear(header[16:20])
	switch {
	case string(header[:8]) != "EFI PART":
		return Table{}, errors.New("gpt: the disk has no such table")
	case le.Uint32(header[12:]) != headerSize || le.Uint64(header[72:]) != 2 || le.Uint32(header[80:]) != entryCount || le.Uint32(header[84:]) != entrySize:
		return Table{}, errors.New("gpt: the table is not of the usual size and place")
	case sum != crc32.ChecksumIEEE(header[:headerSize]) || le.Uint32(header[88:]) != crc32.ChecksumIEEE(array):
		return Table{}, errors.New("gpt: the table is damaged")
	}
	t := Table{ID: GUID(header[56:72]), Sectors: le.Uint64(header[32:]) + 1, BootCode: mbr[:BootCodeSize]}
	for e := range slices.Chunk(array, entrySize) {
		p := Partition{Type: GUID(e), ID: GUID(e[16:]), First: le.Uint64(e[32:]), Last: le.Uint64(e[40:]), Attributes: le.Uint64(e[48:])}
		if p.Type == (GUID{}) {
			continue
		}
		var name [nameUnits]uint16
		for i := range name {
			name[i] = le.Uint16(e[56+2*i:])
		}
		p.Name = strings.TrimRight(string(utf16.Decode(name[:])), "\x00")
		t.Partitions = append(t.Partitions, p)
	}
	return t, nil
}

func (t Table) check() error {
	if t.Sectors < FirstUsable+BackupSectors {
		return fmt.Errorf("gpt: a disk of %d sectors has no room for the table", t.Sectors)
	}
	if len(t.Partitions) > entryCount || len(t.BootCode) > BootCodeSize {
		return errors.New("gpt: too many partitions or too much boot code")
	}
	for i, p := range t.Partitions {
		if p.First < FirstUsable || p.Last < p.First || p.Last > t.LastUsable() {
			return fmt.Errorf("gpt: partition %d takes sectors %d to %d, but usable are %d to %d", i+1, p.First, p.Last, FirstUsable, t.LastUsable())
		}
		if len(utf16.Encode([]rune(p.Name))) > nameUnits {
			return fmt.Errorf("gpt: the name of partition %d is longer than %d characters", i+1, nameUnits)
		}
		for j, other := range t.Partitions[:i] {
			if p.First <= other.Last && other.First <= p.Last {
				return fmt.Errorf("gpt: partitions %d and %d overlap", j+1, i+1)
			}
		}
	}
	return nil
}

// LastUsable is the last sector that a partition can have.
func (t Table) LastUsable() uint64 {
	return t.Sectors - BackupSectors - 1
}

// protectiveMBR holds the boot code, and one partition over the disk that
// keeps programs which do not know GPT from taking it for empty.
func (t Table) protectiveMBR() []byte {
	b := make([]byte, SectorSize)
	copy(b, t.BootCode)
	entry := b[446:]
	copy(entry[1:], []byte{0x00, 0x02, 0x00}) // CHS of sector 1
	entry[4] = 0xee
	copy(entry[5:], []byte{0xff, 0xff, 0xff})
	binary.LittleEndian.PutUint32(entry[8:], 1)
	binary.LittleEndian.PutUint32(entry[12:], uint32(min(t.Sectors-1, math.MaxUint32)))
	b[510], b[511] = 0x55, 0xaa
	return b
}

func (t Table) header(at, other, arrayAt uint64, array []byte) []byte {
	b := make([]byte, SectorSize)
	copy(b, "EFI PART")
	le := binary.LittleEndian
	le.PutUint32(b[8:], 0x00010000) // revision 1.0
	le.PutUint32(b[12:], headerSize)
	le.PutUint64(b[24:], at)
	le.PutUint64(b[32:], other)
	le.PutUint64(b[40:], FirstUsable)
	le.PutUint64(b[48:], t.LastUsable())
	copy(b[56:], t.ID[:])
	le.PutUint64(b[72:], arrayAt)
	le.PutUint32(b[80:], entryCount)
	le.PutUint32(b[84:], entrySize)
	le.PutUint32(b[88:], crc32.ChecksumIEEE(array))
	le.PutUint32(b[16:], crc32.ChecksumIEEE(b[:headerSize]))
	return b
}

func (t Table) array() []byte {
	b := make([]byte, entryCount*entrySize)
	for i, p := range t.Partitions {
		e := b[i*entrySize:]
		copy(e, p.Type[:])
		copy(e[16:], p.ID[:])
		binary.LittleEndian.PutUint64(e[32:], p.First)
		binary.LittleEndian.PutUint64(e[40:], p.Last)
		binary.LittleEndian.PutUint64(e[48:], p.Attributes)
		for j, unit := range utf16.Encode([]rune(p.Name)) {
			binary.LittleEndian.PutUint16(e[56+2*j:], unit)
		}
	}
	return b
}
