package sparse

import (
	"bytes"
	"errors"
	"io"
	"math"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/exporter/diskmap"
)

// save writes a content to a file.
func save(t *testing.T, i Content) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "image"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := i.WriteFile(f); err != nil {
		t.Fatal(err)
	}
	return f
}

// However a content is read or written, its runs are in their places, with zeros
// between them.
func TestContent(t *testing.T) {
	random := rand.New(rand.NewSource(1))
	name := filepath.Join(t.TempDir(), "file")
	content := make([]byte, 3<<20)
	random.Read(content)
	if err := os.WriteFile(name, content, 0o644); err != nil {
		t.Fatal(err)
	}
	var files Files
	defer files.Close()
	file, err := files.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	const size = 64 << 20
	runs := append(Bytes([]byte("head")).At(0), file.At(8<<20+3)...)
	runs = append(append(file.At(40<<20), Bytes(content[:2<<20]).At(20<<20)...), runs...) // in any order
	image, err := New(size, runs, []Range{{50 << 20, 14 << 20}, {4, 96}})
	if err != nil {
		t.Fatal(err)
	}
	want := make([]byte, size)
	copy(want, "head")
	copy(want[8<<20+3:], content)
	copy(want[40<<20:], content)
	copy(want[20<<20:], content[:2<<20])

	f := save(t, image)
	if got, err := os.ReadFile(f.Name()); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the file differs: %v", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Blocks*512 > 9<<20 {
		t.Errorf("%d bytes are stored: %v", st.Blocks*512, err)
	}
	if got, err := io.ReadAll(image.Reader()); err != nil || !bytes.Equal(got, want) {
		t.Errorf("read: %d bytes differ: %v", len(got), err)
	}
	for range 1000 {
		off := random.Int63n(size)
		p := make([]byte, random.Intn(4<<20))
		n, err := image.ReadAt(p, off)
		if !bytes.Equal(p[:n], want[off:min(size, off+int64(len(p)))]) || (n < len(p)) != (err == io.EOF) {
			t.Fatalf("%d bytes at %d: read %d, %v", len(p), off, n, err)
		}
	}
	both := Concat(image, Bytes([]byte("tail")).Pad(16))
	if got, err := io.ReadAll(both.Reader()); err != nil || !bytes.Equal(got, append(want, "tail\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"...)) {
		t.Errorf("after each other: %d bytes differ: %v", len(got), err)
	}
	m := image.Map()
	if err := m.Check(); err != nil {
		t.Error(err)
	}
	extents := []diskmap.Extent{
		{Offset: 0, Length: 4, Type: diskmap.Data}, {Offset: 4, Length: 96, Type: diskmap.Free},
		{Offset: 100, Length: 8<<20 + 3 - 100, Type: diskmap.Zero}, {Offset: 8<<20 + 3, Length: 3 << 20, Type: diskmap.Data},
		{Offset: 11<<20 + 3, Length: 9<<20 - 3, Type: diskmap.Zero}, {Offset: 20 << 20, Length: 2 << 20, Type: diskmap.Data},
		{Offset: 22 << 20, Length: 18 << 20, Type: diskmap.Zero}, {Offset: 40 << 20, Length: 3 << 20, Type: diskmap.Data},
		{Offset: 43 << 20, Length: 7 << 20, Type: diskmap.Zero}, {Offset: 50 << 20, Length: 14 << 20, Type: diskmap.Free},
	}
	if diff := cmp.Diff(extents, m.Extents); diff != "" {
		t.Errorf("map (-want +got):\n%s", diff)
	}
}

func TestHash(t *testing.T) {
	images := []Content{Bytes([]byte("a")), Bytes([]byte("a")), Bytes([]byte("b")), Bytes([]byte("a")).Pad(512), {Size: 5}}
	moved, err := New(512, Bytes([]byte("a")).At(1), nil)
	if err != nil {
		t.Fatal(err)
	}
	sums, err := Hash(append(images, moved))
	if err != nil {
		t.Fatal(err)
	}
	if sums[0] != sums[1] || sums[0] == sums[2] || sums[3] == sums[5] {
		t.Errorf("hashes %x", sums)
	}
}

func TestErrors(t *testing.T) {
	a := Bytes([]byte("aaaa"))
	for name, runs := range map[string][]Run{
		"overlap": append(a.At(0), a.At(3)...), "outside": a.At(7), "before": a.At(-1), "free": a.At(4),
	} {
		if _, err := New(10, runs, []Range{{4, 1}}); err == nil || !strings.Contains(err.Error(), "overlap with others or lie outside of the 10 bytes") {
			t.Errorf("%s: error %v", name, err)
		}
	}
	name := filepath.Join(t.TempDir(), "short")
	if err := os.WriteFile(name, []byte("abc"), 0o644); err != nil {
		t.Fatal(err)
	}
	var files Files
	defer files.Close()
	short, err := files.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	short.Size++
	short.Runs[0].Size++
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if err := short.WriteFile(out); err == nil || !strings.Contains(err.Error(), "short: read 3 of 4 bytes") {
		t.Errorf("a file that has become shorter: error %v", err)
	}
	if _, err := Hash([]Content{short}); err == nil || !strings.Contains(err.Error(), "read 3 of 4 bytes") {
		t.Errorf("a file that has become shorter: error %v", err)
	}
}

type failing struct{ err error }

func (f failing) ReadAt([]byte, int64) (int, error) { return 0, f.err }

// A File rejects parts that are not within it, wherever a damaged table says
// that they are.
func TestFile(t *testing.T) {
	invalid, broken := errors.New("not a disk"), errors.New("broken")
	f := File{ReaderAt: strings.NewReader("0123456789"), Size: 10, Format: "disk", Err: invalid}
	for _, p := range []struct{ at, n int64 }{{0, 11}, {10, 1}, {-1, 1}, {5, math.MaxInt64}, {math.MaxInt64, 1}, {math.MinInt64, 1}} {
		if b, err := f.Bytes(p.at, p.n); !errors.Is(err, invalid) {
			t.Errorf("%d bytes at %d: %q, %v", p.n, p.at, b, err)
		}
	}
	if b, err := f.Bytes(7, 3); string(b) != "789" || err != nil {
		t.Errorf("the last bytes are %q, %v", b, err)
	}
	f.ReaderAt = failing{broken}
	if _, err := f.Bytes(7, 3); !errors.Is(err, broken) || !strings.Contains(err.Error(), "disk: byte 7: ") {
		t.Errorf("the error is %v", err)
	}
}
