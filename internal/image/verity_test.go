package image

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/exporter/format"
	"github.com/slipway-build/slipway/exporter/sparse"
	"github.com/slipway-build/slipway/exporter/verity"
)

// TestVerity checks that the root file system of a disk is verified with the root
// hash on its command line: a changed byte of the root, of the hash tree, of the
// superblock or of the root hash is found.
func TestVerity(t *testing.T) {
	f, _ := format.Lookup("raw-verity")
	name := write(t, f)[0]
	open := func() (*Image, *Verity) {
		t.Helper()
		i, err := Open(name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { i.Close() })
		return i, i.Verity()
	}
	i, v := open()
	if v == nil || !v.Matches || v.Error != "" || !strings.HasPrefix(i.Cmdline, "roothash="+v.RootHash+" ") {
		t.Fatalf("%+v, command line %q", v, i.Cmdline)
	}
	if i.RootKind != "EROFS" || i.Partitions[1].Type != "root" || i.Partitions[2].Type != "root verity" || len(i.Warnings) > 0 {
		t.Errorf("root %s, partitions %+v, warnings %q", i.RootKind, i.Partitions, i.Warnings)
	}
	disk, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	change := func(at int64) {
		t.Helper()
		b := make([]byte, 1)
		if _, err := disk.ReadAt(b, at); err != nil {
			t.Fatal(err)
		}
		b[0] ^= 1
		if _, err := disk.WriteAt(b, at); err != nil {
			t.Fatal(err)
		}
	}
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for what, test := range map[string]struct {
		at    int64
		error string
	}{
		"data":       {i.Partitions[1].Start + v.DataSize - 1, "hash mismatch: block"},
		"tree":       {i.Partitions[2].Start + 4096, "hash mismatch: block 0 of the tree"},
		"superblock": {i.Partitions[2].Start, "unsupported dm-verity superblock: the signature is missing"},
		"salt":       {i.Partitions[2].Start + 88, "hash mismatch"},
		"salt size":  {i.Partitions[2].Start + 81, "unsupported dm-verity superblock: a salt of 288 bytes"},
		"256 MiB":    {i.Partitions[2].Start + 74, "unsupported dm-verity superblock: "},
		"16 TiB":     {i.Partitions[2].Start + 76, "not verified: it has more than 64 GiB"},
		"2^68 bytes": {i.Partitions[2].Start + 79, "unsupported dm-verity superblock: 72057594"},
		"root hash":  {int64(strings.Index(string(content), v.RootHash)), "hash mismatch: the root hash of the data is " + v.RootHash},
	} {
		change(test.at)
		if _, v := open(); v.Matches || !strings.Contains(v.Error, test.error) {
			t.Errorf("changed %s: %+v, want the error %q", what, v, test.error)
		}
		change(test.at)
	}
	other, _ := format.Lookup("raw-efi")
	if i, err := Open(write(t, other)[0]); err != nil || i.Verity() != nil {
		t.Errorf("raw-efi: %+v, %v", i.Verity(), err)
	}
}

// FuzzVerity checks that damaged partitions end in an error, and that data that
// matches the root hash is what the hash was computed of.
func FuzzVerity(f *testing.F) {
	good := bytes.Repeat([]byte("slipway\n"), 129*verity.BlockSize/8) // two levels
	root, content, err := verity.New(sparse.Bytes(good))
	if err != nil {
		f.Fatal(err)
	}
	tree, err := io.ReadAll(content.Reader())
	if err != nil {
		f.Fatal(err)
	}
	section := func(b []byte) *io.SectionReader {
		return io.NewSectionReader(bytes.NewReader(b), 0, int64(len(b)))
	}
	f.Add(good, tree)
	f.Add(good[:len(good)-1], tree)
	f.Add(good, tree[:verity.BlockSize])
	f.Add(good[:verity.BlockSize], tree[:512])
	for _, at := range []int{64, 72, 74, 76, 80, 88, verity.BlockSize, len(tree) - 1} {
		damaged := bytes.Clone(tree)
		damaged[at] ^= 1
		f.Add(good, damaged)
	}
	f.Fuzz(func(t *testing.T, data, tree []byte) {
		i := &Image{Cmdline: "roothash=" + root.String(), verity: verityParts{section(data), section(tree)}}
		v := i.Verity()
		if v.Matches && v.DataSize == int64(len(good)) && !bytes.Equal(data[:v.DataSize], good) {
			t.Error("other data matches the root hash")
		}
		i.Cmdline = ""
		if v := i.Verity(); v.Matches {
			t.Error("data matches without a root hash")
		}
	})
}
