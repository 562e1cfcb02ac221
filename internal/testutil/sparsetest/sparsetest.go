// Package sparsetest creates and compares disks in tests of the packages that
// store disks in files.
package sparsetest

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/slipway-build/slipway/exporter/sparse"
	"github.com/slipway-build/slipway/internal/testutil/need"
)

// Disk returns a disk of 70 MiB with data that compresses, data that does not,
// and zeros, at and beside the boundaries of blocks.
func Disk(t testing.TB) sparse.Content {
	t.Helper()
	noise := make([]byte, 3<<20+512)
	_, _ = rand.NewChaCha8([32]byte{}).Read(noise)
	text := bytes.Repeat([]byte("0123456789abcdef"), 200<<10/16)
	var runs []sparse.Run
	for _, r := range []struct {
		at   int64
		data []byte
	}{
		{0, text}, {1<<20 - 512, text[:1024]}, {2 << 20, noise}, {33<<20 + 512, text}, {64<<20 + 64<<10, text[:64<<10]}, {70<<20 - 512, noise[:512]},
	} {
		runs = append(runs, sparse.Bytes(r.data).At(r.at)...)
	}
	disk, err := sparse.New(70<<20, runs, nil)
	if err != nil {
		t.Fatal(err)
	}
	return disk
}

// Small returns a disk for tests of damaged files.
func Small() sparse.Content {
	return sparse.Content{Size: 8 << 20, Runs: sparse.Bytes(bytes.Repeat([]byte("data"), 4096)).At(1 << 20)}
}

// Equal checks that got has the bytes of want.
func Equal(t testing.TB, want, got sparse.Content) {
	t.Helper()
	if want.Size != got.Size {
		t.Fatalf("the disk has %d bytes, want %d", got.Size, want.Size)
	}
	a, b := make([]byte, 1<<20), make([]byte, 1<<20)
	for at := int64(0); at < want.Size; at += int64(len(a)) {
		if _, err := want.ReadAt(a, at); err != nil && err != io.EOF {
			t.Fatal(err)
		}
		if _, err := got.ReadAt(b, at); err != nil && err != io.EOF {
			t.Fatalf("byte %d: %v", at, err)
		}
		if !bytes.Equal(a, b) {
			t.Fatalf("the disk differs between bytes %d and %d", at, at+int64(len(a)))
		}
	}
}

// File returns the bytes of a content.
func File(t testing.TB, c sparse.Content) []byte {
	t.Helper()
	b, err := io.ReadAll(c.Reader())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Convert returns the file that qemu-img makes of a disk, with options such as
// "-O", "qcow2".
func Convert(t testing.TB, disk sparse.Content, options ...string) []byte {
	t.Helper()
	need.Program(t, "qemu-img", "qemu-utils")
	dir := t.TempDir()
	raw, out := filepath.Join(dir, "disk.raw"), filepath.Join(dir, "disk.out")
	f, err := os.Create(raw)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := disk.WriteFile(f); err != nil {
		t.Fatal(err)
	}
	args := append(append([]string{"convert", "-f", "raw"}, options...), raw, out)
	if text, err := exec.Command("qemu-img", args...).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img: %v\n%s", err, text)
	}
	data, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Fuzz checks that read returns an error for a damaged file, or a disk that can
// be read. The seeds are valid files.
func (read Reader) Fuzz(f *testing.F, seeds map[string][]byte) {
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		disk, err := read(bytes.NewReader(file), int64(len(file)))
		if err != nil {
			return
		}
		if _, err := sparse.New(disk.Size, disk.Runs, disk.Free); err != nil {
			t.Fatal(err)
		}
		for at, ok := disk.NextData(0); ok && at < 64<<20; at, ok = disk.NextData(at + 1<<20) {
			_, _ = disk.ReadAt(make([]byte, 4096), at) // damaged blocks are errors
		}
	})
}

// A Reader is the function of a package that reads a disk.
type Reader func(io.ReaderAt, int64) (sparse.Content, error)

// Reads checks that files hold a disk, by the name of a test.
func (read Reader) Reads(t *testing.T, files map[string][]byte, want sparse.Content) {
	for name, file := range files {
		t.Run(name, func(t *testing.T) { read.reads(t, file, want) })
	}
}

func (read Reader) reads(t *testing.T, file []byte, want sparse.Content) {
	t.Helper()
	got, err := read(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	Equal(t, want, got)
}

// ReadsQEMU checks that files of qemu-img hold the disk that they were made of.
// The options are those of Convert, by the name of a test.
func (read Reader) ReadsQEMU(t *testing.T, files map[string][]string) {
	want := Disk(t)
	for name, options := range files {
		t.Run(name, func(t *testing.T) { read.reads(t, Convert(t, want, options...), want) })
	}
}
