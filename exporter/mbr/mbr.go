// Package mbr writes and reads master boot records, the partition tables of BIOS.
//
// Format: UEFI Specification 2.10, section 5.2.1, "Legacy Master Boot Record
// (MBR)". The first sector of a disk holds 440 bytes of boot code, the disk's
// ID, four partition entries and the signature 55 aa. Numbers are
// little-endian.
package mbr

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

const (
	// Size of the record in bytes.
	Size = 512
	// BootCodeSize is the room for boot code in bytes.
	BootCodeSize = 440

	idAt      = 440
	entriesAt = 446
	entrySize = 16
	signedAt  = 510
)

// Types of partitions.
const (
	TypeLinux = 0x83
	TypeGPT   = 0xee // covers a disk with a GUID partition table
	TypeESP   = 0xef // EFI system partition
)

// ErrFormat is the error for a sector without the signature 55 aa.
var ErrFormat = errors.New("not a master boot record")

// A Partition is an entry of the table. The zero Partition is an unused entry.
type Partition struct {
	Active  bool // a BIOS boot program starts this one
	Type    byte
	First   uint32 // sector
	Sectors uint32
	// StartCHS and EndCHS are the obsolete addresses by cylinder, head and
	// sector. If both are zero, Encode stores the values that mean "use First
	// and Sectors".
	StartCHS, EndCHS [3]byte
}

// A Table is a master boot record.
type Table struct {
	BootCode   []byte // up to BootCodeSize bytes
	ID         uint32
	Partitions [4]Partition
}

// Encode returns the sector. It fails for too much boot code.
func (t Table) Encode() ([]byte, error) {
	if len(t.BootCode) > BootCodeSize {
		return nil, fmt.Errorf("MBR: %d bytes of boot code, but there is room for %d", len(t.BootCode), BootCodeSize)
	}
	b := make([]byte, Size)
	copy(b, t.BootCode)
	le := binary.LittleEndian
	le.PutUint32(b[idAt:], t.ID)
	for i, p := range t.Partitions {
		if p == (Partition{}) {
			continue
		}
		if p.StartCHS == [3]byte{} && p.EndCHS == [3]byte{} {
			p.StartCHS, p.EndCHS = [3]byte{0xfe, 0xff, 0xff}, [3]byte{0xfe, 0xff, 0xff}
			if p.Type == TypeGPT { // section 5.2.3 sets these
				p.StartCHS, p.EndCHS = [3]byte{0x00, 0x02, 0x00}, [3]byte{0xff, 0xff, 0xff}
			}
		}
		e := b[entriesAt+i*entrySize:]
		if p.Active {
			e[0] = 0x80
		}
		copy(e[1:], p.StartCHS[:])
		e[4] = p.Type
		copy(e[5:], p.EndCHS[:])
		le.PutUint32(e[8:], p.First)
		le.PutUint32(e[12:], p.Sectors)
	}
	b[signedAt], b[signedAt+1] = 0x55, 0xaa
	return b, nil
}

// Read reads the record at the start of a disk. The error is ErrFormat if the
// signature is missing. Read does not follow extended partitions.
func Read(disk io.ReaderAt) (Table, error) {
	b := make([]byte, Size)
	if n, err := disk.ReadAt(b, 0); n < len(b) {
		if errors.Is(err, io.EOF) {
			return Table{}, fmt.Errorf("%w: there are only %d bytes", ErrFormat, n)
		}
		return Table{}, fmt.Errorf("MBR: byte %d: %w", n, err)
	}
	if b[signedAt] != 0x55 || b[signedAt+1] != 0xaa {
		return Table{}, fmt.Errorf("%w: byte %d: the signature is missing", ErrFormat, signedAt)
	}
	le := binary.LittleEndian
	t := Table{BootCode: b[:BootCodeSize], ID: le.Uint32(b[idAt:])}
	for i := range t.Partitions {
		e := b[entriesAt+i*entrySize:][:entrySize]
		t.Partitions[i] = Partition{
			Active: e[0] == 0x80, Type: e[4], First: le.Uint32(e[8:]), Sectors: le.Uint32(e[12:]),
			StartCHS: [3]byte(e[1:]), EndCHS: [3]byte(e[5:]),
		}
	}
	return t, nil
}
