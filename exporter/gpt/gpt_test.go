package gpt

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func table(sectors uint64) Table {
	return Table{
		ID:       Derive("disk", []byte("content")),
		Sectors:  sectors,
		BootCode: []byte("boot code"),
		Partitions: []Partition{
			{Type: TypeBIOSBoot, ID: Derive("one", nil), First: 2048, Last: 4095, Name: "BIOS boot"},
			{Type: TypeESP, ID: Derive("two", nil), First: 4096, Last: sectors - 2048 - 1, Name: "EFI ünïcode"},
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
	image, err := table.Image()
	if err != nil {
		t.Fatal(err)
	}
	if err := image.WriteFile(f); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// Two programs of others read the table and find it sound, also on a disk that
// is larger than the protective MBR can tell.
func TestTableIsSound(t *testing.T) {
	for name, pkg := range map[string]string{"sgdisk": "gdisk", "sfdisk": "fdisk"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("%s is not installed (Debian package %s)", name, pkg)
		}
	}
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
	image, err := want.Image()
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
	for at, want := range map[int]string{
		SectorSize:      "no such table",
		SectorSize + 80: "not of the usual size",
		SectorSize + 56: "damaged",
		2 * SectorSize:  "damaged",
	} {
		disk[at] ^= 1
		if _, err := Read(bytes.NewReader(disk)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("byte %d changed: error %v, want %q", at, err, want)
		}
		disk[at] ^= 1
	}
}

func TestProtectiveMBR(t *testing.T) {
	for sectors, want := range map[uint64]uint32{64 << 11: 64<<11 - 1, 1 << 32: 1<<32 - 1, 1 << 33: 1<<32 - 1} {
		mbr := table(sectors).protectiveMBR()
		if got := binary.LittleEndian.Uint32(mbr[446+12:]); got != want {
			t.Errorf("a disk of %d sectors is protected over %d, want %d", sectors, got, want)
		}
		if string(mbr[:9]) != "boot code" || mbr[446+4] != 0xee {
			t.Errorf("protective MBR % x", mbr)
		}
	}
}

func TestGUID(t *testing.T) {
	const text = "21686148-6449-6E6F-744E-656564454649"
	// On a disk it reads "Hah!IdontNeedEFI".
	if got := MustParse(text); string(got[:]) != "Hah!IdontNeedEFI" || got.String() != text {
		t.Errorf("%s becomes %q, %s", text, got[:], got)
	}
	a, b := Derive("disk", []byte("x")).String(), Derive("disk", []byte("y")).String()
	if a == b || a[14] != '8' || !strings.ContainsRune("89AB", rune(a[19])) {
		t.Errorf("derived: %s and %s, want different UUIDs of version 8", a, b)
	}
	if a != Derive("disk", []byte("x")).String() {
		t.Error("the same content gave another GUID")
	}
}

func TestErrors(t *testing.T) {
	for want, change := range map[string]func(*Table){
		"no room for the table": func(t *Table) { t.Sectors = 66 },
		"partition 1 takes sectors 33 to 4095, but usable are 34 to 131038":     func(t *Table) { t.Partitions[0].First = 33 },
		"partition 2 takes sectors 4096 to 131039, but usable are 34 to 131038": func(t *Table) { t.Partitions[1].Last = 131039 },
		"partition 1 takes sectors 2048 to 2047":                                func(t *Table) { t.Partitions[0].Last = 2047 },
		"partitions 1 and 2 overlap":                                            func(t *Table) { t.Partitions[1].First = 4095 },
		"the name of partition 1 is longer than 36 characters":                  func(t *Table) { t.Partitions[0].Name = strings.Repeat("n", 37) },
		"too many partitions or too much boot code":                             func(t *Table) { t.BootCode = make([]byte, 441) },
	} {
		table := table(64 << 11)
		change(&table)
		_, err := table.Image()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}
