package fat

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slipway-build/slipway/internal/testutil/golden"
	"github.com/slipway-build/slipway/internal/testutil/need"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-build/slipway/exporter/sparse"
)

const mebibyte = 1 << 20

func text(path, content string) File {
	return File{Path: path, Parts: []Part{{Content: sparse.Bytes([]byte(content))}}}
}

// empty returns a file of zeros.
func empty(path string, size int64) File {
	return File{Path: path, Parts: []Part{{Content: sparse.Content{Size: size}}}}
}

// image writes a volume to a file and returns its name.
func image(t testing.TB, size int64, files []File, options Options) string {
	t.Helper()
	v, err := New(size, files, options)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "fat.img"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	i, err := v.Image(0x12345678)
	if err != nil {
		t.Fatal(err)
	}
	if err := i.WriteFile(f); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "TZ=UTC", "LC_ALL=C.UTF-8", "MTOOLS_SKIP_CHECK=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return string(out)
}

// fsck.fat accepts volumes with clusters of all sizes.
func TestVolumesAreClean(t *testing.T) {
	need.Program(t, "fsck.fat", "dosfstools")
	files := []File{
		text("EFI/BOOT/BOOTX64.EFI", strings.Repeat("x", 100_000)),
		text("loader/entries/slipway.conf", "title Slipway\n"),
		text("empty", ""),
		text("kernel", strings.Repeat("k", 3*mebibyte+1)),
	}
	for size, cluster := range map[int64]int{
		34 * mebibyte:         512,
		67 * mebibyte:         1024,
		100*mebibyte + 512:    1024,
		256 * mebibyte:        2048,
		260 * mebibyte:        4096,
		1024 * mebibyte:       8192,
		2100 * mebibyte:       32768,
		100 * 1024 * mebibyte: 32768,
	} {
		t.Run(fmt.Sprintf("%dM", size/mebibyte), func(t *testing.T) {
			out := run(t, "fsck.fat", "-n", "-v", image(t, size, files, Options{Label: "SLIPWAY"}))
			for _, want := range []string{fmt.Sprintf("%d bytes per cluster\n", cluster), "2 FATs, 32 bit entries\n"} {
				if !strings.Contains(out, want) {
					t.Errorf("fsck.fat does not say %q:\n%s", want, out)
				}
			}
		})
	}
}

// mtools reads what was written.
func TestFilesAreRead(t *testing.T) {
	need.Program(t, "mcopy", "mtools")
	need.Program(t, "fsck.fat", "dosfstools")
	var files []File
	contents := maps.Clone(names)
	for i := range 600 { // a directory of several clusters, with similar names
		contents[fmt.Sprintf("many/longfilename-%d.conf", i)] = fmt.Sprint(i)
	}
	for name, content := range contents {
		files = append(files, text(name, content)) // in random order
	}
	img := image(t, 40*mebibyte, files, Options{Time: time.Date(2024, 2, 29, 23, 59, 58, 0, time.UTC)})
	run(t, "fsck.fat", "-n", img)

	out := t.TempDir()
	run(t, "mcopy", "-s", "-m", "-i", img, "::*", out)
	got := map[string]string{}
	err := filepath.WalkDir(out, func(name string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(out, name)
		got[rel] = string(data)
		info, infoErr := d.Info()
		if infoErr != nil {
			return infoErr
		}
		if want := "2024-02-29 23:59:58"; info.ModTime().UTC().Format(time.DateTime) != want {
			t.Errorf("%s: time %v, want %s", rel, info.ModTime().UTC(), want)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(contents, got); diff != "" {
		t.Errorf("files (-written +read):\n%s", diff)
	}
}

func TestTimesAreClamped(t *testing.T) {
	for year, want := range map[int]string{1970: "1980-01-01 00:00", 2024: "2024-01-01 00:00", 2200: "2107-12-31 23:59"} {
		date, clock := timestamp(time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC))
		got := fmt.Sprintf("%d-%02d-%02d %02d:%02d", 1980+date>>9, date>>5&15, date&31, clock>>11, clock>>5&63)
		if got != want {
			t.Errorf("%d becomes %s, want %s", year, got, want)
		}
	}
}

// The layout of a small volume does not change: boot loaders depend on it.
func TestLayout(t *testing.T) {
	v, err := New(34*mebibyte, []File{
		text("EFI/BOOT/BOOTX64.EFI", "0123456789"), text("kernel", strings.Repeat("kernel..", 65)), text("empty", ""),
	}, Options{Label: "SLIPWAY", Offset: 4096, Time: time.Unix(0, 0)})
	if err != nil {
		t.Fatal(err)
	}
	w := written(t, v)
	var b strings.Builder
	var last []byte
	for start := 0; start < len(w); start += sectorSize {
		sector := w[start:min(start+sectorSize, len(w))]
		for at := 0; at < len(sector); at += 16 {
			line := sector[at:min(at+16, len(sector))]
			if len(bytes.Trim(line, "\x00")) > 0 && !bytes.Equal(line, last) {
				fmt.Fprintf(&b, "%5d+%03x: % x %q\n", start/sectorSize, at, line, line)
			}
			last = line
		}
	}
	golden.Equal(t, "testdata/layout.golden", b.String())
}

// written returns the bytes of a volume up to the last used one.
func written(t *testing.T, v *Volume) []byte {
	t.Helper()
	i, err := v.Image(0x12345678)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, i.Runs[len(i.Runs)-1].End())
	if _, err := i.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestErrors(t *testing.T) {
	for name, test := range map[string]struct {
		size  int64
		files []File
		label string
		want  string
	}{
		"size":               {1000, nil, "", "must be a multiple of 512 bytes, up to 2 TiB, not 1000"},
		"huge":               {1 << 41, nil, "", "up to 2 TiB"},
		"label":              {34 * mebibyte, nil, "lower", `FAT does not allow 'l' in labels`},
		"long label":         {34 * mebibyte, nil, "TWELVE CHARS", "longer than 11 characters"},
		"4 GiB":              {34 * mebibyte, []File{empty("initrd.img", 1<<32)}, "", "initrd.img has 4294967296 bytes, but a file on FAT32 must be smaller than 4 GiB"},
		"part":               {34 * mebibyte, []File{{Path: "f", Parts: []Part{{Content: sparse.Content{Size: 512}}, {}}}}, "", "part 0 of f has 512 bytes, which is not a multiple of 32768"},
		"colon":              {34 * mebibyte, []File{text("a:b", "")}, "", `FAT does not allow ':' in names`},
		"dot":                {34 * mebibyte, []File{text("a.", "")}, "", "cannot end with a dot or a space"},
		"absolute":           {34 * mebibyte, []File{text("/a", "")}, "", `"/a" is not a valid path on a FAT volume`},
		"out":                {34 * mebibyte, []File{text("../a", "")}, "", `"../a" is not a valid path on a FAT volume`},
		"too long":           {34 * mebibyte, []File{text(strings.Repeat("n", 256), "")}, "", "up to 255 UTF-16 units"},
		"case":               {34 * mebibyte, []File{text("d/a", ""), text("d/A", "")}, "", "d/a and d/A are the same name on FAT"},
		"file and directory": {34 * mebibyte, []File{text("a", ""), text("A/b", "")}, "", "a and A are the same name on FAT"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New(test.size, test.files, Options{Label: test.label})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q", err, test.want)
			}
			if errors.Is(err, ErrTooSmall) {
				t.Error("the error is ErrTooSmall, but a larger volume would not help")
			}
		})
	}
}

// On volumes of all sizes, the largest file that fits is accepted, and one byte
// more is not.
func TestTooSmall(t *testing.T) {
	for _, size := range []int64{34 * mebibyte, 67 * mebibyte, 300 * mebibyte} {
		v, err := New(size, nil, Options{})
		if err != nil {
			t.Fatal(err)
		}
		room := func(v *Volume) int64 {
			return int64(v.clusters-v.used) * int64(v.sectorsPerCluster) * sectorSize
		}
		// A smaller cluster may leave a little more room.
		low, high := room(v), size
		for low+1 < high {
			if middle := (low + high) / 2; fits(t, size, middle) {
				low = middle
			} else {
				high = middle
			}
		}
		if v, err = New(size, []File{empty("f", low)}, Options{}); err != nil || room(v) != 0 {
			t.Errorf("%d bytes: the largest file has %d bytes, which leaves room or fails: %v", size, low, err)
		}
	}
	for _, size := range []int64{0, 512, 16 * mebibyte, 32 * mebibyte} {
		if _, err := New(size, nil, Options{}); !errors.Is(err, ErrTooSmall) {
			t.Errorf("%d bytes: error %v, want ErrTooSmall", size, err)
		}
	}
}

func fits(t *testing.T, size, file int64) bool {
	t.Helper()
	_, err := New(size, []File{empty("f", file)}, Options{})
	if err != nil && !errors.Is(err, ErrTooSmall) {
		t.Fatal(err)
	}
	return err == nil
}

// A part that grows within its slot does not move the next one, and the clusters
// between them are free.
func TestSlots(t *testing.T) {
	need.Program(t, "fsck.fat", "dosfstools")
	need.Program(t, "mcopy", "mtools")
	const offset = 4096
	file := func(first int) File {
		part := sparse.Bytes(bytes.Repeat([]byte("a"), first)).Pad(PartAlignment)
		return File{Path: "initrd", Parts: []Part{
			{Content: part, Slot: SlotAlignment + 5},
			{Content: sparse.Bytes(bytes.Repeat([]byte("b"), 100_000)), Slot: 1},
		}}
	}
	for _, size := range []int64{36 * mebibyte, 70 * mebibyte, 300 * mebibyte, 3000 * mebibyte} {
		t.Run(fmt.Sprintf("%dM", size/mebibyte), func(t *testing.T) {
			var at []int64
			for _, first := range []int{0, 1, 300_000, SlotAlignment} {
				files := []File{text("small", "s"), file(first), text("next", "n")}
				v, err := New(size, files, Options{Offset: offset})
				if err != nil {
					t.Fatal(err)
				}
				i, err := v.Image(1)
				if err != nil {
					t.Fatal(err)
				}
				var free int64
				for _, f := range i.Free {
					free += f.Size
				}
				if clusters := int64(v.clusters-v.used) * int64(v.sectorsPerCluster) * sectorSize; free < clusters || free > clusters+maxSectorsPerCluster*sectorSize {
					t.Errorf("%d bytes are free, the clusters have %d", free, clusters)
				}
				second := i.Runs[len(i.Runs)-2].Offset
				if (second+offset*sectorSize)%SlotAlignment != 0 {
					t.Errorf("the second part is at byte %d", second)
				}
				at = append(at, second)
				img := image(t, size, files, Options{Offset: offset})
				run(t, "fsck.fat", "-n", img)
				out := filepath.Join(t.TempDir(), "out")
				run(t, "mcopy", "-i", img, "::initrd", out)
				got, err := os.ReadFile(out)
				if err != nil {
					t.Fatal(err)
				}
				want, err := io.ReadAll(sparse.Concat(files[1].Parts[0].Content, files[1].Parts[1].Content).Reader())
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("mcopy reads %d bytes, want these %d: %v", len(got), len(want), err)
				}
			}
			if slices.Max(at) != slices.Min(at) {
				t.Errorf("the second part is at bytes %d", at)
			}
		})
	}
}

// Names are rejected or stored without conflicts.
func FuzzNames(f *testing.F) {
	f.Add("loader.conf", "loader.cfg")
	f.Add("ünï", "x\u0301")
	f.Add("a.b.c", "A~1.C")
	f.Fuzz(func(t *testing.T, a, b string) {
		v, err := New(34*mebibyte, []File{text(a, "1"), text(b, "2")}, Options{})
		if err != nil {
			return
		}
		if _, err := v.Image(0); err != nil {
			t.Fatal(err)
		}
		shorts := map[[11]byte]bool{}
		for _, d := range v.directories {
			clear(shorts)
			for _, c := range d.children {
				if shorts[c.short] {
					t.Errorf("%q: short name %q is taken", path.Join(d.path, c.name), c.short)
				}
				shorts[c.short] = true
				if strings.Trim(string(c.short[:8]), " ") == "" || c.short[0] == 0xe5 {
					t.Errorf("%q: short name %q", c.name, c.short)
				}
			}
			if got := int64(len(d.encode(time.Time{}, v.label(d)))); got > d.size() {
				t.Errorf("%q has %d bytes, room for %d", d.path, got, d.size())
			}
		}
	})
}
