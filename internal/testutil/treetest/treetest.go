// Package treetest creates and compares file trees in tests.
package treetest

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-build/slipway/exporter/tree"
)

// Dump returns one line per entry: type, mode, owner, path, and the target,
// device number or content. Other names of the same file and extended
// attributes follow.
func Dump(t testing.TB, entries []tree.Entry) string {
	t.Helper()
	names := map[uint64][]string{}
	for _, e := range entries {
		names[e.Inode] = append(names[e.Inode], e.Path)
	}
	var b strings.Builder
	for _, e := range entries {
		fmt.Fprintf(&b, "%-7s %04o %d:%d %s", e.Type, e.Mode, e.UID, e.GID, e.Path)
		switch e.Type {
		case tree.Symlink:
			fmt.Fprintf(&b, " -> %s", e.Link)
		case tree.Char, tree.Block:
			fmt.Fprintf(&b, " %d,%d", e.Major, e.Minor)
		case tree.File:
			fmt.Fprintf(&b, " %q", Content(t, e))
		}
		for _, other := range names[e.Inode] {
			if e.Inode != 0 && e.Path != other {
				fmt.Fprintf(&b, " = %s", other)
			}
		}
		for _, name := range slices.Sorted(maps.Keys(e.Xattrs)) {
			fmt.Fprintf(&b, " %s=%q", name, e.Xattrs[name])
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// Equal fails the test with the lines in which two trees differ.
func Equal(t testing.TB, packed, extracted []tree.Entry) {
	t.Helper()
	lines := func(entries []tree.Entry) []string { return strings.Split(Dump(t, entries), "\n") }
	if diff := cmp.Diff(lines(packed), lines(extracted)); diff != "" {
		t.Errorf("(-packed +extracted):\n%s", diff)
	}
}

// Content reads the content of a file.
func Content(t testing.TB, e tree.Entry) string {
	t.Helper()
	if e.Size == 0 {
		return ""
	}
	content, err := e.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer content.Close()
	data, err := io.ReadAll(content)
	if err != nil || int64(len(data)) != e.Size {
		t.Fatalf("%s: read %d of %d bytes: %v", e.Path, len(data), e.Size, err)
	}
	return string(data)
}

// Tar creates a tar archive. The content of a regular file is its size times x,
// or its name if its size is 0.
func Tar(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		content := strings.Repeat("x", int(h.Size))
		if h.Typeflag == tar.TypeReg && content == "" {
			content = h.Name
			h.Size = int64(len(content))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// All returns a tree with everything that a root filesystem can contain: each
// type of file, names and links of any length, many files, deep directories,
// and files whose sizes are near the given block sizes.
func All(blockSizes ...int64) []tree.Entry {
	entries := []tree.Entry{
		{Path: ".", Type: tree.Dir, Mode: 0o755},
		{Path: "dir", Type: tree.Dir, Mode: 0o750 | tree.Sticky, UID: 5, GID: 6},
		{Path: "dir/null", Type: tree.Char, Mode: 0o666, Major: 1, Minor: 3},
		{Path: "dir/disk", Type: tree.Block, Mode: 0o660, GID: 6, Major: 259, Minor: 70000},
		{Path: "dir/fifo", Type: tree.FIFO, Mode: 0o622},
		tree.NewDir("dir/empty"),
		tree.NewSymlink("link", "dir/file with blanks, ünï"),
		tree.NewSymlink("link-root", "/"),
		tree.NewSymlink("link-up", "/../a/./..//b/"),
		tree.NewSymlink("link-long", strings.Repeat("../"+strings.Repeat("n", 252)+"/", 3)+"end"),
		tree.NewFile("empty", 0o644, ""),
		tree.NewFile("dir/file with blanks, ünï", 0o600, "content"),
		tree.NewFile("UPPER.and.dots", 0o644, "1"),
		tree.NewFile("upper.and.dots", 0o644, "2"),
		tree.NewFile(strings.Repeat("l", 255), 0o644, "long"),
		tree.NewFile(strings.Repeat("m", 130)+".txt", 0o644, "longer than a record"),
	}
	suid := tree.NewFile("suid", 0o755|tree.SetUID|tree.SetGID, "#!")
	suid.UID, suid.GID = 70000, 80000
	suid.Xattrs = map[string]string{"security.capability": "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", "user.note": "text"}
	other := tree.NewFile("other", 0o755, "the same attributes as suid")
	other.Xattrs = suid.Xattrs
	entries = append(entries, suid, other)
	entries[1].Xattrs = map[string]string{"user.large": strings.Repeat("x", 3000)}
	for _, name := range []string{"hard/a", "hard/b", "z"} {
		link := tree.NewFile(name, 0o640, "linked")
		link.Inode = 7
		entries = append(entries, link)
	}
	for i := range 1500 {
		entries = append(entries, tree.NewFile(fmt.Sprintf("many/file-%04d", i), 0o644, fmt.Sprint(i)))
	}
	entries = append(entries, tree.NewFile(strings.Repeat("deep/", 40)+"file", 0o644, "down"))
	for _, size := range blockSizes {
		for _, n := range []int64{size - 1, size, size + 1, 3*size + size/2} {
			entries = append(entries, tree.NewFile(fmt.Sprintf("sizes/%d", n), 0o644, text(n)))
		}
	}
	return tree.AddParents(entries)
}

// Script returns the tree that a text describes, for fuzzing, or nil if it
// describes none. A line is one file: its type (f, d, l, h, c, b or p), its path
// and, after a blank, its content, target or extended attribute.
func Script(t testing.TB, text string) []tree.Entry {
	t.Helper()
	types := map[string]byte{
		"f": tar.TypeReg, "d": tar.TypeDir, "l": tar.TypeSymlink, "h": tar.TypeLink, "c": tar.TypeChar, "b": tar.TypeBlock, "p": tar.TypeFifo,
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for line := range strings.Lines(text) {
		kind, name, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		name, value, _ := strings.Cut(name, " ")
		h := tar.Header{Format: tar.FormatPAX, Typeflag: types[kind], Name: name, Mode: 0o640, Uid: len(value)}
		switch kind {
		case "f":
			h.Size = int64(len(value))
		case "l", "h":
			h.Linkname = value
		case "c", "b":
			h.Devmajor, h.Devminor = int64(len(name)), int64(len(value))
		case "d":
			if value != "" {
				h.PAXRecords = map[string]string{"SCHILY.xattr.security.x": value}
			}
		}
		if h.Typeflag == 0 || w.WriteHeader(&h) != nil {
			return nil
		}
		if _, err := io.WriteString(w, value[:h.Size]); err != nil {
			t.Fatal(err)
		}
	}
	if w.Close() != nil {
		return nil
	}
	entries, err := tree.ReadTar(bytes.NewReader(b.Bytes()), int64(b.Len()))
	if err != nil {
		return nil
	}
	entries = addRoot(entries)
	if tree.Check(entries) != nil {
		return nil
	}
	return entries
}

// addRoot adds the missing directories of entries, and the root.
func addRoot(entries []tree.Entry) []tree.Entry {
	if len(entries) == 0 || entries[0].Path != "." {
		entries = append(entries, tree.NewDir("."))
	}
	return tree.AddParents(entries)
}

// Scripts are texts for [Script].
var Scripts = []string{
	"f a content\nd d value\nf d/b x\nl l ../../x\nh h a\nc null x\nb disk xxxx\np fifo",
	"f new\tline\x1b x\nf -rf x\nf * x\nl loop loop\nd \xff\nf \xff/\xfe x",
	"f d/d/d/d/d/d/d/d/d/d x\nf A 1\nf a 2\nf a. 3\nf ...\nl n /x",
}

// Large returns a tree with one large file and many of 1000 bytes, for
// benchmarks.
func Large(size int64, files int) []tree.Entry {
	entries := []tree.Entry{tree.NewFile("large", 0o644, text(size))}
	for i := range files {
		entries = append(entries, tree.NewFile(fmt.Sprintf("dir-%02d/file-%06d", i%100, i), 0o644, text(1000)))
	}
	return tree.AddParents(entries)
}

// text returns size bytes, in turns compressible and random.
func text(size int64) string {
	b := make([]byte, size)
	state := uint32(size)
	for i := range b {
		state = state*1664525 + 1013904223
		if i>>13&1 == 0 {
			b[i] = byte(state >> 24)
		} else if i>>12&1 == 0 {
			b[i] = 'x'
		}
	}
	return string(b)
}

// ReadImage returns what read finds in a file, for example the tree of a file
// system. The file stays open until the test ends.
func ReadImage[T any](t testing.TB, name string, read func(io.ReaderAt, int64) (T, error)) T {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	found, err := read(f, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// Read checks that entries which were read from a file system are a tree that
// Linux allows, and reads up to limit bytes of each file. Damaged content is no
// failure.
func Read(t testing.TB, entries []tree.Entry, limit int64) {
	t.Helper()
	if err := tree.Check(entries); err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Size == 0 {
			continue
		}
		content, err := e.Open()
		if err != nil {
			t.Fatalf("%s: %v", e.Path, err)
		}
		_, _ = io.CopyN(io.Discard, content, limit)
		content.Close()
	}
}

// Extract writes a tree to a temporary directory, as root, and returns the
// directory.
func Extract(t testing.TB, entries []tree.Entry) string {
	t.Helper()
	var archive bytes.Buffer
	if err := tree.WriteTar(&archive, entries, time.Unix(0, 0)); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cmd := exec.Command("tar", "--extract", "--directory", dir, "--numeric-owner", "--same-owner", "--same-permissions",
		"--xattrs", "--xattrs-include=*", "--absolute-names")
	cmd.Stdin = &archive
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	return dir
}
