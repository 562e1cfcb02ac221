package hostile

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"strings"
	"testing"
)

// A file is an entry of a layer. A regular file without content has its name as
// content.
type file struct {
	tar.Header
	content string
	raw     []byte // if set, these bytes take the place of the entry
}

func reg(name, content string) file {
	return file{Header: tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, content: content}
}

func dir(name string) file {
	return file{Header: tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755}}
}

func symlink(name, target string) file {
	return file{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}}
}

func hardlink(name, target string) file {
	return file{Header: tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target, Mode: 0o644}}
}

func special(typeflag byte, name string, mode, major, minor int64) file {
	return file{Header: tar.Header{Typeflag: typeflag, Name: name, Mode: mode, Devmajor: major, Devminor: minor}}
}

func withXattr(f file, name, value string) file {
	f.PAXRecords = map[string]string{"SCHILY.xattr." + name: value}
	return f
}

// archive returns an uncompressed tar archive.
func archive(t testing.TB, files []file) []byte {
	t.Helper()
	var b bytes.Buffer
	for _, f := range files {
		if f.raw != nil {
			b.Write(f.raw)
			continue
		}
		w := tar.NewWriter(&b)
		f.Header.Size = int64(len(f.content))
		f.Header.Format = tar.FormatPAX
		if f.Typeflag == tar.TypeXGlobalHeader {
			f.Header = tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: f.PAXRecords}
		}
		if err := w.WriteHeader(&f.Header); err != nil {
			t.Fatalf("%q: %v", f.Name, err)
		}
		if _, err := io.WriteString(w, f.content); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	b.Write(make([]byte, 1024))
	return b.Bytes()
}

func compress(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// rawHeader returns a header in the ustar format with any type and size, with
// the right checksum.
func rawHeader(name string, typeflag byte, size int64) []byte {
	h := make([]byte, 512)
	copy(h, name)
	copy(h[100:], "0000644\x000000000\x000000000\x00")
	copy(h[124:], fmt.Sprintf("%011o\x00%011o\x00        ", size, 0))
	h[156] = typeflag
	copy(h[257:], "ustar\x0000")
	sum := 0
	for _, c := range h {
		sum += int(c)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	return h
}

// record returns a record of a pax header (POSIX.1-2017, pax Extended Header).
func record(key, value string) string {
	size := len(key) + len(value) + 3
	for n := 0; n != size; {
		n = size
		size = len(key) + len(value) + 3 + len(fmt.Sprint(n))
	}
	return fmt.Sprintf("%d %s=%s\n", size, key, value)
}

// pax returns a raw pax header with records, which archive/tar does not write.
func pax(records string) []byte {
	b := append(rawHeader("pax", 'x', int64(len(records))), records...)
	return append(b, make([]byte, -len(b)&511)...)
}

// unboundedSparseMap is a file in GNU's sparse format 1.0 whose map has many
// entries (CVE-2025-58183).
func unboundedSparseMap() []byte {
	const entries = 4 << 20
	sparse := fmt.Sprintln(entries) + strings.Repeat("0\n0\n", entries)
	b := pax(record("GNU.sparse.major", "1") + record("GNU.sparse.minor", "0") +
		record("GNU.sparse.name", "sparse") + record("GNU.sparse.realsize", "0"))
	b = append(b, rawHeader("sparse", '0', int64(len(sparse)))...)
	b = append(b, sparse...)
	return append(b, make([]byte, -len(b)&511)...)
}
