package gpt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
	"unicode/utf16"

	"github.com/slipway-build/slipway/exporter/mbr"
)

// Errors of Read.
var (
	// ErrNoTable is the error for a disk without a GUID partition table.
	ErrNoTable = errors.New("there is no GUID partition table")
	// ErrFormat is the error for a damaged table.
	ErrFormat = errors.New("damaged GUID partition table")
)

// Limits for disks from strangers. The entries have 4 MiB at most.
const (
	maxEntries   = 1024
	maxEntrySize = 4096
	maxSectors   = 1 << 54 // what fits in 63 bits in bytes
)

// Read reads the first copy of the table and the protective MBR of a disk with
// sectors of 512 bytes. It verifies the checksums and that all partitions lie
// before the backup of the table. It does not read the backup, so the disk may be
// truncated: compare Table.Sectors with its size. The error is ErrNoTable or
// ErrFormat, and the one of disk if that fails.
func Read(disk io.ReaderAt) (Table, error) {
	record, err := mbr.Read(disk)
	if errors.Is(err, mbr.ErrFormat) {
		return Table{}, fmt.Errorf("%w: %v", ErrNoTable, err)
	}
	if err != nil {
		return Table{}, err
	}
	header := make([]byte, SectorSize)
	if err := readFull(disk, header, SectorSize); errors.Is(err, io.EOF) {
		return Table{}, fmt.Errorf("%w: %v", ErrNoTable, err)
	} else if err != nil {
		return Table{}, err
	}
	invalid := func(at uint64, format string, args ...any) (Table, error) {
		return Table{}, fmt.Errorf("%w: byte %d: %s", ErrFormat, at, fmt.Sprintf(format, args...))
	}
	le := binary.LittleEndian
	if string(header[:len(signature)]) != signature {
		return Table{}, fmt.Errorf("%w: byte %d: the signature is missing", ErrNoTable, SectorSize)
	}
	size := le.Uint32(header[12:])
	if size < headerSize || size > SectorSize {
		return invalid(SectorSize+12, "its header has %d bytes", size)
	}
	sum := le.Uint32(header[16:])
	clear(header[16:20])
	if crc32.ChecksumIEEE(header[:size]) != sum {
		return invalid(SectorSize+16, "its header has a wrong checksum")
	}
	t := Table{ID: GUID(header[56:]), Sectors: le.Uint64(header[32:]) + 1, BootCode: record.BootCode, EntriesAt: le.Uint64(header[72:])}
	if t.Sectors < FirstUsable || t.Sectors > maxSectors {
		return invalid(SectorSize+32, "its backup is at sector %d", t.Sectors-1)
	}
	count, length := le.Uint32(header[80:]), le.Uint32(header[84:])
	if t.EntriesAt < 2 || t.EntriesAt >= t.Sectors || count > maxEntries || length < entrySize || length > maxEntrySize {
		return invalid(SectorSize+72, "it has %d entries of %d bytes at sector %d", count, length, t.EntriesAt)
	}
	entries := make([]byte, count*length)
	if err := readFull(disk, entries, int64(t.EntriesAt)*SectorSize); errors.Is(err, io.EOF) {
		return invalid(t.EntriesAt*SectorSize, "the disk ends in its entries")
	} else if err != nil {
		return Table{}, err
	}
	if crc32.ChecksumIEEE(entries) != le.Uint32(header[88:]) {
		return invalid(SectorSize+88, "its entries have a wrong checksum")
	}
	if t.EntriesAt == entriesAt {
		t.EntriesAt = 0
	}
	for i := range int(count) {
		e := entries[i*int(length):][:entrySize]
		if bytes.Equal(e[:16], make([]byte, 16)) {
			continue
		}
		p := parsePartition(e)
		p.Number = i + 1
		if p.First < 2 || p.Last < p.First || p.Last >= t.Sectors-1 {
			return invalid(t.EntriesAt*SectorSize+uint64(i)*uint64(length), "partition %d has sectors %d to %d of %d", p.Number, p.First, p.Last, t.Sectors)
		}
		t.Partitions = append(t.Partitions, p)
	}
	return t, nil
}

func readFull(disk io.ReaderAt, b []byte, at int64) error {
	if n, err := disk.ReadAt(b, at); n < len(b) {
		return fmt.Errorf("GPT: byte %d: %w", at+int64(n), err)
	}
	return nil
}

func parsePartition(e []byte) Partition {
	le := binary.LittleEndian
	var name [nameUnits]uint16
	for i := range name {
		name[i] = le.Uint16(e[56+2*i:])
	}
	text, _, _ := strings.Cut(string(utf16.Decode(name[:])), "\x00")
	return Partition{
		Type: GUID(e), ID: GUID(e[16:]), First: le.Uint64(e[32:]), Last: le.Uint64(e[40:]), Attributes: le.Uint64(e[48:]), Name: text,
	}
}
