package tree

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slipway-build/slipway/internal/testutil/need"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestCheckPath(t *testing.T) {
	for path, want := range map[string]string{
		"etc":                      "",
		"usr/bin/a b":              "",
		"..a/b":                    "",
		"":                         "names the root",
		".":                        "names the root",
		"/etc":                     "leading slash",
		"..":                       "out of the root",
		"../etc":                   "out of the root",
		"etc/":                     `write "etc"`,
		"etc/../../x":              `write "../x"`,
		"a//b":                     `write "a/b"`,
		"a\x00b":                   "NUL",
		strings.Repeat("a/", 2048): "4096 bytes: Linux allows 4095",
	} {
		err := CheckPath(path)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("CheckPath(%.20q) = %v, want %q", path, err, want)
		}
	}
}

func TestSortPutsDirectoriesFirst(t *testing.T) {
	paths := []string{"a/b", "a-b", "a", "!", "a/b/c", "."}
	var entries []Entry
	for _, p := range paths {
		entries = append(entries, NewDir(p))
	}
	Sort(entries)
	var got []string
	for _, e := range entries {
		got = append(got, e.Path)
	}
	if want := []string{".", "!", "a", "a-b", "a/b", "a/b/c"}; !slices.Equal(got, want) {
		t.Errorf("sorted: %q, want %q", got, want)
	}
}

// makeTree creates a directory with every type of file. It needs root to create
// devices and to change owners.
func makeTree(t *testing.T) string {
	t.Helper()
	need.Root(t)
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	path := func(name string) string { return filepath.Join(dir, name) }
	must(os.Mkdir(path("d"), 0o755))
	must(os.Chmod(path("d"), 0o750|os.ModeSticky))
	must(os.Lchown(path("d"), 5, 6))
	must(os.WriteFile(path("d/file with blanks, ünï"), []byte("content"), 0o600))
	must(os.WriteFile(path("empty"), nil, 0o644))
	must(os.WriteFile(path("suid"), []byte("#!"), 0o755))
	must(os.Lchown(path("suid"), 70000, 80000))
	must(os.Chmod(path("suid"), 0o755|os.ModeSetuid|os.ModeSetgid))
	must(os.WriteFile(path("d/"+strings.Repeat("long", 40)), []byte("long"), 0o644))
	must(os.Link(path("suid"), path("d/hard")))
	must(os.Symlink("../nowhere", path("link")))
	must(os.Lchown(path("link"), 7, 8))
	must(unix.Mknod(path("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	must(unix.Mknod(path("disk"), unix.S_IFBLK|0o660, int(unix.Mkdev(259, 300))))
	must(unix.Mkfifo(path("fifo"), 0o644))
	must(os.Chmod(path("null"), 0o666))
	must(unix.Lsetxattr(path("empty"), "trusted.test", []byte("va\x00lue"), 0))
	return dir
}

// readAll replaces the functions of entries with values that can be compared.
func readAll(t *testing.T, entries []Entry) map[string]plain {
	t.Helper()
	all := map[string]plain{}
	for _, e := range entries {
		p := plain{Entry: e}
		p.Open = nil
		if e.Size > 0 {
			r, err := e.Open()
			if err != nil {
				t.Fatal(err)
			}
			content, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			r.Close()
			p.Content = string(content)
		}
		for _, other := range entries {
			if e.Inode != 0 && e.Inode == other.Inode {
				p.SameAs = append(p.SameAs, other.Path)
			}
		}
		p.Inode = 0
		all[e.Path] = p
	}
	return all
}

type plain struct {
	Entry
	Content string
	SameAs  []string
}

func TestReadDir(t *testing.T) {
	dir := makeTree(t)
	entries, err := ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	long := "d/" + strings.Repeat("long", 40)
	hard := []string{"d/hard", "suid"}
	want := map[string]plain{
		".":                       {Entry: Entry{Path: ".", Type: Dir, Mode: 0o755}},
		"d":                       {Entry: Entry{Path: "d", Type: Dir, Mode: 0o1750, UID: 5, GID: 6}},
		"disk":                    {Entry: Entry{Path: "disk", Type: Block, Mode: 0o640, Major: 259, Minor: 300}},
		"empty":                   {Entry: Entry{Path: "empty", Type: File, Mode: 0o644, Xattrs: map[string]string{"trusted.test": "va\x00lue"}}},
		"fifo":                    {Entry: Entry{Path: "fifo", Type: FIFO, Mode: 0o644}},
		"link":                    {Entry: Entry{Path: "link", Type: Symlink, Mode: 0o777, UID: 7, GID: 8, Link: "../nowhere"}},
		"null":                    {Entry: Entry{Path: "null", Type: Char, Mode: 0o666, Major: 1, Minor: 3}},
		"suid":                    {Entry: Entry{Path: "suid", Type: File, Mode: 0o6755, UID: 70000, GID: 80000, Size: 2}, Content: "#!", SameAs: hard},
		"d/hard":                  {Entry: Entry{Path: "d/hard", Type: File, Mode: 0o6755, UID: 70000, GID: 80000, Size: 2}, Content: "#!", SameAs: hard},
		long:                      {Entry: Entry{Path: long, Type: File, Mode: 0o644, Size: 4}, Content: "long"},
		"d/file with blanks, ünï": {Entry: Entry{Path: "d/file with blanks, ünï", Type: File, Mode: 0o600, Size: 7}, Content: "content"},
	}
	if diff := cmp.Diff(want, readAll(t, entries)); diff != "" {
		t.Errorf("tree (-want +got):\n%s", diff)
	}
	if !slices.IsSortedFunc(entries, func(a, b Entry) int { return strings.Compare(a.Path, b.Path) }) {
		t.Error("entries are not sorted")
	}
}

func TestReadDirRefusesSocket(t *testing.T) {
	dir := t.TempDir()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: filepath.Join(dir, "s")}); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadDir(dir); err == nil || !strings.Contains(err.Error(), "s is a socket") {
		t.Errorf("error %v", err)
	}
}

// An archive of a directory that GNU tar creates, in each of its formats, must
// read as the same tree as the directory.
func TestReadTarLikeGNU(t *testing.T) {
	dir := makeTree(t)
	fromDir, err := ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := readAll(t, fromDir)
	for _, format := range []string{"gnu", "pax"} {
		t.Run(format, func(t *testing.T) {
			out, err := exec.Command("tar", "-C", dir, "--format="+format, "--xattrs", "--xattrs-include=*", "-c", ".").Output()
			if format == "gnu" {
				out, err = exec.Command("tar", "-C", dir, "--format="+format, "-c", ".").Output()
			}
			if err != nil {
				t.Fatalf("tar: %v", err)
			}
			entries, err := ReadTar(bytes.NewReader(out), int64(len(out)))
			if err != nil {
				t.Fatal(err)
			}
			want := want
			if format == "gnu" {
				want = readAll(t, fromDir)
				empty := want["empty"]
				empty.Xattrs = nil // not in this format
				want["empty"] = empty
			}
			if diff := cmp.Diff(want, readAll(t, entries)); diff != "" {
				t.Errorf("tree (-directory +archive):\n%s", diff)
			}
		})
	}
}

// ReadTar and GNU tar must read the tree that WriteTar wrote.
func TestWriteTar(t *testing.T) {
	entries, err := ReadDir(makeTree(t))
	if err != nil {
		t.Fatal(err)
	}
	want := readAll(t, entries)
	write := func(entries []Entry) []byte {
		var b bytes.Buffer
		if err := WriteTar(&b, entries, time.Unix(315532800, 0)); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	data := write(entries)
	read, err := ReadTar(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, readAll(t, read)); diff != "" {
		t.Errorf("read again (-want +got):\n%s", diff)
	}
	if !bytes.Equal(data, write(read)) {
		t.Error("written again, the archive has other bytes")
	}

	dir := t.TempDir()
	unpack := exec.Command("tar", "-C", dir, "--xattrs", "--xattrs-include=*", "--numeric-owner", "-xp")
	unpack.Stdin = bytes.NewReader(data)
	if out, err := unpack.CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	if entries, err = ReadDir(dir); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, readAll(t, entries)); diff != "" {
		t.Errorf("unpacked (-want +got):\n%s", diff)
	}
	info, err := os.Lstat(filepath.Join(dir, "suid"))
	if err != nil || info.ModTime().Unix() != 315532800 {
		t.Errorf("time %v, %v", info.ModTime(), err)
	}
}

// Other programs must recognize the form of the archive: pax, hard links as links,
// no user names.
func TestWriteTarForm(t *testing.T) {
	xattrs := NewFile("x", 0o644, "")
	xattrs.Xattrs = map[string]string{"user.a": "1", "user.b": "2"}
	var b bytes.Buffer
	if err := WriteTar(&b, []Entry{NewDir("."), NewDir("d"), xattrs, NewFile("y", 0o644, "")}, time.Unix(0, 0)); err != nil {
		t.Fatal(err)
	}
	// One header for each entry, the records of x with their own header, and two
	// blocks of zeros.
	if want := 512 * (4 + 2 + 2); b.Len() != want {
		t.Errorf("%d bytes, want %d", b.Len(), want)
	}
	if records := b.String()[512*3 : 512*4]; !strings.HasPrefix(records, "25 SCHILY.xattr.user.a=1\n25 SCHILY.xattr.user.b=2\n\x00") {
		t.Errorf("pax records %q", strings.TrimRight(records, "\x00"))
	}
	for _, header := range []string{b.String()[:512], b.String()[512:1024]} {
		if strings.Trim(header[265:329], "\x00") != "" {
			t.Errorf("names of users %q", header[265:329])
		}
	}
}

func TestWriteTarErrors(t *testing.T) {
	for content, want := range map[string]string{"ab": "1 bytes shorter than its size", "abcd": "write too long"} {
		e := NewFile("f", 0o644, "abc")
		e.Open = NewFile("f", 0o644, content).Open
		if err := WriteTar(io.Discard, []Entry{e}, time.Unix(0, 0)); err == nil || !strings.Contains(err.Error(), "write tar: f: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%d bytes for 3: error %v", len(content), err)
		}
	}
}

// archive returns a tar archive with headers. The content of a file is its name.
func archive(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(h.Name))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := io.WriteString(w, h.Name); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestReadTarAsUnpacked(t *testing.T) {
	data := archive(t,
		tar.Header{Name: "./lib/modules/a.ko", Typeflag: tar.TypeReg, Mode: 0o644},
		tar.Header{Name: "/lib/modules/b.ko", Typeflag: tar.TypeLink, Linkname: "./lib/modules/a.ko"},
		tar.Header{Name: "lib/modules/a.ko", Typeflag: tar.TypeReg, Mode: 0o600},
		tar.Header{Name: "lib/", Typeflag: tar.TypeDir, Mode: 0o711, Uid: 3},
		tar.Header{Name: "lib", Typeflag: tar.TypeDir, Mode: 0o700, Uid: 4},
		tar.Header{Name: "comment", Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": "c"}},
		tar.Header{Name: "usr/lib", Typeflag: tar.TypeSymlink, Linkname: "/usr/../lib"},
		tar.Header{Name: "usr/lib/x/y", Typeflag: tar.TypeReg},
		tar.Header{Name: "was/a/dir", Typeflag: tar.TypeReg},
		tar.Header{Name: "was", Typeflag: tar.TypeFifo},
	)
	entries, err := ReadTar(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	entries = AddParents(entries)
	want := map[string]plain{
		"lib":         {Entry: Entry{Path: "lib", Type: Dir, Mode: 0o700, UID: 4}},
		"lib/modules": {Entry: NewDir("lib/modules")},
		"lib/modules/a.ko": {Entry: Entry{Path: "lib/modules/a.ko", Type: File, Mode: 0o600, Size: 16},
			Content: "lib/modules/a.ko"},
		"lib/modules/b.ko": {Entry: Entry{Path: "lib/modules/b.ko", Type: File, Mode: 0o644, Size: 18},
			Content: "./lib/modules/a.ko"},
		"usr/lib": {Entry: Entry{Path: "usr/lib", Type: Symlink, Mode: 0o777, Link: "/usr/../lib"}},
		"usr":     {Entry: NewDir("usr")},
		"lib/x/y": {Entry: Entry{Path: "lib/x/y", Type: File, Size: 11}, Content: "usr/lib/x/y"},
		"lib/x":   {Entry: NewDir("lib/x")},
		"was":     {Entry: Entry{Path: "was", Type: FIFO}},
	}
	if diff := cmp.Diff(want, readAll(t, entries)); diff != "" {
		t.Errorf("tree (-want +got):\n%s", diff)
	}
}

func TestReadTarErrors(t *testing.T) {
	reg := func(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeReg} }
	for name, test := range map[string]struct {
		data []byte
		want string
	}{
		"below a file":    {archive(t, reg("a"), reg("a/b")), "a/b: it is below a, which is a file"},
		"below a loop":    {archive(t, tar.Header{Name: "a", Typeflag: tar.TypeSymlink, Linkname: "/a"}, reg("a/b")), "a/b: a: too many symbolic links"},
		"out":             {archive(t, reg("a/../../b")), "leads out of the root"},
		"link out":        {archive(t, tar.Header{Name: "a", Typeflag: tar.TypeLink, Linkname: "../b"}), "a: target of hard link: path \"../b\" leads out of the root"},
		"root":            {archive(t, tar.Header{Name: "./", Typeflag: tar.TypeSymlink, Linkname: "x"}), "the root cannot be a symlink"},
		"owner":           {archive(t, tar.Header{Name: "a", Typeflag: tar.TypeReg, Uid: 1 << 32}), "a: owner or device number 4294967296 is out of range"},
		"link to nothing": {archive(t, tar.Header{Name: "a", Typeflag: tar.TypeLink, Linkname: "b"}), "a: it is a hard link to b, which has no earlier entry"},
		"link to a directory": {archive(t, tar.Header{Name: "d", Typeflag: tar.TypeDir},
			tar.Header{Name: "a", Typeflag: tar.TypeLink, Linkname: "d"}), "a: it is a hard link to d, which is a directory"},
		"truncated":  {archive(t, reg("a"))[:512], "unexpected EOF"},
		"compressed": {[]byte("\x1f\x8b" + strings.Repeat("x", 1022)), "not an uncompressed tar archive, or damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ReadTar(bytes.NewReader(test.data), int64(len(test.data)))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
}

// GNU tar writes both kinds of sparse files.
func TestReadTarRefusesSparse(t *testing.T) {
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(1 << 20); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("end"), 1<<20-3); err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"gnu", "pax"} {
		out, err := exec.Command("tar", "-C", dir, "--sparse", "--format="+format, "-c", "sparse").Output()
		if err != nil {
			t.Fatalf("tar: %v", err)
		}
		if _, err := ReadTar(bytes.NewReader(out), int64(len(out))); err == nil || !strings.Contains(err.Error(), "sparse: it is a sparse file") {
			t.Errorf("%s: error %v", format, err)
		}
	}
}

// FuzzReadTar checks that any tree that is returned can be written: paths are valid
// and unique, parents come first, and contents have the right size.
func FuzzReadTar(f *testing.F) {
	f.Add(archive(f, tar.Header{Name: "./a/b", Typeflag: tar.TypeReg}, tar.Header{Name: "c", Typeflag: tar.TypeLink, Linkname: "a/b"}))
	f.Add(archive(f, tar.Header{Name: "d/", Typeflag: tar.TypeDir}, tar.Header{Name: "s", Typeflag: tar.TypeSymlink, Linkname: "d"}))
	f.Add(archive(f, tar.Header{Name: "n", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}, tar.Header{Name: strings.Repeat("x/", 90) + "y", Typeflag: tar.TypeFifo}))
	f.Add(archive(f, tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o700}, tar.Header{Name: "a", Typeflag: tar.TypeReg}))
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, err := ReadTar(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return
		}
		if len(entries) > 0 && entries[0].Path == "." {
			if entries[0].Type != Dir {
				t.Errorf("the root is a %s", entries[0].Type)
			}
			entries = entries[1:]
		}
		types := map[string]Type{".": Dir}
		for _, e := range AddParents(entries) {
			// Links can make a path longer than any of its parts.
			if err := CheckPath(e.Path); err != nil && !strings.Contains(err.Error(), "the maximum is") {
				t.Error(err)
			}
			if _, ok := types[e.Path]; ok {
				t.Errorf("%q occurs twice", e.Path)
			}
			if types[filepath.Dir(e.Path)] != Dir {
				t.Errorf("%q has no directory before it", e.Path)
			}
			types[e.Path] = e.Type
			if e.Size == 0 {
				continue
			}
			r, err := e.Open()
			if err != nil {
				t.Fatal(err)
			}
			n, err := io.Copy(io.Discard, r)
			if err != nil || n != e.Size {
				t.Errorf("%q: read %d of %d bytes: %v", e.Path, n, e.Size, err)
			}
		}
	})
}
