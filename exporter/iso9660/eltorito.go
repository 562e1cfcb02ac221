package iso9660

import (
	"encoding/binary"
	"io"
)

// UEFIImage returns the offset in bytes of the EFI system partition that the boot
// catalog of a volume names (El Torito 1.0, figures 2 to 5), or 0 if there is
// none. The error is ErrFormat for a damaged volume, and the one of r if that
// fails.
func UEFIImage(r io.ReaderAt, size int64) (int64, error) {
	in := open(r, size)
	record, err := in.Bytes((systemSectors+1)*SectorSize, SectorSize)
	if err != nil {
		return 0, err
	}
	if string(record[:6]) != "\x00CD001" || string(record[7:30]) != "EL TORITO SPECIFICATION" {
		return 0, nil
	}
	le := binary.LittleEndian
	catalog, err := in.Bytes(int64(le.Uint32(record[0x47:]))*SectorSize, SectorSize)
	if err != nil {
		return 0, err
	}
	const entrySize, moreHeaders, lastHeader = 32, 0x90, 0x91
	platform := catalog[1]
	for at := entrySize; at < len(catalog); at += entrySize {
		entry := catalog[at : at+entrySize]
		switch {
		case entry[0] == moreHeaders || entry[0] == lastHeader:
			platform = entry[1]
		case entry[0] == bootable && platform == platformUEFI:
			return int64(le.Uint32(entry[8:])) * SectorSize, nil
		case entry[0] == 0:
			return 0, nil
		}
	}
	return 0, nil
}
