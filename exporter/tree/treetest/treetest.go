// Package treetest helps tests that deal with trees.
package treetest

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/exporter/tree"
)

// Dump lists entries, one a line: type, mode, owner, path, then what belongs to
// the type: target, device number or content. Other names of the same file
// follow, and extended attributes.
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

// Tar makes a tar archive. A regular file without a size has its name as
// content; others have as many times x.
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
