package verity

import (
	"bytes"
	"errors"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/exporter/gpt"
	"github.com/slipway-build/slipway/exporter/sparse"
	"github.com/slipway-build/slipway/internal/testutil/need"
)

// sizes have trees of zero to three levels, and levels that just fill their blocks.
var sizes = []int64{1, BlockSize, BlockSize + 1, 128 * BlockSize, 129 * BlockSize, 128 * 128 * BlockSize, (128*128 + 1) * BlockSize}

func random(size int64) []byte {
	data := make([]byte, size)
	rand.New(rand.NewSource(size)).Read(data)
	return data
}

// written returns data, padded to whole blocks, its tree and its root hash.
func written(t testing.TB, size int64) (data, tree []byte, root Hash) {
	t.Helper()
	content := sparse.Bytes(random(size))
	root, partition, err := New(content)
	if err != nil {
		t.Fatal(err)
	}
	if tree, err = io.ReadAll(partition.Reader()); err != nil {
		t.Fatal(err)
	}
	data, err = io.ReadAll(content.Pad(BlockSize).Reader())
	if err != nil {
		t.Fatal(err)
	}
	return data, tree, root
}

func section(b []byte) *io.SectionReader {
	return io.NewSectionReader(bytes.NewReader(b), 0, int64(len(b)))
}

// TestVeritysetup lets cryptsetup verify data and tree, and find a changed byte in
// each of them. It also compares them with what cryptsetup itself writes.
func TestVeritysetup(t *testing.T) {
	need.Program(t, "veritysetup", "cryptsetup-bin")
	for _, size := range sizes {
		data, tree, root := written(t, size)
		dir := t.TempDir()
		verify := func(data, tree []byte) error {
			for name, content := range map[string][]byte{"data": data, "tree": tree} {
				if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			out, err := exec.Command("veritysetup", "verify", filepath.Join(dir, "data"), filepath.Join(dir, "tree"), root.String()).CombinedOutput()
			if err != nil {
				return errors.New(string(out))
			}
			return nil
		}
		if err := verify(changed(data, len(data)/2), tree); err == nil {
			t.Errorf("%d bytes: veritysetup accepts changed data", size)
		}
		if err := verify(data, tree); err != nil {
			t.Errorf("%d bytes: %v", size, err)
		}
		superblock, err := Read(bytes.NewReader(tree))
		if err != nil {
			t.Fatal(err)
		}
		theirs := filepath.Join(dir, "theirs")
		out, err := exec.Command("veritysetup", "format", filepath.Join(dir, "data"), theirs,
			"--salt", strings.Fields(superblock.Table("", "", root))[7], "--uuid", gpt.FromUUID(superblock.UUID).String()).CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		want, err := os.ReadFile(theirs)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(tree, want) {
			t.Errorf("%d bytes: veritysetup format writes another partition of %d bytes, not %d", size, len(want), len(tree))
		}
	}
}

func changed(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 1
	return b
}

func TestVerify(t *testing.T) {
	for _, size := range sizes {
		data, tree, root := written(t, size)
		s, err := Read(bytes.NewReader(tree))
		if err != nil {
			t.Fatal(err)
		}
		if s.DataSize() != int64(len(data)) || s.TreeSize() != int64(len(tree)) {
			t.Errorf("%d bytes: superblock %+v has data of %d bytes and a tree of %d", size, s, s.DataSize(), s.TreeSize())
		}
		if err := errors.Join(s.Verify(section(data), section(tree), root), s.CheckRoot(section(tree), root)); err != nil {
			t.Errorf("%d bytes: %v", size, err)
		}
		for name, err := range map[string]error{
			"first byte of the data": s.Verify(section(changed(data, 0)), section(tree), root),
			"last byte of the data":  s.Verify(section(changed(data, len(data)-1)), section(tree), root),
			"root hash":              s.Verify(section(data), section(tree), Hash(changed(root[:], 31))),
		} {
			if !errors.Is(err, ErrMismatch) {
				t.Errorf("%d bytes, changed %s: %v", size, name, err)
			}
		}
		if len(tree) == BlockSize {
			continue
		}
		for _, at := range []int{BlockSize, len(tree) - 1} {
			if err := s.Verify(section(data), section(changed(tree, at)), root); !errors.Is(err, ErrMismatch) {
				t.Errorf("%d bytes, changed byte %d of the tree: %v", size, at, err)
			}
		}
		if err := s.CheckRoot(section(changed(tree, BlockSize)), root); !errors.Is(err, ErrMismatch) {
			t.Errorf("%d bytes: changed root: %v", size, err)
		}
	}
}

// A superblock from a stranger must not make the reader compute or allocate more
// than the partitions hold.
func TestRead(t *testing.T) {
	data, tree, root := written(t, 300*BlockSize)
	for name, change := range map[string]func(b []byte){
		"signature": func(b []byte) { b[0] = 'V' },
		"version":   func(b []byte) { b[8] = 2 },
		"hash type": func(b []byte) { b[12] = 0 },
		"algorithm": func(b []byte) { copy(b[32:], "sha1\x00\x00") },
		"data size": func(b []byte) { b[65] = 2 },
		"hash size": func(b []byte) { b[69] = 2 },
		"no blocks": func(b []byte) { clear(b[72:80]) },
		"blocks":    func(b []byte) { b[79] = 0x10 },
		"salt":      func(b []byte) { b[81] = 2 },
		"truncated": nil,
	} {
		b := bytes.Clone(tree)
		if change == nil {
			b = b[:100]
		} else {
			change(b)
		}
		if _, err := Read(bytes.NewReader(b)); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
	many := bytes.Clone(tree)
	many[76] = 1
	s, err := Read(bytes.NewReader(many))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(section(data), section(many), root); !errors.Is(err, ErrFormat) {
		t.Errorf("too many blocks: %v", err)
	}
}

func TestPartitionIDs(t *testing.T) {
	h, err := ParseHash("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f")
	if err != nil {
		t.Fatal(err)
	}
	data, tree := h.PartitionIDs()
	if data.String() != "00010203-0405-0607-0809-0A0B0C0D0E0F" || tree.String() != "10111213-1415-1617-1819-1A1B1C1D1E1F" {
		t.Errorf("%s, %s", data, tree)
	}
	for _, text := range []string{"", "00", "xx" + h.String()[2:], h.String() + "00"} {
		if _, err := ParseHash(text); err == nil {
			t.Errorf("%q is a root hash", text)
		}
	}
}

func FuzzRead(f *testing.F) {
	data, tree, root := written(f, 2*BlockSize)
	f.Add(tree[:superblockSize])
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Read(bytes.NewReader(b))
		if err != nil {
			return
		}
		s.Verify(section(data), section(b), root)
		s.CheckRoot(section(b), root)
		s.Table("254:1", "254:2", root)
	})
}

func BenchmarkNew(b *testing.B) {
	content := sparse.Bytes(random(256 << 20))
	b.SetBytes(content.Size)
	for b.Loop() {
		if _, _, err := New(content); err != nil {
			b.Fatal(err)
		}
	}
}
