package format

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestAll checks what readers of the table rely on.
func TestAll(t *testing.T) {
	all := All()
	if all[0].Name != Default {
		t.Errorf("the first format is %s, want %s", all[0].Name, Default)
	}
	if names := Names()[1:]; !slices.IsSorted(names) || len(slices.Compact(names)) != len(all)-1 {
		t.Errorf("names %q are not sorted or not unique", Names())
	}
	for _, f := range all {
		if found, ok := Lookup(f.Name); !ok || found.Description != f.Description {
			t.Errorf("Lookup(%q) = %+v, %t", f.Name, found, ok)
		}
		if f.Description == "" || len(f.Suffixes) == 0 || f.Segments == "" || f.writer == nil {
			t.Errorf("%s is incomplete: %+v", f.Name, f)
		}
		if f.Container && len(f.Suffixes) != 1 {
			t.Errorf("%s has the files %q, want one archive", f.Name, f.Suffixes)
		}
	}
	if _, ok := Lookup("rawr"); ok {
		t.Error("Lookup found rawr")
	}
}

func TestFirmwareOn(t *testing.T) {
	for _, test := range []struct {
		format, architecture string
		want                 Firmware
	}{
		{"raw", "amd64", BIOS | UEFI},
		{"raw", "arm64", UEFI},
		{"raw", "riscv64", 0},
		{"raw-bios", "arm64", 0},
		{"tar", "amd64", 0},
	} {
		f, _ := Lookup(test.format)
		if got := f.FirmwareOn(test.architecture); got != test.want {
			t.Errorf("%s on %s: %b, want %b", test.format, test.architecture, got, test.want)
		}
	}
}

// TestTableWithoutWriters checks that a program which only reads the table does
// not contain the writers. The frontend is such a program.
func TestTableWithoutWriters(t *testing.T) {
	program := filepath.Join(t.TempDir(), "list")
	if out, err := exec.Command("go", "build", "-o", program, "./testdata/list").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	out, err := exec.Command("go", "tool", "nm", program).Output()
	if err != nil {
		t.Fatalf("go tool nm: %v", err)
	}
	const exporter = "slipway/exporter/"
	if !strings.Contains(string(out), exporter+"format.All\n") {
		t.Error("the program does not contain the table")
	}
	for _, writer := range []string{"squashfs.Write", "vmdk.Write", "disk.New", "erofs.New", "iso9660.New", "tree.WriteTar", "verity.New", "format.diskWriter.write"} {
		if strings.Contains(string(out), exporter+writer+"\n") {
			t.Errorf("the program contains %s", writer)
		}
	}
}
