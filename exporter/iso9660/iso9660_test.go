package iso9660

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slipway-build/slipway/exporter/tree"
	"github.com/slipway-build/slipway/internal/testutil/golden"
	"github.com/slipway-build/slipway/internal/testutil/need"
	"github.com/slipway-build/slipway/internal/testutil/treetest"
)

func writeImage(t testing.TB, entries []tree.Entry, options Options) string {
	t.Helper()
	v, err := New(entries, options)
	if err != nil {
		t.Fatal(err)
	}
	image, err := v.Image()
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "test.iso"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := image.WriteFile(f); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

var options = Options{Label: "TEST_1", Time: time.Unix(315532800, 0)}

// xorriso extracts what was written.
func TestXorrisoExtracts(t *testing.T) {
	need.Program(t, "xorriso", "xorriso")
	need.Root(t)
	want := treetest.All(SectorSize)
	for i, e := range want {
		if e.Type == tree.Block {
			want[i].Major, want[i].Minor = 8, 16 // only Linux understands larger ones
		}
	}
	image := writeImage(t, want, options)
	dir := filepath.Join(t.TempDir(), "root")
	out, err := exec.Command("xorriso", "-hardlinks", "on", "-indev", image, "-osirrox", "on:device_files:sort_lba_off",
		"-hardlinks", "normal_extract", "-extract", "/", dir).CombinedOutput()
	if err != nil || strings.Contains(string(out), "WARNING") {
		t.Fatalf("xorriso: %v\n%s", err, out)
	}
	for i := range want {
		want[i].Xattrs = nil                                       // the format has none
		want[i].Link = strings.ReplaceAll(want[i].Link, "//", "/") // xorriso does that, as does Linux when it follows a link
	}
	got, err := tree.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	treetest.Equal(t, want, got)
}

// xorriso joins the sections of a file of more than 4 GiB.
func TestLargeFile(t *testing.T) {
	need.Program(t, "xorriso", "xorriso")
	const size = 5<<30 + 3
	v, err := New([]tree.Entry{{Path: "large", Type: tree.File, Size: size}}, options)
	if err != nil {
		t.Fatal(err)
	}
	v.files = nil // the test does not need the content
	image, err := v.Image()
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "test.iso"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := image.WriteFile(f); err != nil {
		t.Fatal(err)
	}
	list, err := exec.Command("xorriso", "-indev", f.Name(), "-find", "/large", "-exec", "report_lba").Output()
	if err != nil || !strings.Contains(string(list), "5368709123") {
		t.Errorf("xorriso: %v\n%s", err, list)
	}
}

func TestErrors(t *testing.T) {
	file := func(path string, size int64) tree.Entry { return tree.Entry{Path: path, Type: tree.File, Size: size} }
	var directories []tree.Entry
	for i := range 70_000 {
		directories = append(directories, tree.NewDir(fmt.Sprint(i)))
	}
	for name, test := range map[string]struct {
		entries []tree.Entry
		change  func(*Options)
		want    string
	}{
		"size":        {[]tree.Entry{file("f", 1<<40)}, nil, "f has 1099511627776 bytes, but ISO 9660 supports files of 429496524800"},
		"volume":      {slices.Repeat([]tree.Entry{file("f", 1<<38)}, 40), nil, "but ISO 9660 supports 4294967295"},
		"directories": {directories, nil, "there are 70001 directories, but ISO 9660 supports 65535"},
		"parent":      {[]tree.Entry{file("d/f", 1)}, nil, "d/f: there is no directory d"},
		"label":       {nil, func(o *Options) { o.Label = "small" }, `volume label "small": use up to 32 letters`},
		"year":        {nil, func(o *Options) { o.Time = time.Date(2156, 1, 1, 0, 0, 0, 0, time.UTC) }, "years 1900 to 2155, not 2156"},
		"tail":        {nil, func(o *Options) { o.InTail = map[string]int64{"f": 0} }, "f: there is no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			o := options
			if test.change != nil {
				test.change(&o)
			}
			if _, err := New(test.entries, o); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
}

// The same tree results in the same bytes in every version of this package, unless
// a change is intended.
func TestDigest(t *testing.T) {
	data, err := os.ReadFile(writeImage(t, treetest.All(SectorSize), options))
	if err != nil {
		t.Fatal(err)
	}
	golden.Equal(t, "testdata/all.sha256", fmt.Sprintf("%x\n", sha256.Sum256(data)))
}

// BenchmarkWrite writes a file of 256 MiB and 20,000 small ones.
func BenchmarkWrite(b *testing.B) {
	entries := treetest.Large(256<<20, 20_000)
	b.SetBytes(256<<20 + 20_000*1000)
	for b.Loop() {
		writeImage(b, entries, options)
	}
}
