package gpt

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/internal/testutil/need"

	"github.com/google/go-cmp/cmp"
)

func table(sectors uint64) Table {
	return Table{
		ID:       Derive("disk", []byte("content")),
		Sectors:  sectors,
		BootCode: []byte("boot code"),
		Partitions: []Partition{
			{Number: 1, Type: TypeBIOSBoot, ID: Derive("one", nil), First: 2048, Last: 4095, Name: "BIOS boot"},
			{Number: 2, Type: TypeESP, ID: Derive("two", nil), First: 4096, Last: sectors - 2048 - 1, Name: "EFI ünïcode"},
		},
	}
}

func write(t *testing.T, table Table) string {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk.img"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	image, err := table.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := image.WriteFile(f); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// sgdisk and sfdisk accept the table and read the same partitions, even on a disk
// that is larger than the protective MBR can describe.
func TestSgdiskAndSfdisk(t *testing.T) {
	need.Program(t, "sgdisk", "gdisk")
	need.Program(t, "sfdisk", "fdisk")
	for name, sectors := range map[string]uint64{"64M": 64 << 11, "odd": 64<<11 + 1, "3T": 3 << 31} {
		t.Run(name, func(t *testing.T) {
			table := table(sectors)
			img := write(t, table)
			out, err := exec.Command("sgdisk", "-v", img).CombinedOutput()
			if err != nil || !strings.Contains(string(out), "No problems found") {
				t.Errorf("sgdisk -v: %v\n%s", err, out)
			}
			out, err = exec.Command("sfdisk", "--json", img).Output()
			if err != nil {
				t.Fatalf("sfdisk: %v", err)
			}
			type partition struct {
				Start, Size      uint64
				Type, UUID, Name string
			}
			var got struct {
				PartitionTable struct {
					Label, ID         string
					FirstLBA, LastLBA uint64
					SectorSize        int
					Partitions        []partition
				}
			}
			if err := json.Unmarshal(out, &got); err != nil {
				t.Fatal(err)
			}
			want := got
			want.PartitionTable.Label, want.PartitionTable.ID = "gpt", table.ID.String()
			want.PartitionTable.FirstLBA, want.PartitionTable.LastLBA = 34, sectors-34
			want.PartitionTable.SectorSize = 512
			want.PartitionTable.Partitions = nil
			for _, p := range table.Partitions {
				want.PartitionTable.Partitions = append(want.PartitionTable.Partitions,
					partition{p.First, p.Last - p.First + 1, p.Type.String(), p.ID.String(), p.Name})
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("sfdisk (-written +read):\n%s", diff)
			}
		})
	}
}

func TestRead(t *testing.T) {
	want := table(64 << 11)
	want.Partitions[0].Attributes = 1 << 2 // legacy BIOS bootable
	want.BootCode = append(want.BootCode, make([]byte, BootCodeSize-len(want.BootCode))...)
	image, err := want.Encode()
	if err != nil {
		t.Fatal(err)
	}
	disk := make([]byte, image.Size)
	if _, err := image.ReadAt(disk, 0); err != nil {
		t.Fatal(err)
	}
	got, err := Read(bytes.NewReader(disk))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("table (-written +read):\n%s", diff)
	}
}

// changed returns a disk whose table is changed, with correct checksums.
func changed(t *testing.T, change func(header, entries []byte)) []byte {
	t.Helper()
	content, err := table(64 << 11).Encode()
	if err != nil {
		t.Fatal(err)
	}
	disk := make([]byte, content.Size)
	if _, err := content.ReadAt(disk, 0); err != nil {
		t.Fatal(err)
	}
	header, entries := disk[SectorSize:2*SectorSize], disk[entriesAt*SectorSize:][:entryCount*entrySize]
	change(header, entries)
	le := binary.LittleEndian
	le.PutUint32(header[88:], crc32.ChecksumIEEE(entries))
	clear(header[16:20])
	le.PutUint32(header[16:], crc32.ChecksumIEEE(header[:headerSize]))
	return disk
}

func TestReadErrors(t *testing.T) {
	le := binary.LittleEndian
	for name, test := range map[string]struct {
		change func(header, entries []byte)
		want   error
		text   string
	}{
		"no table":     {func(h, _ []byte) { h[0] = 0 }, ErrNoTable, "byte 512: the signature is missing"},
		"header":       {func(h, _ []byte) { le.PutUint32(h[12:], 513) }, ErrFormat, "byte 524: its header has 513 bytes"},
		"backup":       {func(h, _ []byte) { le.PutUint64(h[32:], 1<<62) }, ErrFormat, "byte 544: its backup is at sector 4611686018427387904"},
		"backup wraps": {func(h, _ []byte) { le.PutUint64(h[32:], 1<<64-1) }, ErrFormat, "byte 544: its backup is at sector 18446744073709551615"},
		"place":        {func(h, _ []byte) { le.PutUint64(h[72:], 1) }, ErrFormat, "byte 584: it has 128 entries of 128 bytes at sector 1"},
		"far place":    {func(h, _ []byte) { le.PutUint64(h[72:], 64<<11-2) }, ErrFormat, "the disk ends in its entries"},
		"count":        {func(h, _ []byte) { le.PutUint32(h[80:], 1025) }, ErrFormat, "it has 1025 entries"},
		"length":       {func(h, _ []byte) { le.PutUint32(h[84:], 127) }, ErrFormat, "entries of 127 bytes"},
		"long":         {func(h, _ []byte) { le.PutUint32(h[84:], 8192) }, ErrFormat, "entries of 8192 bytes"},
		"in the MBR":   {func(_, e []byte) { le.PutUint64(e[32:], 1) }, ErrFormat, "partition 1 has sectors 1 to 4095 of 131072"},
		"backwards":    {func(_, e []byte) { le.PutUint64(e[40:], 2047) }, ErrFormat, "partition 1 has sectors 2048 to 2047"},
		"outside":      {func(_, e []byte) { le.PutUint64(e[entrySize+40:], 64<<11-1) }, ErrFormat, "partition 2 has sectors 4096 to 131071 of 131072"},
	} {
		_, err := Read(bytes.NewReader(changed(t, test.change)))
		if !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.text) {
			t.Errorf("%s: error %v, want %q", name, err, test.text)
		}
	}
	disk := changed(t, func(_, _ []byte) {})
	for at, want := range map[int]string{
		510:             "byte 510: the signature is missing",
		SectorSize + 56: "byte 528: its header has a wrong checksum",
		2 * SectorSize:  "byte 600: its entries have a wrong checksum",
	} {
		disk[at] ^= 1
		_, err := Read(bytes.NewReader(disk))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("byte %d changed: error %v, want %q", at, err, want)
		}
		disk[at] ^= 1
	}
	if _, err := Read(bytes.NewReader(disk[:700])); !errors.Is(err, ErrNoTable) {
		t.Errorf("a disk of 700 bytes: error %v", err)
	}
}

// A table whose entries are elsewhere can be read, but not written: what is at
// the usual place may be the boot loader of a board.
func TestReadElsewhere(t *testing.T) {
	disk := changed(t, func(h, e []byte) { binary.LittleEndian.PutUint64(h[72:], 100) })
	copy(disk[100*SectorSize:], disk[entriesAt*SectorSize:][:entryCount*entrySize])
	got, err := Read(bytes.NewReader(disk))
	if err != nil || got.EntriesAt != 100 || len(got.Partitions) != 2 {
		t.Fatalf("table %+v, %v", got, err)
	}
	if _, err := got.Encode(); err == nil || !strings.Contains(err.Error(), "the entries of the table are at sector 100") {
		t.Errorf("written again: error %v", err)
	}
}

// Read understands sgdisk's tables, with gaps in the numbers and other sizes of
// the array, and Encode keeps the numbers.
func TestReadSgdisk(t *testing.T) {
	need.Program(t, "sgdisk", "gdisk")
	img := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(img, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(img, 64<<20); err != nil {
		t.Fatal(err)
	}
	args := []string{"--resize-table=256", "-n", "15:4096:8191", "-t", "15:ef00", "-c", "15:ESP", "-n", "1:8192:0", "-t", "1:8300", "-A", "1:set:2", img}
	if out, err := exec.Command("sgdisk", args...).CombinedOutput(); err != nil {
		t.Fatalf("sgdisk: %v\n%s", err, out)
	}
	f, err := os.OpenFile(img, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got, err := Read(f)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Partitions) != 2 || got.Sectors != 64<<11 {
		t.Fatalf("table %+v", got)
	}
	root, esp := got.Partitions[0], got.Partitions[1]
	if root.Number != 1 || root.Type != TypeLinux || root.First != 8192 || root.Attributes != LegacyBoot {
		t.Errorf("partition 1 is %+v", root)
	}
	if esp.Number != 15 || esp.Type != TypeESP || esp.First != 4096 || esp.Last != 8191 || esp.Name != "ESP" {
		t.Errorf("partition 15 is %+v", esp)
	}
	got.Partitions[0].Last = min(root.Last, got.LastUsable())
	content, err := got.Encode()
	if err != nil {
		t.Fatal(err)
	}
	again, err := Read(content)
	if diff := cmp.Diff(got, again); err != nil || diff != "" {
		t.Errorf("written and read again: %v\n%s", err, diff)
	}
}

// Whatever is on a disk, partitions lie on it.
func FuzzRead(f *testing.F) {
	content, err := table(64 << 11).Encode()
	if err != nil {
		f.Fatal(err)
	}
	head := make([]byte, 2*SectorSize+3*entrySize)
	if _, err := content.ReadAt(head, 0); err != nil {
		f.Fatal(err)
	}
	f.Add(head[SectorSize:2*SectorSize], head[2*SectorSize:])
	f.Fuzz(func(t *testing.T, header, entries []byte) {
		disk := make([]byte, 64<<10)
		copy(disk[:SectorSize], head)
		copy(disk[SectorSize:2*SectorSize], header)
		copy(disk[2*SectorSize:], entries)
		// With a wrong checksum, most inputs would test nothing else.
		le := binary.LittleEndian
		h := disk[SectorSize : 2*SectorSize]
		if n := uint64(le.Uint32(h[80:])) * uint64(le.Uint32(h[84:])); n < 32<<10 {
			le.PutUint32(h[88:], crc32.ChecksumIEEE(disk[2*SectorSize:][:n]))
		}
		if n := le.Uint32(h[12:]); n <= SectorSize && n >= 20 {
			clear(h[16:20])
			le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:n]))
		}
		table, err := Read(bytes.NewReader(disk))
		if err != nil {
			return
		}
		for _, p := range table.Partitions {
			if p.First > p.Last || p.Last >= table.Sectors {
				t.Errorf("partition %+v on %d sectors", p, table.Sectors)
			}
		}
		_, _ = table.Encode()
	})
}

func TestProtectiveMBR(t *testing.T) {
	for sectors, want := range map[uint64]uint32{64 << 11: 64<<11 - 1, 1 << 32: 1<<32 - 1, 1 << 33: 1<<32 - 1} {
		mbr, err := table(sectors).protectiveMBR()
		if err != nil {
			t.Fatal(err)
		}
		if got := binary.LittleEndian.Uint32(mbr[446+12:]); got != want {
			t.Errorf("on a disk of %d sectors the protective partition has %d, want %d", sectors, got, want)
		}
		if string(mbr[:9]) != "boot code" || mbr[446+4] != 0xee {
			t.Errorf("protective MBR % x", mbr)
		}
	}
}

func TestGUID(t *testing.T) {
	const text = "21686148-6449-6E6F-744E-656564454649"
	// Its bytes on a disk are the text "Hah!IdontNeedEFI".
	if got := MustParse(text); string(got[:]) != "Hah!IdontNeedEFI" || got.String() != text {
		t.Errorf("%s is %q on disk, and %s as text", text, got[:], got)
	}
	a, b := Derive("disk", []byte("x")).String(), Derive("disk", []byte("y")).String()
	if a == b || a[14] != '8' || !strings.ContainsRune("89AB", rune(a[19])) {
		t.Errorf("derived: %s and %s, want different UUIDs of version 8", a, b)
	}
	if a != Derive("disk", []byte("x")).String() {
		t.Error("the same content has another GUID")
	}
}

func TestErrors(t *testing.T) {
	for want, change := range map[string]func(*Table){
		"too small for the table": func(t *Table) { t.Sectors = 66 },
		"partition 1 has sectors 33 to 4095, but 34 to 131038 are usable":     func(t *Table) { t.Partitions[0].First = 33 },
		"partition 2 has sectors 4096 to 131039, but 34 to 131038 are usable": func(t *Table) { t.Partitions[1].Last = 131039 },
		"partition 1 has sectors 2048 to 2047":                                func(t *Table) { t.Partitions[0].Last = 2047 },
		"the number 129 of a partition is taken or not between 1 and 128":     func(t *Table) { t.Partitions[1].Number = 129 },
		"the number 1 of a partition is taken":                                func(t *Table) { t.Partitions[1].Number = 1 },
		"partitions 1 and 2 overlap":                                          func(t *Table) { t.Partitions[1].First = 4095 },
		"the name of partition 1 is longer than 36 UTF-16 units":              func(t *Table) { t.Partitions[0].Name = strings.Repeat("n", 37) },
		"441 bytes of boot code, but there is room for 440":                   func(t *Table) { t.BootCode = make([]byte, 441) },
	} {
		table := table(64 << 11)
		change(&table)
		_, err := table.Encode()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}
