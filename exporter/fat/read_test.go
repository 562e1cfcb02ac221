package fat

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/slipway-build/slipway/internal/testutil/need"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-build/slipway/exporter/sparse"
)

// volume writes files to a volume and opens it.
func volume(t testing.TB, size int64, files []File, options Options) *FS {
	t.Helper()
	v, err := New(size, files, options)
	if err != nil {
		t.Fatal(err)
	}
	content, err := v.Image(1)
	if err != nil {
		t.Fatal(err)
	}
	f, err := Open(content)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// contents reads all files of a volume by their paths.
func contents(t testing.TB, f *FS) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := fs.WalkDir(f, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(f, path)
		all[path] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// names are the paths and the contents of files with names of all kinds.
var names = map[string]string{
	"A":                                  "short name",
	"UPPER.TXT":                          "short name",
	"upper.TX":                           "lower case",
	"a long name with spaces.and.dots":   "long name",
	"ünïcode-日本語.txt":                    "not ASCII",
	strings.Repeat("n", 13):              "a full piece of a long name",
	strings.Repeat("m", 26) + ".x":       "more than two",
	strings.Repeat("l", 255):             "the longest",
	".hidden":                            "nothing before the dot",
	"+,;=[]":                             "for long names only",
	"deep/er/and/deeper/still/file.conf": "in directories",
	"empty":                              "",
	"large":                              strings.Repeat("0123456789abcdef", 10_000),
}

// The reader returns what the writer wrote, and behaves as io/fs demands.
func TestReadWritten(t *testing.T) {
	var files []File
	for name, content := range names {
		files = append(files, text(name, content))
	}
	for i := range 300 { // a directory of several clusters
		files = append(files, text(fmt.Sprintf("many/longfilename-%d.conf", i), ""))
	}
	written := time.Date(2024, 2, 29, 23, 59, 58, 0, time.UTC)
	for _, size := range []int64{34 * mebibyte, 300 * mebibyte} {
		f := volume(t, size, files, Options{Label: "SLIPWAY", Time: written})
		got := contents(t, f)
		maps.DeleteFunc(got, func(name, _ string) bool { return strings.HasPrefix(name, "many/") })
		if diff := cmp.Diff(names, got); diff != "" {
			t.Errorf("contents (-written +read):\n%s", diff)
		}
		if many, err := f.ReadDir("MANY"); err != nil || len(many) != 300 {
			t.Errorf("%d of 300 entries, %v", len(many), err)
		}
		if info, err := f.Stat("Deep/er"); err != nil || !info.IsDir() || !info.ModTime().Equal(written) {
			t.Errorf("a directory is %v, %v", info, err)
		}
		content, err := f.Content("LARGE")
		if err != nil || content.Size() != 160_000 {
			t.Fatal(err)
		}
		b := make([]byte, 10)
		if _, err := content.ReadAt(b, 100_005); err != nil || string(b) != "56789abcde" {
			t.Errorf("read %q, %v", b, err)
		}
		if size == 34*mebibyte {
			if err := fstest.TestFS(f, slices.Collect(maps.Keys(names))...); err != nil {
				t.Error(err)
			}
		}
	}
}

// A file in slots, with free clusters between its parts, is read as one.
func TestReadParts(t *testing.T) {
	a, b := bytes.Repeat([]byte("a"), PartAlignment), []byte("the end")
	f := volume(t, 70*mebibyte, []File{{Path: "f", Parts: []Part{
		{Content: sparse.Bytes(a), Slot: SlotAlignment}, {Content: sparse.Bytes(b), Slot: 1},
	}}}, Options{Offset: 4096})
	got, err := fs.ReadFile(f, "f")
	if err != nil || !bytes.Equal(got, append(a, b...)) {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
	// A sector of the volume that the file claims is that part of the file.
	found := 0
	for at := f.at(2); at < f.at(2)+3*SlotAlignment; at += sectorSize {
		inFile, ok, err := f.Position("f", at)
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			continue
		}
		found++
		onVolume := make([]byte, 1)
		if _, err := f.r.ReadAt(onVolume, at); err != nil || onVolume[0] != got[inFile] {
			t.Fatalf("byte %d of the volume is %q, and byte %d of the file %q, %v", at, onVolume, inFile, got[inFile], err)
		}
	}
	if want := PartAlignment/sectorSize + 1; found != want {
		t.Errorf("found %d sectors, want %d", found, want)
	}
}

func TestReadMissing(t *testing.T) {
	f := volume(t, 34*mebibyte, []File{text("d/f", "")}, Options{})
	for _, name := range []string{"x", "d/x", "d/f/x"} {
		if _, err := f.Open(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	for _, name := range []string{"/d", "d/", "../d", ""} {
		if _, err := f.Open(name); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	if _, err := f.Content("d"); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("the content of a directory: error %v", err)
	}
	if _, err := f.ReadDir("d/f"); err == nil {
		t.Error("a file has entries")
	}
}

// The reader understands what mkfs.vfat and mtools write, in all variants.
func TestReadOthers(t *testing.T) {
	need.Program(t, "mkfs.vfat", "dosfstools")
	need.Program(t, "mcopy", "mtools")
	for bits, size := range map[string]int64{"12": 2 * mebibyte, "16": 32 * mebibyte, "32": 128 * mebibyte} {
		t.Run(bits, func(t *testing.T) {
			dir := t.TempDir()
			img := filepath.Join(dir, "fat.img")
			if err := os.WriteFile(img, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(img, size); err != nil {
				t.Fatal(err)
			}
			want := map[string]string{"EFI/BOOT/BOOTAA64.EFI": strings.Repeat("loader", 30_000), "EFI/lower.cfg": "lower", "ünïcode, 日本語": "u"}
			for i := range 40 { // several clusters of a directory
				want[fmt.Sprintf("EFI/BOOT/A long name, number %d", i)] = fmt.Sprint(i)
			}
			source := filepath.Join(dir, "source")
			for name, content := range want {
				if err := os.MkdirAll(filepath.Dir(filepath.Join(source, name)), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(source, name), []byte(content), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			run(t, "mkfs.vfat", "-F", bits, "-s", "1", "-n", "LABEL", img)
			run(t, "mcopy", "-s", "-i", img, filepath.Join(source, "EFI"), filepath.Join(source, "ünïcode, 日本語"), "::/")
			// A fragmented file, and deleted ones before it.
			for _, name := range []string{"one", "two", "three"} {
				run(t, "mcopy", "-i", img, filepath.Join(source, "EFI/BOOT/BOOTAA64.EFI"), "::/"+name)
			}
			run(t, "mdel", "-i", img, "::/one")
			big := filepath.Join(source, "fragmented file")
			want["fragmented file"] = strings.Repeat("fragment", 60_000)
			if err := os.WriteFile(big, []byte(want["fragmented file"]), 0o644); err != nil {
				t.Fatal(err)
			}
			run(t, "mcopy", "-i", img, big, "::/")
			want["two"], want["three"] = want["EFI/BOOT/BOOTAA64.EFI"], want["EFI/BOOT/BOOTAA64.EFI"]

			file, err := os.Open(img)
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			f, err := Open(file)
			if err != nil {
				t.Fatal(err)
			}
			if fmt.Sprint(f.bits) != bits {
				t.Errorf("FAT%d, want FAT%s", f.bits, bits)
			}
			if diff := cmp.Diff(want, contents(t, f)); diff != "" {
				t.Errorf("contents (-written +read):\n%s", diff)
			}
			listing, err := exec.Command("mdir", "-i", img, "::/").Output()
			if err != nil {
				t.Fatal(err)
			}
			free, err := f.Free()
			if text := strings.ReplaceAll(string(listing), " ", ""); err != nil || !strings.Contains(text, fmt.Sprintf("\n%dbytesfree", free)) {
				t.Errorf("%d bytes are free, %v; mdir says:\n%s", free, err, listing)
			}
		})
	}
}

// hostile returns a small volume and the offset of its root directory in bytes.
func hostile(t testing.TB) (data []byte, root int64) {
	t.Helper()
	v, err := New(34*mebibyte, []File{text("a long name", "content"), text("D/E/F", "content")}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	content, err := v.Image(1)
	if err != nil {
		t.Fatal(err)
	}
	data = make([]byte, 1<<20)
	if _, err := content.ReadAt(data, 0); err != nil {
		t.Fatal(err)
	}
	return data, v.offset(v.root.chain.first)
}

func TestReadDamaged(t *testing.T) {
	// Entries of the root: D, the long name, and its short one.
	const cluster, size = 26, 28
	le := binary.LittleEndian
	for name, test := range map[string]struct {
		change func(data []byte, root int64)
		open   string
		want   string
	}{
		"no boot sector": {func(b []byte, _ int64) { b[510] = 0 }, "D", "the boot sector is invalid"},
		"no clusters":    {func(b []byte, _ int64) { le.PutUint32(b[32:], 100) }, "D", "clusters"},
		"root cluster":   {func(b []byte, _ int64) { le.PutUint32(b[44:], 1<<20) }, "D", "the root directory is in cluster 1048576"},
		"loop":           {func(b []byte, root int64) { b[root+cluster] = 2 }, "D/D/D/D", `the directories "." and "D" share cluster 2`},
		"shared":         {func(b []byte, root int64) { b[root+512+2*32+cluster] = 3 }, "D/E/E", `the directories "D" and "D/E" share cluster 3`},
		"no cluster":     {func(b []byte, root int64) { b[root+cluster] = 0 }, "D", "a directory starts in cluster 0"},
		"far cluster":    {func(b []byte, root int64) { b[root+20] = 0xff }, "D", "a directory starts in cluster 16711683"},
		"name":           {func(b []byte, root int64) { b[root] = '/' }, "D", `a file has the name "/"`},
		"long file": {func(b []byte, root int64) { le.PutUint32(b[root+2*32+size:], 513) }, "a long name",
			`"a long name" has 513 bytes, but its clusters end after 512`},
	} {
		data, root := hostile(t)
		test.change(data, root)
		f, err := Open(bytes.NewReader(data))
		if err == nil {
			_, err = f.Open(test.open)
		}
		if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %v, want %q", name, err, test.want)
		}
	}

	// A directory whose clusters are a loop ends at the limit.
	data, root := hostile(t)
	for at := root; at < root+512; at += 32 {
		copy(data[at:], "FILE       ")
		data[at+11] = attrArchive
	}
	f, err := Open(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	le.PutUint32(data[f.table+4*2:], 2)
	if _, err := f.ReadDir("."); err == nil || !strings.Contains(err.Error(), "more than 65536 entries") {
		t.Errorf("a loop of clusters: error %v", err)
	}

	// A long name that does not belong to its short one is ignored.
	data, root = hostile(t)
	data[root+32+13]++
	if f, err = Open(bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	if got, err := fs.ReadFile(f, "ALONGN~1"); err != nil || string(got) != "content" {
		t.Errorf("read %q, %v", got, err)
	}
}

// Whatever is on a volume, walking it ends, and no file has more bytes than its
// entry says.
func FuzzRead(f *testing.F) {
	data, root := hostile(f)
	f.Add(data[:sectorSize], data[root:root+2048])
	f.Add(data[:sectorSize], bytes.Repeat(data[root:root+32], 16))
	f.Fuzz(func(t *testing.T, boot, directories []byte) {
		data := bytes.Clone(data)
		copy(data[:sectorSize], boot)
		copy(data[root:], directories[:min(len(directories), 4096)])
		volume, err := Open(bytes.NewReader(data))
		if err != nil {
			return
		}
		files := 0
		_ = fs.WalkDir(volume, ".", func(path string, d fs.DirEntry, err error) error {
			if files++; files > 10_000 {
				return fs.SkipAll
			}
			if err != nil || d.IsDir() {
				return nil
			}
			content, err := volume.Content(path)
			if err != nil {
				return nil
			}
			info, err := d.Info()
			if err != nil {
				t.Fatal(err)
			}
			if n, _ := io.Copy(io.Discard, io.LimitReader(content, 1<<20)); n > info.Size() {
				t.Errorf("%q: %d bytes of %d", path, n, info.Size())
			}
			return nil
		})
	})
}

// The reader of a volume needs little memory for a large file.
func BenchmarkReadFile(b *testing.B) {
	f := volume(b, 300*mebibyte, []File{empty("f", 200*mebibyte)}, Options{})
	b.SetBytes(200 * mebibyte)
	b.ReportAllocs()
	for b.Loop() {
		content, err := f.Content("f")
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, content); err != nil {
			b.Fatal(err)
		}
	}
}

var _ interface {
	fs.ReadDirFS
	fs.StatFS
} = (*FS)(nil)
