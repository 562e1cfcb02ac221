// Package gpt writes and reads GUID partition tables.
//
// Format: UEFI Specification 2.10, chapter 5, "GUID Partition Table (GPT) Disk
// Layout". Numbers are little-endian. Layout in sectors of 512 bytes:
//
//	0        protective MBR (section 5.2.3)
//	1        header (section 5.3.2)
//	2–33     array of 128 partition entries (section 5.3.3)
//	34–…     partitions
//	last 33  the array again, and the backup of the header
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

// SectorSize is the size of a sector in bytes. Others are not supported.
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

	// BootCodeSize is the room for boot code in the protective MBR in bytes.
	BootCodeSize = mbr.BootCodeSize
)

// A GUID is a globally unique identifier as disks store it: the first three fields
// are little-endian.
type GUID [16]byte

// Types of partitions.
var (
	// TypeBIOSBoot is for the code of a boot loader, without a file system. GRUB
	// defines it.
	TypeBIOSBoot = MustParse("21686148-6449-6E6F-744E-656564454649")
	// TypeESP is for an EFI system partition (UEFI 2.10, table 5.7).
	TypeESP = MustParse("C12A7328-F81F-11D2-BA4B-00A0C93EC93B")
	// TypeData is for file systems that Windows and others share. Microsoft
	// defines it.
	TypeData = MustParse("EBD0A0A2-B9E5-4433-87C0-68B6B72699C7")
	// TypeLinux is for file systems of Linux (UAPI.2 Discoverable Partitions
	// Specification).
	TypeLinux = MustParse("0FC63DAF-8483-4772-8E79-3D69D8477DE4")
	// TypeRoot is for the root file system of machines of an architecture, named
	// as in GOARCH, and TypeRootVerity for its hash tree of dm-verity (UAPI.2
	// Discoverable Partitions Specification).
	TypeRoot = map[string]GUID{
		"amd64": MustParse("4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"),
		"arm64": MustParse("B921B045-1DF0-41C3-AF44-4C6F280D3FAE"),
	}
	TypeRootVerity = map[string]GUID{
		"amd64": MustParse("2C7357ED-EBD2-46D9-AEC1-23D437EC2BF5"),
		"arm64": MustParse("DF3300CE-D69F-4C92-978C-9BFB0F38D820"),
	}
)

// ReadOnly is the bit of Partition.Attributes that marks a root file system as
// read-only (UAPI.2 Discoverable Partitions Specification, "Partition Flags").
const ReadOnly = 1 << 60

// FromUUID returns the GUID of a UUID with the byte order of RFC 9562.
func FromUUID(uuid [16]byte) GUID { return swap(GUID(uuid)) }

// MustParse parses the text form of a GUID, and panics if it is invalid.
func MustParse(text string) GUID {
	b, err := hex.DecodeString(strings.ReplaceAll(text, "-", ""))
	if err != nil || len(b) != 16 || len(text) != 36 {
		panic(fmt.Sprintf("gpt: %q is not a GUID", text))
	}
	return swap(GUID(b))
}

// Derive returns a GUID that depends on the purpose and the content only, so that
// builds are reproducible. Its text form is a UUID of version 8 (RFC 9562, section
// 5.8) with bits of the SHA-256 of both.
func Derive(purpose string, content []byte) GUID {
	sum := sha256.Sum256(append([]byte(purpose+"\x00"), content...))
	g := GUID(sum[:16])
	g[6] = g[6]&0x0f | 0x80
	g[8] = g[8]&0x3f | 0x80
	return swap(g)
}

// String returns the text form in upper case.
func (g GUID) String() string {
	b := swap(g)
	return strings.ToUpper(fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16]))
}

// swap converts between the byte orders of disks and of the text form.
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
		return fmt.Errorf("GPT: a disk of %d sectors is too small for the table", t.Sectors)
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

// LastUsable returns the last sector that a partition can have on a disk of
// t.Sectors.
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
