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
	"fmt"
	"hash/crc32"
	"math"
	"slices"
	"strings"
	"unicode/utf16"

	"github.com/slipway-build/slipway/exporter/mbr"
	"github.com/slipway-build/slipway/exporter/sparse"
)

// SectorSize in bytes of the disks that this package knows.
const SectorSize = 512

const (
	signature    = "EFI PART"
	headerSize   = 92
	entriesAt    = 2 // sector
	entryCount   = 128
	entrySize    = 128
	arraySectors = entryCount * entrySize / SectorSize
	nameUnits    = 36 // of UTF-16

	// FirstUsable is the first sector that a partition can have.
	FirstUsable = entriesAt + arraySectors
	// BackupSectors is the number of sectors of the backup at the end of the
	// disk.
	BackupSectors = 1 + arraySectors

	// BootCodeSize is the room for boot code in the protective MBR, in bytes.
	BootCodeSize = mbr.BootCodeSize
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

// A Partition is an entry of the table.
type Partition struct {
	// Number of the partition, from 1. In a table to be written, 0 stands for
	// the number of the partition before plus 1.
	Number      int
	Type, ID    GUID
	First, Last uint64 // sectors
	Attributes  uint64 // UEFI 2.10, table 5.8
	Name        string // up to 36 UTF-16 units
}

// LegacyBoot is the bit of Partition.Attributes that marks a partition for boot
// code of BIOS (UEFI 2.10, table 5.8).
const LegacyBoot = 1 << 2

// A Table is a partition table.
type Table struct {
	ID         GUID   // of the disk
	Sectors    uint64 // on the disk, up to the end of the backup header
	Partitions []Partition
	BootCode   []byte // in the protective MBR, up to BootCodeSize bytes
	// EntriesAt is the first sector of the partition entries, where it is not
	// the usual 2. Encode fails for such a table.
	EntriesAt uint64
}

// Encode returns both copies of the table and the protective MBR, as the content
// of a disk. It fails if a partition lies outside the usable sectors or overlaps
// with another, if there are more than 128, and if a name or the boot code is too
// long.
func (t Table) Encode() (sparse.Content, error) {
	if err := t.check(); err != nil {
		return sparse.Content{}, err
	}
	protective, err := t.protectiveMBR()
	if err != nil {
		return sparse.Content{}, err
	}
	array := t.array()
	backup := t.Sectors - 1
	var runs []sparse.Run
	for _, part := range []struct {
		sector uint64
		data   []byte
	}{
		{0, protective},
		{1, t.header(1, backup, entriesAt, array)},
		{entriesAt, array},
		{backup - arraySectors, array},
		{backup, t.header(backup, 1, backup-arraySectors, array)},
	} {
		runs = append(runs, sparse.Bytes(part.data).At(int64(part.sector)*SectorSize)...)
	}
	return sparse.New(int64(t.Sectors)*SectorSize, runs, nil)
}

func (t Table) check() error {
	if t.Sectors < FirstUsable+BackupSectors {
		return fmt.Errorf("GPT: a disk of %d sectors has no room for the table", t.Sectors)
	}
	if t.EntriesAt != 0 && t.EntriesAt != entriesAt {
		return fmt.Errorf("GPT: the entries of the table are at sector %d; only sector %d can be written", t.EntriesAt, entriesAt)
	}
	numbers := t.numbers()
	for i, p := range t.Partitions {
		if n := numbers[i]; n < 1 || n > entryCount || slices.Contains(numbers[:i], n) {
			return fmt.Errorf("GPT: the number %d of a partition is taken or not between 1 and %d", n, entryCount)
		}
		if p.First < FirstUsable || p.Last < p.First || p.Last > t.LastUsable() {
			return fmt.Errorf("GPT: partition %d has sectors %d to %d, but %d to %d are usable", numbers[i], p.First, p.Last, FirstUsable, t.LastUsable())
		}
		if len(utf16.Encode([]rune(p.Name))) > nameUnits {
			return fmt.Errorf("GPT: the name of partition %d is longer than %d UTF-16 units", numbers[i], nameUnits)
		}
		for j, other := range t.Partitions[:i] {
			if p.First <= other.Last && other.First <= p.Last {
				return fmt.Errorf("GPT: partitions %d and %d overlap", numbers[j], numbers[i])
			}
		}
	}
	return nil
}

// numbers returns the number of each partition.
func (t Table) numbers() []int {
	numbers := make([]int, len(t.Partitions))
	for i, p := range t.Partitions {
		switch {
		case p.Number != 0:
			numbers[i] = p.Number
		case i == 0:
			numbers[i] = 1
		default:
			numbers[i] = numbers[i-1] + 1
		}
	}
	return numbers
}

// LastUsable returns the last sector that a partition can have.
func (t Table) LastUsable() uint64 {
	return t.Sectors - BackupSectors - 1
}

// protectiveMBR returns a master boot record with the boot code, and with one
// partition over the whole disk: programs that do not know GPT take it for used.
func (t Table) protectiveMBR() ([]byte, error) {
	record := mbr.Table{BootCode: t.BootCode}
	record.Partitions[0] = mbr.Partition{Type: mbr.TypeGPT, First: 1, Sectors: uint32(min(t.Sectors-1, math.MaxUint32))}
	return record.Encode()
}

func (t Table) header(at, other, arrayAt uint64, array []byte) []byte {
	b := make([]byte, SectorSize)
	copy(b, signature)
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
	numbers := t.numbers()
	for i, p := range t.Partitions {
		e := b[(numbers[i]-1)*entrySize:]
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
