package tree

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	name := strings.Repeat("n", 256)
	for want, e := range map[string]Entry{
		`the name "nnnn`:                              NewDir("a/" + name),
		`has 256 bytes: Linux allows 255`:             NewFile(name, 0o644, ""),
		`"l": the target of a symbolic link is empty`: NewSymlink("l", ""),
		`"l": the target of the symbolic link has 4096 bytes: Linux allows 4095`:  NewSymlink("l", strings.Repeat("a", 4096)),
		`"f": extended attribute "user.nnn`:                                       {Path: "f", Type: File, Xattrs: map[string]string{"user." + name: ""}},
		`"\xff": the path of a file with extended attributes must be valid UTF-8`: {Path: "\xff", Type: File, Xattrs: map[string]string{"user.a": "x"}},
		`"f": extended attribute "user.\xff": invalid name`:                       {Path: "f", Type: File, Xattrs: map[string]string{"user.\xff": "x"}},
		`"f": extended attribute "": invalid name`:                                {Path: "f", Type: File, Xattrs: map[string]string{"": "x"}},
		`"f": extended attribute "user.a" has 65537 bytes: Linux allows 65536`:    {Path: "f", Type: File, Xattrs: map[string]string{"user.a": strings.Repeat("x", 65537)}},
	} {
		if err := Check([]Entry{NewDir("."), e}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Check(%.20q…) = %v, want %q", e.Path, err, want)
		}
	}
	longest := strings.Repeat(strings.Repeat("n", 255)+"/", 15) + strings.Repeat("n", 255)
	ok := []Entry{NewDir("."), NewFile(longest, 0o644, ""), NewSymlink("l", strings.Repeat("a", 4095)),
		{Path: "f", Type: File, Xattrs: map[string]string{"user." + strings.Repeat("n", 250): strings.Repeat("x", 65536)}}}
	if err := Check(ok); err != nil {
		t.Error(err)
	}
}

// layerSection returns an uncompressed layer.
func layerSection(t *testing.T, headers ...tar.Header) *io.SectionReader {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return io.NewSectionReader(bytes.NewReader(b.Bytes()), 0, int64(b.Len()))
}

// A short path can lead to one that Linux cannot have, through symbolic links.
func TestResolvedPathIsLimited(t *testing.T) {
	deep := strings.Repeat("d/", 1500)
	links := []tar.Header{
		{Typeflag: tar.TypeSymlink, Name: "a", Linkname: deep},
		{Typeflag: tar.TypeSymlink, Name: "b", Linkname: "a/" + deep},
	}
	for name, want := range map[string]string{
		"a/file":                                "",
		"b/file":                                "symbolic links lead to a path of 4097 bytes: Linux allows 4095",
		"a/" + strings.Repeat("e/", 547) + "f":  "", // 4,095 bytes
		"a/" + strings.Repeat("e/", 547) + "ff": "symbolic links lead to a path of 4096 bytes: Linux allows 4095",
		"a/" + strings.Repeat("n", 256):         `the name "nnn`,
	} {
		headers := append(links[:2:2], tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644})
		_, err := ReadLayers([]*io.SectionReader{layerSection(t, headers...)})
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%.20q…: %v, want %q", name, err, want)
		}
	}
}

// An archive that is small when it is compressed can describe any number of
// files.
func TestTreeIsBounded(t *testing.T) {
	var headers []tar.Header
	for i := range 20 {
		headers = append(headers, tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("%d/%sfile", i, strings.Repeat("d/", 2000)), Mode: 0o644})
	}
	if _, err := ReadLayers([]*io.SectionReader{layerSection(t, headers...)}); err == nil || !strings.Contains(err.Error(), "more than 32 MiB of paths") {
		t.Error(err)
	}
	many := make([]Entry, maxFiles+1)
	for i := range many {
		many[i] = NewFile(fmt.Sprint(i), 0o644, "")
	}
	if err := Check(many); err == nil || !strings.Contains(err.Error(), "more than 200000 files") {
		t.Errorf("many files: error %v", err)
	}
}
