package tree_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/slipway-build/slipway/internal/testutil/need"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/slipway-build/slipway/exporter/tree"
	"github.com/slipway-build/slipway/internal/testutil/treetest"
)

// Short forms of headers. The content of a file is its name.

func file(name string) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}
}

func dir(name string, mode int64) tar.Header {
	return tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode}
}

func symlink(name, target string) tar.Header {
	return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}
}

func link(name, target string) tar.Header {
	// The attributes in the headers of links are ignored.
	return tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target, Mode: 0o600, Uid: 9}
}

func readLayers(t testing.TB, layers ...[]tar.Header) ([]tree.Entry, error) {
	var sections []*io.SectionReader
	for _, headers := range layers {
		data := treetest.Tar(t, headers...)
		sections = append(sections, io.NewSectionReader(bytes.NewReader(data), 0, int64(len(data))))
	}
	return tree.ReadLayers(sections)
}

func TestReadLayers(t *testing.T) {
	long := strings.Repeat("long", 60)
	for name, test := range map[string]struct {
		layers [][]tar.Header
		want   string // without the root if that is 0755 root
	}{
		"no layers":   {},
		"empty layer": {layers: [][]tar.Header{{}}},
		"whiteouts": {
			layers: [][]tar.Header{
				{dir("d", 0o700), file("d/a"), file("d/b"), dir("d/e", 0o700), file("d/e/f"), file("g")},
				{file("d/.wh.a"), file("d/.wh.e"), file(".wh.g"), file(".wh.missing"), file("no/.wh.x"), file("g/.wh.x")},
			},
			want: "dir     0700 0:0 d\nfile    0644 0:0 d/b \"d/b\"\ndir     0755 0:0 g\ndir     0755 0:0 no\n",
		},
		"whiteouts below a symlink": {
			layers: [][]tar.Header{{dir("d", 0o700), file("d/a"), symlink("l", "d")}, {file("l/.wh.a"), file("m/n/.wh.x")}},
			want:   "dir     0700 0:0 d\nfile    0644 0:0 d/a \"d/a\"\ndir     0700 0:0 l\ndir     0755 0:0 m\ndir     0755 0:0 m/n\n",
		},
		"whiteouts hide nothing of their own layer": {
			layers: [][]tar.Header{
				{dir("d", 0o700), file("d/a"), file("x")},
				{dir("d", 0o711), file("d/b"), file("./x"), file(".wh.d"), file(".wh.x")},
			},
			want: "dir     0711 0:0 d\nfile    0644 0:0 d/b \"d/b\"\nfile    0644 0:0 x \"./x\"\n",
		},
		"made again": {
			layers: [][]tar.Header{
				{dir("d", 0o700), file("d/a"), dir("e", 0o700), file("e/a")},
				{file(".wh.d"), dir("d", 0o711), file("d/b"), file(".wh.e")},
				{file("e/b")},
			},
			want: "dir     0711 0:0 d\nfile    0644 0:0 d/b \"d/b\"\ndir     0755 0:0 e\nfile    0644 0:0 e/b \"e/b\"\n",
		},
		"opaque first": {
			layers: [][]tar.Header{
				{dir("d", 0o700), file("d/a"), dir("d/e", 0o700), file("d/e/f")},
				{file("d/.wh..wh..opq"), file("d/b"), file("d/e/g")},
			},
			want: "dir     0700 0:0 d\nfile    0644 0:0 d/b \"d/b\"\ndir     0755 0:0 d/e\nfile    0644 0:0 d/e/g \"d/e/g\"\n",
		},
		"opaque last": {
			layers: [][]tar.Header{
				{dir("d", 0o700), file("d/a"), dir("d/e", 0o700), file("d/e/f")},
				{file("d/b"), file("d/e/g"), file("d/.wh..wh..opq")},
			},
			want: "dir     0700 0:0 d\nfile    0644 0:0 d/b \"d/b\"\ndir     0755 0:0 d/e\nfile    0644 0:0 d/e/g \"d/e/g\"\n",
		},
		"opaque root": {
			layers: [][]tar.Header{{dir(".", 0o711), file("a")}, {file("b"), file(".wh..wh..opq")}},
			want:   "dir     0711 0:0 .\nfile    0644 0:0 b \"b\"\n",
		},
		"opaque nothing": {
			layers: [][]tar.Header{{file("a")}, {file("b/.wh..wh..opq"), file("a/.wh..wh..opq")}},
			want:   "dir     0755 0:0 a\ndir     0755 0:0 b\n",
		},
		"types change": {
			layers: [][]tar.Header{
				{file("d-f/x"), file("f-d"), symlink("l-d", "d-f"), dir("d-l", 0o700), file("d-l/x")},
				{file("d-f"), dir("f-d", 0o711), dir("l-d", 0o711), symlink("d-l", "l-d")},
			},
			want: "file    0644 0:0 d-f \"d-f\"\nsymlink 0777 0:0 d-l -> l-d\ndir     0711 0:0 f-d\ndir     0711 0:0 l-d\n",
		},
		"hard links": {
			layers: [][]tar.Header{
				{
					{Typeflag: tar.TypeReg, Name: "a", Mode: 0o755, Uid: 3}, link("b", "a"), link("c", "./b"),
					file("r"), link("s", "/r"), file("t"), link("u", "t"), link("same", "same/../t"), link("t", "t"),
				},
				{file("./a"), file(".wh.r"), dir("t", 0o755), link("d", "c")},
			},
			want: "file    0644 0:0 a \"./a\"\n" +
				"file    0755 3:0 b \"a\" = c = d\nfile    0755 3:0 c \"a\" = b = d\nfile    0755 3:0 d \"a\" = b = c\n" +
				"file    0644 0:0 s \"r\"\n" +
				"file    0644 0:0 same \"t\" = u\ndir     0755 0:0 t\nfile    0644 0:0 u \"t\" = same\n",
		},
		"hard links of other types": {
			layers: [][]tar.Header{{
				symlink("l", "x"), link("m", "l"),
				{Typeflag: tar.TypeChar, Name: "null", Mode: 0o666, Devmajor: 1, Devminor: 3}, link("zero", "null"),
			}},
			want: "symlink 0777 0:0 l -> x = m\nsymlink 0777 0:0 m -> x = l\n" +
				"char    0666 0:0 null 1,3 = zero\nchar    0666 0:0 zero 1,3 = null\n",
		},
		"names": {
			layers: [][]tar.Header{{file("./a/./b"), file("/c//d"), file("e/../f"), file("../g/../h"[3:]), file(long)}},
			want: "dir     0755 0:0 a\nfile    0644 0:0 a/b \"./a/./b\"\ndir     0755 0:0 c\nfile    0644 0:0 c/d \"/c//d\"\n" +
				"file    0644 0:0 f \"e/../f\"\nfile    0644 0:0 h \"g/../h\"\nfile    0644 0:0 " + long + " \"" + long + "\"\n",
		},
		"through symlinks of the same layer": {
			layers: [][]tar.Header{{
				dir("usr", 0o755), dir("usr/lib", 0o711), symlink("lib", "usr/lib"), symlink("usr/up", "../../../x"), symlink("abs", "/usr"),
				file("lib/so"), file("usr/up/y"), link("abs/lib/link", "lib/so"),
			}},
			want: "symlink 0777 0:0 abs -> /usr\nsymlink 0777 0:0 lib -> usr/lib\ndir     0755 0:0 usr\ndir     0711 0:0 usr/lib\n" +
				"file    0644 0:0 usr/lib/link \"lib/so\" = usr/lib/so\nfile    0644 0:0 usr/lib/so \"lib/so\" = usr/lib/link\n" +
				"symlink 0777 0:0 usr/up -> ../../../x\ndir     0755 0:0 x\nfile    0644 0:0 x/y \"usr/up/y\"\n",
		},
		"below files of a lower layer": {
			layers: [][]tar.Header{
				{dir("usr", 0o755), dir("usr/lib", 0o711), symlink("lib", "usr/lib"), symlink("dangling", "no"), symlink("up", "../.."), file("file"), file("usr/lib/old")},
				{file("lib/so"), file("dangling/a/b"), file("up/c"), file("file/d"), symlink("same", "lib"), file("same/e")},
			},
			want: "dir     0755 0:0 dangling\ndir     0755 0:0 dangling/a\nfile    0644 0:0 dangling/a/b \"dangling/a/b\"\n" +
				"dir     0755 0:0 file\nfile    0644 0:0 file/d \"file/d\"\n" +
				"dir     0711 0:0 lib\nfile    0644 0:0 lib/e \"same/e\"\nfile    0644 0:0 lib/so \"lib/so\"\nsymlink 0777 0:0 same -> lib\n" +
				"dir     0755 0:0 up\nfile    0644 0:0 up/c \"up/c\"\n" +
				"dir     0755 0:0 usr\ndir     0711 0:0 usr/lib\nfile    0644 0:0 usr/lib/old \"usr/lib/old\"\n",
		},
		"attributes": {
			layers: [][]tar.Header{
				{
					{Typeflag: tar.TypeReg, Name: "su", Mode: 0o104755, Uid: 1 << 22, Gid: 4294967294, PAXRecords: map[string]string{
						"SCHILY.xattr.security.capability": "\x01\x00\n=", "SCHILY.xattr.user.empty": "", "comment": "none"}},
					{Typeflag: tar.TypeDir, Name: "d", Mode: 0o1777, PAXRecords: map[string]string{"SCHILY.xattr.user.a": "1"}},
					{Typeflag: tar.TypeReg, Name: "gnu", Mode: 0o600, Uid: 1 << 22, Format: tar.FormatGNU},
					{Typeflag: tar.TypeBlock, Name: "vda", Mode: 0o660, Devmajor: 259, Devminor: 300},
					{Typeflag: tar.TypeFifo, Name: "fifo", Mode: 0o600},
				},
				{{Typeflag: tar.TypeDir, Name: "d", Mode: 0o755, PAXRecords: map[string]string{"SCHILY.xattr.user.b": "2"}}},
			},
			want: "dir     0755 0:0 d user.b=\"2\"\nfifo    0600 0:0 fifo\nfile    0600 4194304:0 gnu \"gnu\"\n" +
				"file    4755 4194304:4294967294 su \"su\" security.capability=\"\\x01\\x00\\n=\" user.empty=\"\"\n" +
				"block   0660 0:0 vda 259,300\n",
		},
		"global header": {
			layers: [][]tar.Header{{{Typeflag: tar.TypeXGlobalHeader, Name: "../g", PAXRecords: map[string]string{"comment": "x"}}, file("a")}},
			want:   "file    0644 0:0 a \"a\"\n",
		},
		"AUFS": {
			layers: [][]tar.Header{{dir(".wh..wh.plnk", 0o700), file(".wh..wh.plnk/1.2"), file(".wh..wh.aufs"), file("a")}},
			want:   "file    0644 0:0 a \"a\"\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			entries, err := readLayers(t, test.layers...)
			if err != nil {
				t.Fatal(err)
			}
			got := strings.TrimPrefix(treetest.Dump(t, entries), "dir     0755 0:0 .\n")
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("tree (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReadLayersErrors(t *testing.T) {
	for want, headers := range map[string][]tar.Header{
		`layer 2 of 2: path "../a" leads out of the root`:                         {file("x/../../a")},
		"layer 2 of 2: a/b: it is below a, which is a file":                       {file("a"), file("a/b")},
		"layer 2 of 2: a/b: a: too many symbolic links":                           {symlink("a", "c"), symlink("c", "a"), file("a/b")},
		"layer 2 of 2: .wh.: a whiteout must name a file":                         {file(".wh.")},
		"layer 2 of 2: d/.wh...: a whiteout must name a file":                     {file("d/.wh...")},
		"layer 2 of 2: d/.wh.x/y: it is below a whiteout":                         {file("d/.wh.x/y")},
		"layer 2 of 2: a: it is a hard link to b, which has no earlier entry":     {link("a", "b")},
		"layer 2 of 2: a: target of hard link: d/b: file does not exist":          {link("a", "d/b/c")},
		`layer 2 of 2: a: target of hard link: path "../b" leads out of the root`: {link("a", "../b")},
		"layer 2 of 2: a: it is a hard link to d, which is a directory":           {dir("d", 0o755), link("a", "d")},
		"layer 2 of 2: a: it is a hard link to ., which is a directory":           {link("a", ".")},
		"layer 2 of 2: .: the root cannot be a file":                              {file(".")},
		"layer 2 of 2: a: type '7' is not supported in a root filesystem":         {{Typeflag: tar.TypeCont, Name: "a"}},
		"layer 2 of 2: a: owner or device number 4294967296 is out of range":      {{Typeflag: tar.TypeReg, Name: "a", Uid: 1 << 32}},
	} {
		_, err := readLayers(t, []tar.Header{dir("d", 0o755)}, headers)
		if err == nil || err.Error() != want {
			t.Errorf("error %v\nwant  %s", err, want)
		}
	}
}

// The first bytes of a layer show its compression. Open spool files have no names.
func TestOpenLayers(t *testing.T) {
	archive := treetest.Tar(t, file("a"), tar.Header{Typeflag: tar.TypeReg, Name: "b", Size: 1 << 20})
	compress := func(w io.WriteCloser, data []byte) {
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	var gz, members, zst, skippable bytes.Buffer
	compress(gzip.NewWriter(&gz), archive)
	compress(gzip.NewWriter(&members), archive[:1000])
	compress(gzip.NewWriter(&members), archive[1000:])
	encoder, err := zstd.NewWriter(&zst)
	if err != nil {
		t.Fatal(err)
	}
	compress(encoder, archive)
	// zstd:chunked starts and ends with these frames.
	frame := "\x50\x2a\x4d\x18\x04\x00\x00\x00skip"
	skippable.WriteString(frame + zst.String() + frame)

	src, spool := t.TempDir(), t.TempDir()
	var names []string
	for i, data := range [][]byte{archive, gz.Bytes(), members.Bytes(), zst.Bytes(), skippable.Bytes(), {}} {
		name := filepath.Join(src, fmt.Sprint(i))
		if err := os.WriteFile(name, data, 0o644); err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	for i, name := range names {
		layers, close, err := tree.OpenLayers([]string{name}, spool)
		if err != nil {
			t.Fatal(err)
		}
		if spooled, err := os.ReadDir(spool); err != nil || len(spooled) > 0 {
			t.Errorf("%d: spool has %v, %v", i, spooled, err)
		}
		entries, err := tree.ReadLayers(layers)
		if err != nil {
			t.Fatal(err)
		}
		want := "dir     0755 0:0 .\nfile    0644 0:0 a \"a\"\nfile    0000 0:0 b \"" + strings.Repeat("x", 1<<20) + "\"\n"
		if name == names[5] {
			want = "dir     0755 0:0 .\n"
		}
		if got := treetest.Dump(t, entries); got != want {
			t.Errorf("%d: tree\n%.200s", i, got)
		}
		close()
	}
}

func TestOpenLayersErrors(t *testing.T) {
	dir := t.TempDir()
	var gz bytes.Buffer
	w := gzip.NewWriter(&gz)
	w.Write(treetest.Tar(t, file("a")))
	w.Close()
	for want, data := range map[string][]byte{
		"layer 1 of 1: blob: the compression of the layer is not supported: use an uncompressed tar archive, gzip or zstd": []byte("\xfd7zXZ\x00..."),
		"layer 1 of 1: decompress blob: unexpected EOF":                                                                    gz.Bytes()[:gz.Len()-9],
		"layer 1 of 1: decompress blob: gzip: invalid checksum":                                                            append(gz.Bytes()[:gz.Len()-8:gz.Len()-8], 1, 2, 3, 4, 5, 6, 7, 8),
		"layer 1 of 1: blob: gzip: invalid header":                                                                         []byte("\x1f\x8b\x07 and more"),
		"layer 1 of 1: decompress blob: unexpected EOF\n":                                                                  []byte("\x28\xb5\x2f\xfd\x04"),
		"layer 1 of 1: decompress blob: window size exceeded":                                                              []byte("\x28\xb5\x2f\xfd\x00\x90\x01\x00\x00"), // 256 MiB
		"layer 1 of 1: not an uncompressed tar archive, or damaged: archive/tar: invalid tar header":                       bytes.Repeat([]byte("{}  "), 200),
		"layer 1 of 1: not an uncompressed tar archive, or damaged: unexpected EOF":                                        []byte("{}"),
	} {
		name := filepath.Join(dir, "blob")
		if err := os.WriteFile(name, data, 0o644); err != nil {
			t.Fatal(err)
		}
		layers, _, err := tree.OpenLayers([]string{name}, dir)
		if err == nil {
			_, err = tree.ReadLayers(layers)
		}
		if err == nil || err.Error() != strings.TrimSuffix(want, "\n") {
			t.Errorf("error %v\nwant  %s", err, want)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	}
	if _, _, err := tree.OpenLayers([]string{filepath.Join(dir, "none")}, dir); err == nil || !strings.Contains(err.Error(), "none: no such file") {
		t.Errorf("error %v", err)
	}
}

// zstd --ultra -22 uses a window of 128 MiB.
func TestOpenLayersLongWindow(t *testing.T) {
	need.Program(t, "zstd", "zstd")
	name := filepath.Join(t.TempDir(), "layer")
	cmd := exec.Command("zstd", "-q", "-1", "--long=27", "-o", name)
	cmd.Stdin = bytes.NewReader(treetest.Tar(t, tar.Header{Typeflag: tar.TypeReg, Name: "a", Size: 1 << 20}))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	_, close, err := tree.OpenLayers([]string{name}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	close()
}

// FuzzReadLayers checks that any tree that is returned can be written: it has a
// root, paths are valid and unique, directories come before their children,
// contents have the right size, and there are no whiteouts. FuzzReadTar has the
// archives.
func FuzzReadLayers(f *testing.F) {
	for _, script := range []string{
		"d d\nf d/a\nh b d/a\n-\nf d/.wh..wh..opq\nf d/c\nf .wh.b",
		"l l /d\nf d/a\n-\nf l/b\nf l/.wh.a\nd l",
		"f a\nh b a\nh c b\n-\nd a\nf b/x\n-\nf a\nf c/.wh.d",
		"d .\nl a ../../b\nl b .\nf a/b/a/c\nf .wh..wh.aufs/x\nh z b/c",
	} {
		f.Add(script)
	}
	types := map[string]byte{"f": tar.TypeReg, "d": tar.TypeDir, "l": tar.TypeSymlink, "h": tar.TypeLink}
	f.Fuzz(func(t *testing.T, script string) {
		var sections []*io.SectionReader
		for _, layer := range strings.Split(script, "\n-\n") {
			var b bytes.Buffer
			w := tar.NewWriter(&b)
			for line := range strings.Lines(layer) {
				kind, name, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
				name, target, _ := strings.Cut(name, " ")
				hdr := tar.Header{Typeflag: types[kind], Name: name, Linkname: target, Mode: 0o600}
				if kind == "f" {
					hdr.Size = int64(len(name))
				}
				if types[kind] == 0 || w.WriteHeader(&hdr) != nil {
					return
				}
				if _, err := io.WriteString(w, name[:hdr.Size]); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			sections = append(sections, io.NewSectionReader(bytes.NewReader(b.Bytes()), 0, int64(b.Len())))
		}
		entries, err := tree.ReadLayers(sections)
		if err != nil {
			return
		}
		if len(entries) == 0 || entries[0].Path != "." || entries[0].Type != tree.Dir {
			t.Fatal("no root")
		}
		types := map[string]tree.Type{".": tree.Dir}
		files := map[uint64]tree.Entry{}
		for _, e := range entries[1:] {
			if err := tree.CheckPath(e.Path); err != nil {
				// Links can make a path longer than any of its parts.
				if !strings.Contains(err.Error(), "the maximum is") {
					t.Error(err)
				}
			}
			if _, ok := types[e.Path]; ok {
				t.Errorf("%q occurs twice", e.Path)
			}
			if types[filepath.Dir(e.Path)] != tree.Dir {
				t.Errorf("%q has no directory before it", e.Path)
			}
			if strings.HasPrefix(filepath.Base(e.Path), ".wh.") && e.Type != tree.Dir {
				t.Errorf("whiteout %q is left", e.Path)
			}
			types[e.Path] = e.Type
			treetest.Content(t, e)
			if first, ok := files[e.Inode]; ok && e.Inode != 0 && (first.Size != e.Size || first.Type != e.Type || first.Mode != e.Mode) {
				t.Errorf("%q and %q are links, but differ", first.Path, e.Path)
			}
			files[e.Inode] = e
		}
		if err := tree.WriteTar(io.Discard, entries, time.Unix(0, 0)); err != nil && !strings.Contains(err.Error(), "cannot encode header") {
			t.Error(err)
		}
	})
}
