package squashfs

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
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
	f, err := os.Create(filepath.Join(t.TempDir(), "test.img"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size, err := Write(f, entries, options)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := f.Stat(); err != nil || info.Size() != size || size%padding != 0 {
		t.Fatalf("Write returned %d, the file has %d bytes, %v", size, info.Size(), err)
	}
	return f.Name()
}

var compressions = map[string]Options{
	"zstd": {Compression: "zstd", Level: 7, Time: time.Unix(315532800, 0)},
	"gzip": {Compression: "gzip", Level: 6, Time: time.Unix(315532800, 0)},
	"none": {Compression: "none", Time: time.Unix(315532800, 0)},
}

// unsquashfs extracts what was written.
func TestUnsquashfsExtracts(t *testing.T) {
	need.Program(t, "unsquashfs", "squashfs-tools")
	need.Root(t)
	want := treetest.All(8<<10, blockSize)
	holes := tree.NewFile("holes", 0o644, strings.Repeat("\x00", 3*blockSize)+"x"+strings.Repeat("\x00", blockSize))
	want = tree.AddParents(append(want, holes))
	for name, options := range compressions {
		t.Run(name, func(t *testing.T) {
			image := writeImage(t, want, options)
			dir := filepath.Join(t.TempDir(), "root")
			out, err := exec.Command("unsquashfs", "-no-progress", "-d", dir, image).CombinedOutput()
			if err != nil {
				t.Fatalf("unsquashfs: %v\n%s", err, out)
			}
			got, err := tree.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			treetest.Equal(t, want, got)
		})
	}
}

// The same tree results in the same bytes, on any number of processors and in every
// version of this package, unless a change is intended.
func TestDigest(t *testing.T) {
	got := ""
	for _, name := range []string{"gzip", "none", "zstd"} {
		first := ""
		for _, processors := range []int{1, 2, 7} {
			before := runtime.GOMAXPROCS(processors)
			data, err := os.ReadFile(writeImage(t, treetest.All(blockSize), compressions[name]))
			runtime.GOMAXPROCS(before)
			if err != nil {
				t.Fatal(err)
			}
			line := fmt.Sprintf("%x  %s\n", sha256.Sum256(data), name)
			if first == "" {
				first = line
				got += line
			}
			if line != first {
				t.Errorf("on %d processors: %son one: %s", processors, line, first)
			}
		}
	}
	golden.Equal(t, "testdata/all.sha256", got)
}

func TestErrors(t *testing.T) {
	owners := make([]tree.Entry, 70_000)
	for i := range owners {
		owners[i] = tree.Entry{Path: fmt.Sprintf("%05d", i), Type: tree.FIFO, UID: uint32(i)}
	}
	good := compressions["none"]
	for name, test := range map[string]struct {
		entries []tree.Entry
		change  func(*Options)
		want    string
	}{
		"owners":      {owners, nil, "more than 65535 owners and groups"},
		"device":      {[]tree.Entry{{Path: "d", Type: tree.Char, Major: 4096}}, nil, "d: device 4096,0: SquashFS supports numbers up to 4095,1048575"},
		"parent":      {[]tree.Entry{{Path: "d/f", Type: tree.FIFO}}, nil, "d/f: there is no directory d"},
		"year":        {nil, func(o *Options) { o.Time = time.Date(2107, 1, 1, 0, 0, 0, 0, time.UTC) }, "years 1970 to 2106, not 2107"},
		"compression": {nil, func(o *Options) { o.Compression = "xz" }, `unknown compression "xz": use zstd, gzip or none`},
		"short":       {[]tree.Entry{short()}, nil, "f: read 3 of 4 bytes"},
		"unreadable":  {[]tree.Entry{{Path: "f", Type: tree.File, Size: 1, Open: func() (tree.Content, error) { return nil, os.ErrPermission }}}, nil, "permission denied"},
	} {
		t.Run(name, func(t *testing.T) {
			o := good
			if test.change != nil {
				test.change(&o)
			}
			f, err := os.Create(filepath.Join(t.TempDir(), "test.img"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := Write(f, test.entries, o); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
}

func short() tree.Entry {
	e := tree.NewFile("f", 0o644, "abc")
	e.Size++
	return e
}

// BenchmarkWrite writes a file of 256 MiB and 20,000 small ones.
func BenchmarkWrite(b *testing.B) {
	entries := treetest.Large(256<<20, 20_000)
	for name, options := range compressions {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(256<<20 + 20_000*1000)
			for b.Loop() {
				writeImage(b, entries, options)
			}
		})
	}
}
