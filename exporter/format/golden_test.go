package format

import (
	"bytes"
	"crypto/sha256"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "update the golden file")

const goldenFile = "testdata/formats.golden"

// TestFormatsAreGolden checks that each format writes the files in the table, for
// each architecture, with the same bytes as before. The golden file has the
// digests of the files and of their parts, so that a failure names the part that
// changed. A change of bytes needs a new Version.
func TestFormatsAreGolden(t *testing.T) {
	got := map[string]string{} // description by architecture, format and file
	var order []string
	for _, architecture := range []string{"amd64", "arm64"} {
		for _, f := range All() {
			if f.Check(architecture) != nil {
				continue
			}
			in := inputOf(t, f)
			in.Architecture = architecture
			in.Map = true
			files, err := Write(f.Name, in, t.TempDir(), func(w string) { t.Error(w) })
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, name := range files {
				names = append(names, filepath.Base(name))
				key := fmt.Sprintf("%s %s %s", architecture, f.Name, filepath.Base(name))
				order = append(order, key)
				got[key] = describe(t, name)
			}
			want := f.Files("m")
			// The initramfs of microvm+erofs would have microcode only, and a policy
			// needs a role.
			omitted := map[string]string{"microvm+erofs": "m-initrd.img", "eif": "m" + KMSPolicySuffix}
			want = slices.DeleteFunc(want, func(name string) bool { return name == omitted[f.Name] })
			if f.Options.Has(Map) {
				want = append(want, want[0]+".map")
			}
			if !slices.Equal(names, want) {
				t.Errorf("%s wrote %q, want %q", f.Name, names, want)
			}
		}
	}

	version, want := readGolden(t)
	for _, key := range order {
		old, ok := want[key]
		switch {
		case ok && old != got[key] && version == Version:
			t.Errorf("%s changed: %s\nIf that is intended, increase Version and run with -update.", key, firstDifference(old, got[key]))
		case (!ok || version != Version) && !*update:
			t.Errorf("%s is not in %s for version %d: run with -update", key, goldenFile, Version)
		}
	}
	if *update && !t.Failed() {
		var b strings.Builder
		fmt.Fprintf(&b, "version %d\n", Version)
		for _, key := range order {
			fmt.Fprintf(&b, "\n%s\n%s", key, got[key])
		}
		if err := os.WriteFile(goldenFile, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func readGolden(t *testing.T) (version int, files map[string]string) {
	t.Helper()
	data, err := os.ReadFile(goldenFile)
	if os.IsNotExist(err) && *update {
		return 0, nil
	}
	if err != nil {
		t.Fatal(err)
	}
	head, rest, _ := strings.Cut(string(data), "\n\n")
	if _, err := fmt.Sscanf(head, "version %d", &version); err != nil {
		t.Fatal(err)
	}
	files = map[string]string{}
	for part := range strings.SplitSeq(rest, "\n\n") {
		key, text, _ := strings.Cut(part, "\n")
		files[key] = strings.TrimSuffix(text, "\n") + "\n"
	}
	return version, files
}

// describe returns the size and the digest of a file, and a line for each part
// that is not zero: its offset, length, digest and type.
func describe(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "  %d bytes, sha256 %x\n", len(data), sha256.Sum256(data))
	const sector, parts = 512, 64
	zeros := make([]byte, sector)
	isZero := func(at int) bool { s := data[at:min(at+sector, len(data))]; return bytes.Equal(s, zeros[:len(s)]) }
	used := 0
	for at := 0; at < len(data); at += sector {
		if !isZero(at) {
			used += sector
		}
	}
	longest := max(8*sector, (used/parts+sector)/sector*sector)
	for at := 0; at < len(data); {
		if isZero(at) {
			at += sector
			continue
		}
		end := at + sector
		// A sector with a known structure starts a part.
		for end < len(data) && end-at < longest && !isZero(end) && structure(data[end:]) == "" {
			end += sector
		}
		end = min(end, len(data))
		fmt.Fprintf(&b, "  %d %d %.8x %s\n", at, end-at, sha256.Sum256(data[at:end]), structure(data[at:]))
		at = end
	}
	return b.String()
}

// magics are the bytes that identify structures, at an offset.
var magics = []struct {
	at    int
	magic string
	name  string
}{
	{0, "EFI PART", "GPT header"},
	{0, "\x28\x73\x2a\xc1\x1f\xf8\xd2\x11", "GPT entries"},
	{0, "Hah!IdontNeedEFI", "GPT entries"},
	{0, "\xa2\xa0\xd0\xeb\xe5\xb9\x33\x44", "GPT entries"},
	{82, "FAT32", "FAT32 boot sector"},
	{0, "RRaA", "FAT32 FSInfo"},
	{0, "\xf8\xff\xff\x0f", "file allocation table"},
	{0, "SLIPWAY    \x08", "root directory"},
	{0, ".          \x10", "directory"},
	{0, "MZ", "program for UEFI"},
	{0, "070701", "cpio segment"},
	{0, "bzImage", "kernel"},
	{0, "timeout 0", "loader.conf"},
	{0, "title ", "entry of systemd-boot"},
	{0, "linux /", "grub.cfg"},
	{0, "QFI\xfb", "qcow2 header"},
	{0, "\x80\x00\x00\x00\x00", "qcow2 table"},
	{0, "conectix", "VHD footer"},
	{0, "cxsparse", "VHD header"},
	{0, "KDMV", "VMDK header"},
	{0, "# Disk Desc", "VMDK descriptor"},
	{1, "CD001", "ISO 9660 descriptor"},
	{0, "hsqs", "SquashFS superblock"},
	{0, "verity\x00\x00", "dm-verity superblock"},
	{0, "\x1f\x8b", "gzip"},
	{257, "ustar", "tar header"},
	{510, "\x55\xaa", "boot sector"},
}

func structure(data []byte) string {
	for _, m := range magics {
		if len(data) >= m.at+len(m.magic) && string(data[m.at:m.at+len(m.magic)]) == m.magic {
			return m.name
		}
	}
	return ""
}

// firstDifference returns the first lines that differ in two descriptions.
func firstDifference(want, got string) string {
	a, b := strings.Split(want, "\n"), strings.Split(got, "\n")
	last := ""
	for i := 1; i < min(len(a), len(b)); i++ {
		if fields := strings.Fields(a[i]); len(fields) > 3 {
			last = strings.Join(fields[3:], " ")
		}
		if a[i] != b[i] {
			return fmt.Sprintf("first in or after %s\n  was:%s\n  is: %s", last, a[i], b[i])
		}
	}
	return "at its end"
}
