package segment

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/internal/testutil/need"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-build/slipway/exporter/tree"
	"github.com/slipway-build/slipway/internal/contract"
	"github.com/slipway-build/slipway/internal/testutil/treetest"
)

// files creates a directory with files.
func files(t testing.TB, contents map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range contents {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func read(t *testing.T, parts ...string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(parts...))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestKernel(t *testing.T) {
	need.Program(t, "cpio", "cpio")
	image := files(t, map[string]string{
		"boot/vmlinuz": "bzImage",
		"ucode.cpio":   "ucode",
		"modules.tar": string(treetest.Tar(t,
			tar.Header{Name: "./lib/modules/6.1/", Typeflag: tar.TypeDir, Mode: 0o755},
			tar.Header{Name: "./lib/modules/6.1/ena.ko", Typeflag: tar.TypeReg, Mode: 0o644})),
	})
	out := t.TempDir()
	if err := packer(t, "none", out).Kernel(Rootfs{Dir: image}, "boot/vmlinuz", "modules.tar", "ucode.cpio"); err != nil {
		t.Fatal(err)
	}
	if got := read(t, out, KernelName) + read(t, out, UcodeName); got != "bzImageucode" {
		t.Errorf("kernel and microcode %q", got)
	}
	modules := t.TempDir()
	unpack(t, []byte(read(t, out, FileName)), modules)
	if _, err := os.Stat(filepath.Join(modules, "lib/modules/6.1/ena.ko")); err != nil {
		t.Error(err)
	}
}

// A kernel image can be layers, with links to its files. Permissions are kept.
func TestKernelOfLayers(t *testing.T) {
	modules := treetest.Tar(t, tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o700, Uid: 1000}, tar.Header{Name: "lib/modules/a.ko", Typeflag: tar.TypeReg, Mode: 0o644})
	var layers []string
	for _, headers := range [][]tar.Header{
		{
			{Name: "boot/vmlinuz-6", Typeflag: tar.TypeReg, Mode: 0o644, Size: 10},
			{Name: "kernel", Typeflag: tar.TypeSymlink, Linkname: "/boot/vmlinuz"},
			{Name: "ucode", Typeflag: tar.TypeReg, Mode: 0o440},
			{Name: "old.tar", Typeflag: tar.TypeReg},
		},
		{
			{Name: "boot/vmlinuz-6", Typeflag: tar.TypeReg, Mode: 0o600, Size: 20},
			{Name: "boot/vmlinuz", Typeflag: tar.TypeSymlink, Linkname: "vmlinuz-6"},
			{Name: ".wh.old.tar", Typeflag: tar.TypeReg},
		},
	} {
		layers = append(layers, filepath.Join(files(t, map[string]string{"layer": string(treetest.Tar(t, headers...))}), "layer"))
	}
	var last bytes.Buffer
	w := tar.NewWriter(&last)
	if err := errors.Join(w.WriteHeader(&tar.Header{Name: "kernel.tar", Typeflag: tar.TypeReg, Size: int64(len(modules))}), second(w.Write(modules)), w.Close()); err != nil {
		t.Fatal(err)
	}
	layers = append(layers, filepath.Join(files(t, map[string]string{"layer": last.String()}), "layer"))

	out := t.TempDir()
	p := packer(t, "none", out)
	p.Archive = Tar
	if err := p.Kernel(Rootfs{Layers: layers}, "kernel", "kernel.tar", "ucode"); err != nil {
		t.Fatal(err)
	}
	if got, want := read(t, out, KernelName)+read(t, out, UcodeName), strings.Repeat("x", 20)+"ucode"; got != want {
		t.Errorf("kernel and microcode %q, want %q", got, want)
	}
	for name, want := range map[string]os.FileMode{KernelName: 0o600, UcodeName: 0o440} {
		if info, err := os.Stat(filepath.Join(out, name)); err != nil || info.Mode() != want {
			t.Errorf("%s: mode %v, %v, want %v", name, info.Mode(), err, want)
		}
	}
	segment := read(t, out, FileName)
	entries, err := tree.ReadTar(strings.NewReader(segment), int64(len(segment)))
	if err != nil {
		t.Fatal(err)
	}
	want := "dir     0755 0:0 lib\ndir     0755 0:0 lib/modules\nfile    0644 0:0 lib/modules/a.ko \"lib/modules/a.ko\"\n"
	if got := treetest.Dump(t, entries); got != want {
		t.Errorf("segment\n%swant\n%s", got, want)
	}
	if err := p.Kernel(Rootfs{Layers: layers}, "kernel", "old.tar", ""); err == nil || !strings.Contains(err.Error(), `no file "old.tar"; it contains boot/vmlinuz, boot/vmlinuz-6, kernel, kernel.tar, ucode;`) {
		t.Errorf("error %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

// Without an archive there is no segment. Missing microcode is skipped.
func TestKernelAlone(t *testing.T) {
	out := t.TempDir()
	if err := packer(t, "zstd", out).Kernel(Rootfs{Dir: files(t, map[string]string{"kernel": "bzImage"})}, "kernel", "", "ucode.cpio"); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(out)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 || entries[0].Name() != KernelName {
		t.Errorf("files %v, want the kernel alone", entries)
	}
}

func TestKernelErrors(t *testing.T) {
	image := files(t, map[string]string{"boot/vmlinuz": "x", "kernel.tar": "no archive"})
	many := map[string]string{}
	for _, c := range "abcdefghijklm" {
		many[string(c)] = ""
	}
	for name, test := range map[string]struct{ image, binary, tar, want string }{
		"no kernel": {image, "kernel", "", `kernel image has no file "kernel"; it contains boot/vmlinuz, kernel.tar; set kernel.binary to the kernel's path`},
		"directory": {image, "boot", "", `kernel image has no file "boot"`},
		"no tar":    {image, "boot/vmlinuz", "modules.tar", `kernel image has no file "modules.tar"; it contains boot/vmlinuz, kernel.tar; set kernel.tar to the path of the archive with the modules, or to none`},
		"bad tar":   {image, "boot/vmlinuz", "kernel.tar", "kernel image: kernel.tar: read tar: "},
		"many":      {files(t, many), "kernel", "", "it contains a, b, c, d, e, f, g, h, i, j and 3 more; set"},
		"none":      {t.TempDir(), "kernel", "", "it contains no files; set"},
		"outside":   {image, "../kernel", "", `kernel image has no file "../kernel"`},
	} {
		t.Run(name, func(t *testing.T) {
			err := packer(t, "none", t.TempDir()).Kernel(Rootfs{Dir: test.image}, test.binary, test.tar, "")
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error: %v\nwant:  %s", err, test.want)
			}
		})
	}
}

func entriesOf(t *testing.T, spec, source string) (string, error) {
	t.Helper()
	dir := files(t, map[string]string{"spec.json": spec})
	out := t.TempDir()
	err := packer(t, "none", out).Entries(filepath.Join(dir, "spec.json"), source)
	if err != nil {
		return "", err
	}
	return read(t, out, FileName), nil
}

func TestEntries(t *testing.T) {
	need.Program(t, "cpio", "cpio")
	need.Root(t)
	source := files(t, map[string]string{"conf/app": "from source"})
	segment, err := entriesOf(t, `[
		{"path": "etc", "type": "dir", "mode": 493, "uid": 0, "gid": 0},
		{"path": "etc/app", "type": "dir", "mode": 1517, "uid": 1, "gid": 2},
		{"path": "etc", "type": "dir", "mode": 448},
		{"path": "etc/app/b", "type": "file", "mode": 384, "uid": 3, "gid": 4, "contents": "AAFi"},
		{"path": "etc/app/a", "type": "file", "mode": 2541, "source": "./conf/app"},
		{"path": "etc/empty", "type": "file", "mode": 420, "contents": ""},
		{"path": "etc/link", "type": "symlink", "link": "../x y", "uid": 5}
	]`, source)
	if err != nil {
		t.Fatal(err)
	}
	// The archive has the order of the spec.
	if strings.Index(segment, "etc/app/b") > strings.Index(segment, "etc/app/a") {
		t.Error("entries were sorted")
	}
	dir := t.TempDir()
	unpack(t, []byte(segment), dir)
	got, err := tree.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := `dir     0755 0:0 etc
dir     2755 1:2 etc/app
file    4755 0:0 etc/app/a "from source"
file    0600 3:4 etc/app/b "\x00\x01b"
file    0644 0:0 etc/empty ""
symlink 0777 5:0 etc/link -> ../x y
`
	if got := treetest.Dump(t, got[1:]); got != want {
		t.Errorf("unpacked:\n%swant:\n%s", got, want)
	}
}

func TestEntriesErrors(t *testing.T) {
	source := files(t, map[string]string{"dir/file": ""})
	for spec, want := range map[string]string{
		`{}`:      "not an array",
		``:        "read entries: EOF",
		`[{}, 1]`: "entry : ",
		`[`:       "read entries: EOF",
		`[] []`:   "unexpected data after the array",
		`null 1`:  "unexpected data after the array",
		`[{"path": "a", "type": "file", "mod": 1}]`:                                       `unknown field "mod"`,
		`[{"path": "/a", "type": "dir"}]`:                                                 "remove the leading slash",
		`[{"path": "a", "type": "device"}]`:                                               `entry a: unknown type "device": use file, dir or symlink`,
		`[{"path": "a", "type": "file", "mode": 65535}]`:                                  "mode 0177777 has bits beyond 07777",
		`[{"path": "a", "type": "dir", "contents": "YQ=="}]`:                              "a dir has no contents",
		`[{"path": "a", "type": "symlink"}]`:                                              "a symlink needs a link",
		`[{"path": "a", "type": "file"}, {"path": "a", "type": "file"}]`:                  "entry a: the path occurs twice, as file and as file",
		`[{"path": "a", "type": "dir"}, {"path": "a", "type": "file"}]`:                   "entry a: the path occurs twice, as dir and as file",
		`[{"path": "a", "type": "symlink", "link": "b"}, {"path": "a/b", "type": "dir"}]`: "entry a/b: a is a symlink",
		`[{"path": "a", "type": "file", "source": "x", "contents": "YQ=="}]`:              "use either contents or source",
		`[{"path": "a", "type": "file", "source": "none"}]`:                               "entry a: source: ",
		`[{"path": "a", "type": "file", "source": "dir"}]`:                                "source dir is not a regular file",
		`[{"path": "a", "type": "file", "source": "../dir/file"}]`:                        "path escapes from parent",
	} {
		if _, err := entriesOf(t, spec, source); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", spec, err, want)
		}
	}
	if _, err := entriesOf(t, `[{"path": "a", "type": "file", "source": "x"}]`, ""); err == nil || !strings.Contains(err.Error(), "there is no source directory") {
		t.Errorf("without source directory: error %v", err)
	}
}

// A compressed spec makes the same segment.
func TestCompressSpec(t *testing.T) {
	spec := []byte(`[{"path": "etc", "type": "dir", "mode": 493}, {"path": "etc/a", "type": "file", "mode": 420, "contents": "YQ=="}]`)
	compressed, err := CompressSpec(spec)
	if err != nil {
		t.Fatal(err)
	}
	want, err := entriesOf(t, string(spec), "")
	if err != nil {
		t.Fatal(err)
	}
	got, err := entriesOf(t, string(compressed), "")
	if err != nil || got != want {
		t.Errorf("error %v, entries\n%s", err, got)
	}
	if _, err := entriesOf(t, string(compressed[:len(compressed)-4]), ""); err == nil {
		t.Error("no error for a truncated spec")
	}
}

// FuzzReadSpec checks that entries without an error are unique and can be written.
func FuzzReadSpec(f *testing.F) {
	f.Add(`[{"path":"etc","type":"dir","mode":493},{"path":"etc/a","type":"file","mode":420,"contents":"YQ=="},{"path":"l","type":"symlink","link":"etc"}]`)
	f.Add(`[{"path":"a","type":"file","source":"b"}]`)
	f.Fuzz(func(t *testing.T, spec string) {
		entries, err := ReadSpec(strings.NewReader(spec), nil)
		if err != nil {
			return
		}
		err = Write(io.Discard, entries, Compression{Algorithm: "none"})
		// An archive cannot contain a file with the name of its trailer.
		if err != nil && !strings.Contains(err.Error(), `the name "TRAILER!!!"`) {
			t.Fatalf("valid, but not written: %v", err)
		}
		seen := map[string]bool{}
		for _, e := range entries {
			if seen[e.Path] {
				t.Errorf("%q occurs twice", e.Path)
			}
			seen[e.Path] = true
		}
	})
}

// segmentDir creates the directory of a segment with one file.
func segmentDir(t *testing.T, c, path, content, database string) Dir {
	t.Helper()
	dir := t.TempDir()
	if err := packer(t, c, dir).write([]tree.Entry{tree.NewFile(path, 0o644, content)}); err != nil {
		t.Fatal(err)
	}
	if database != "" {
		if err := os.WriteFile(filepath.Join(dir, APKName), []byte(database), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return ParseDir(dir)
}

// initrd returns the bytes of an initramfs.
func initrd(t *testing.T, ucode string, dirs []Dir) []byte {
	t.Helper()
	parts, err := Initrd(ucode, dirs, nil)
	if err != nil {
		t.Fatal(err)
	}
	var all []byte
	for _, p := range parts {
		if p.File != "" {
			p.Data = []byte(read(t, p.File))
		}
		all = append(append(all, p.Data...), make([]byte, -len(p.Data)&(PartAlignment-1))...)
	}
	return all
}

func TestInitrd(t *testing.T) {
	need.Program(t, "cpio", "cpio")
	need.Program(t, "zstd", "zstd")
	for _, c := range []string{"zstd", "gzip", "none"} {
		t.Run(c, func(t *testing.T) {
			ucode := filepath.Join(files(t, map[string]string{"u": "07070"}), "u")
			dirs := []Dir{
				segmentDir(t, c, "a", "1", "P:musl\n"),
				segmentDir(t, c, "b", "2", "P:busybox\n"),
				segmentDir(t, c, "c", "3", ""),
			}
			initrd := initrd(t, ucode, dirs)
			rest := initrd
			next := func(part string) {
				t.Helper()
				if !bytes.HasPrefix(rest, []byte(part)) {
					t.Fatalf("at %d: not the expected part", len(initrd)-len(rest))
				}
				rest = rest[len(part):]
			}
			next("07070\x00\x00\x00") // aligned
			next(read(t, dirs[0].Path, FileName))
			next(read(t, dirs[1].Path, FileName))
			last := read(t, dirs[2].Path, FileName)
			merged := bytes.TrimSuffix(rest, []byte(last))
			if len(merged) == len(rest) {
				t.Fatal("the last segment is not the last part")
			}
			out := t.TempDir()
			if err := os.MkdirAll(filepath.Join(out, "lib/apk/db"), 0o755); err != nil {
				t.Fatal(err)
			}
			unpack(t, merged, out)
			if got := read(t, out, apkDatabase); got != "P:musl\n\n\nP:busybox\n\n\n" {
				t.Errorf("merged database %q", got)
			}
		})
	}
}

func TestInitrdWithoutExtras(t *testing.T) {
	one := segmentDir(t, "none", "a", "1", "P:musl\n")
	if initrd := initrd(t, filepath.Join(t.TempDir(), "missing"), []Dir{one}); string(initrd) != read(t, one.Path, FileName) {
		t.Error("a single segment was changed")
	}
	if _, err := Initrd("", []Dir{{Path: t.TempDir()}}, nil); err == nil || !strings.Contains(err.Error(), "names: no such file") {
		t.Errorf("missing segment: error %v", err)
	}
}

// The last segment contains the extended attributes that files have after all
// segments are unpacked.
func TestInitrdKeepsXattrs(t *testing.T) {
	need.Program(t, "cpio", "cpio")
	with := func(path string, xattrs map[string]string) tree.Entry {
		e := tree.NewFile(path, 0o755, path)
		e.Xattrs = xattrs
		return e
	}
	var dirs []Dir
	for _, entries := range [][]tree.Entry{
		{tree.NewDir("bin"), with("bin/gone", map[string]string{"user.a": "1"}), with("bin/ping", map[string]string{"security.capability": "\x01\x00\xff\n", "user.b": "\"2\""})},
		{tree.NewDir("bin"), with("bin/gone", nil), tree.NewSymlink("bin/link x", "a \"b\"")},
	} {
		dirs = append(dirs, Dir{Name: "init", Path: t.TempDir()})
		if err := packer(t, "gzip", dirs[len(dirs)-1].Path).write(entries); err != nil {
			t.Fatal(err)
		}
	}
	initrd := initrd(t, "", dirs)
	rest := bytes.TrimPrefix(initrd, []byte(read(t, dirs[0].Path, FileName)+read(t, dirs[1].Path, FileName)))
	if len(rest) == len(initrd) {
		t.Fatal("the segments do not come first")
	}
	out := t.TempDir()
	unpack(t, rest, out)
	if got, want := read(t, out, contract.XattrsFile), `{"bin/ping":{"security.capability":"AQD/Cg==","user.b":"IjIi"}}`; got != want {
		t.Errorf("list %s, want %s", got, want)
	}
}

func TestInitrdRefusesConflicts(t *testing.T) {
	init := Dir{Name: "init[0]", Path: t.TempDir()}
	kernel := Dir{Name: "kernel", Path: t.TempDir()}
	for dir, entries := range map[string][]tree.Entry{
		init.Path:   {tree.NewSymlink("lib", "usr/lib")},
		kernel.Path: {tree.NewDir("lib"), tree.NewDir("lib/modules")},
	} {
		if err := packer(t, "none", dir).write(entries); err != nil {
			t.Fatal(err)
		}
	}
	want := "lib/modules of kernel is below lib, which is a symlink to usr/lib in init[0]: use the path usr/lib/modules"
	for _, dirs := range [][]Dir{{init, kernel}, {kernel, init}} {
		if _, err := Initrd("", dirs, nil); err == nil || err.Error() != want {
			t.Errorf("error %v\nwant  %s", err, want)
		}
	}
}

// Any name is read as it was written.
func FuzzNames(f *testing.F) {
	f.Add("a/b", "", "", "")
	f.Add("l\n\"", "../x\xff", "user.a=", "\x00 ")
	f.Fuzz(func(t *testing.T, path, link, name, value string) {
		var want []tree.Entry
		for _, e := range []tree.Entry{{Type: tree.File}, {Type: tree.Dir}, {Type: tree.Symlink, Link: link}} {
			e.Path = path
			want = append(want, e)
			e.Xattrs = map[string]string{name: value, "user.z": link}
			want = append(want, e)
		}
		file := filepath.Join(t.TempDir(), NamesName)
		var b bytes.Buffer
		if err := writeNames(&b, want); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		got, err := readNames(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-written +read):\n%s", diff)
		}
	})
}

// Pack extracts the database of init images, and not of others.
func TestPackKeepsDatabase(t *testing.T) {
	image := files(t, map[string]string{apkDatabase: "P:musl\n"})
	for rules, want := range map[Rules]bool{RulesInit: true, RulesContainer: false, RulesVolume: false, RulesNone: false} {
		out := t.TempDir()
		if err := packer(t, "none", out).Pack(Rootfs{Dir: image}, "", rules); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(filepath.Join(out, APKName))
		if got := err == nil && string(data) == "P:musl\n"; got != want {
			t.Errorf("%s: database kept: %v, want %v", rules, got, want)
		}
	}
}
