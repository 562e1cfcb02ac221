package mbr

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/internal/testutil/need"

	"github.com/google/go-cmp/cmp"
)

func table() Table {
	return Table{BootCode: []byte("boot code"), ID: 0x12345678, Partitions: [4]Partition{
		{Active: true, Type: TypeLinux, First: 2048, Sectors: 4096},
		{},
		{Type: TypeESP, First: 8192, Sectors: 100_000, StartCHS: [3]byte{1, 2, 3}, EndCHS: [3]byte{4, 5, 6}},
	}}
}

// Read returns what Encode wrote, and Encode the same bytes again.
func TestRead(t *testing.T) {
	want := table()
	b, err := want.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Read(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	again, err := got.Encode()
	if err != nil || !bytes.Equal(again, b) {
		t.Errorf("encoded again: other bytes, %v", err)
	}
	want.BootCode = append(want.BootCode, make([]byte, BootCodeSize-len(want.BootCode))...)
	far := [3]byte{0xfe, 0xff, 0xff}
	want.Partitions[0].StartCHS, want.Partitions[0].EndCHS = far, far
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("table (-written +read):\n%s", diff)
	}
}

// sfdisk and Read agree about each other's tables.
func TestSfdisk(t *testing.T) {
	need.Program(t, "sfdisk", "fdisk")
	disk := filepath.Join(t.TempDir(), "disk.img")
	b, err := table().Encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(disk, b, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(disk, 64<<20); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("sfdisk", "--json", disk).Output()
	if err != nil {
		t.Fatal(err)
	}
	type partition struct {
		Node, Type  string
		Start, Size uint32
		Bootable    bool
	}
	var got struct {
		PartitionTable struct {
			Label, ID  string
			Partitions []partition
		}
	}
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
	want := []partition{{disk + "1", "83", 2048, 4096, true}, {disk + "3", "ef", 8192, 100_000, false}}
	if diff := cmp.Diff(want, got.PartitionTable.Partitions); diff != "" || got.PartitionTable.Label != "dos" || got.PartitionTable.ID != "0x12345678" {
		t.Errorf("sfdisk says %s, %s (-written +read):\n%s", got.PartitionTable.Label, got.PartitionTable.ID, diff)
	}

	cmd := exec.Command("sfdisk", "--quiet", disk)
	cmd.Stdin = strings.NewReader("label: dos\nlabel-id: 0xdeadbeef\nstart=2048, size=2048, type=ef\nstart=4096, size=8192, type=83, bootable\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("sfdisk: %v\n%s", err, out)
	}
	f, err := os.Open(disk)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	read, err := Read(f)
	if err != nil {
		t.Fatal(err)
	}
	for i := range read.Partitions {
		read.Partitions[i].StartCHS, read.Partitions[i].EndCHS = [3]byte{}, [3]byte{}
	}
	if diff := cmp.Diff([4]Partition{{Type: TypeESP, First: 2048, Sectors: 2048}, {Active: true, Type: TypeLinux, First: 4096, Sectors: 8192}}, read.Partitions); diff != "" || read.ID != 0xdeadbeef {
		t.Errorf("ID %#x (-written +read):\n%s", read.ID, diff)
	}
}

func TestErrors(t *testing.T) {
	if _, err := (Table{BootCode: make([]byte, 441)}).Encode(); err == nil || !strings.Contains(err.Error(), "441 bytes of boot code, but there is room for 440") {
		t.Errorf("error %v", err)
	}
	for want, data := range map[string][]byte{
		"byte 510: the signature is missing": make([]byte, Size),
		"there are only 100 bytes":           make([]byte, 100),
	} {
		if _, err := Read(bytes.NewReader(data)); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}
