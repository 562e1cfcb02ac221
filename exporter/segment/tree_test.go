package segment

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/exporter/tree"
	"github.com/slipway-build/slipway/internal/testutil/golden"
	"github.com/slipway-build/slipway/internal/testutil/treetest"
)

// tarSegments writes a segment for each part.
func tarSegments(t *testing.T, parts ...tree.Part) []Dir {
	t.Helper()
	var dirs []Dir
	for _, part := range parts {
		dir := Dir{Name: part.Name, Path: t.TempDir()}
		if err := (Packer{Out: dir.Path, Archive: Tar}).write(part.Entries); err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, dir)
	}
	return dirs
}

func TestTree(t *testing.T) {
	apk := func(content string) []tree.Entry {
		return []tree.Entry{tree.NewDir("lib"), tree.NewDir("lib/apk"), tree.NewDir("lib/apk/db"), tree.NewFile(apkDatabase, 0o600, content)}
	}
	private := tree.NewDir("boot")
	private.UID, private.Mode = 1000, 0o700
	program := tree.NewFile("bin/a", 0o4755, "program")
	program.Inode, program.Xattrs = 1, map[string]string{"security.capability": "\x01\x00"}
	same := program
	same.Path = "bin/b"
	segments := tarSegments(t,
		tree.Part{Name: "directories", Entries: []tree.Entry{tree.NewDir("bin"), private, tree.NewDir("etc")}},
		tree.Part{Name: "init[0]", Entries: append(apk("P:musl\n"), tree.NewDir("bin"), program, same, tree.NewFile("etc/hosts", 0o644, "image"))},
		tree.Part{Name: "init[1]", Entries: apk("P:busybox\n")},
		tree.Part{Name: "services.a", Entries: []tree.Entry{tree.NewDir("containers"), {Path: "containers/null", Type: tree.Char, Mode: 0o666, Major: 1, Minor: 3}}},
		tree.Part{Name: "files", Entries: []tree.Entry{tree.NewFile("etc/hosts", 0o600, "file"), tree.NewFile("boot/extra", 0o644, "")}},
	)
	for i, database := range []string{"P:musl\n", "P:busybox\n"} {
		if err := os.WriteFile(filepath.Join(segments[i+1].Path, APKName), []byte(database), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	dir := files(t, map[string]string{"kernel": "bzImage", "ucode": "microcode"})
	if err := os.Chmod(filepath.Join(dir, "kernel"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, boot := range map[string]*BootFiles{
		"none":   nil,
		"kernel": {Kernel: filepath.Join(dir, "kernel"), Ucode: filepath.Join(dir, "none")},
		"all":    {Kernel: filepath.Join(dir, "kernel"), Ucode: filepath.Join(dir, "ucode"), Cmdline: " console=ttyS0\n"},
	} {
		t.Run(name, func(t *testing.T) {
			entries, closeTree, err := Tree(segments, boot)
			if err != nil {
				t.Fatal(err)
			}
			defer closeTree()
			golden.Equal(t, "testdata/tree-"+name+".golden", treetest.Dump(t, entries))
		})
	}
}

func TestTreeErrors(t *testing.T) {
	links := tree.Part{Name: "init[0]", Entries: []tree.Entry{tree.NewSymlink("lib", "usr/lib")}}
	below := tree.Part{Name: "files", Entries: []tree.Entry{tree.NewFile("lib/x", 0o644, "")}}
	cpio := Dir{Name: "init[0]", Path: t.TempDir()}
	if err := packer(t, "zstd", cpio.Path).write(links.Entries); err != nil {
		t.Fatal(err)
	}
	for want, test := range map[string]struct {
		segments []Dir
		boot     *BootFiles
	}{
		"lib/x of files is below lib, which is a symlink to usr/lib in init[0]: use the path usr/lib/x": {segments: tarSegments(t, links, below)},
		"segment of init[0]: read tar: not an uncompressed tar archive":                                 {segments: []Dir{cpio}},
		"none/segment: no such file": {segments: []Dir{{Path: "none"}}},
		"none: no such file":         {segments: tarSegments(t, links), boot: &BootFiles{Kernel: "none"}},
	} {
		if _, _, err := Tree(test.segments, test.boot); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v\nwant  %s", err, want)
		}
	}
}

func TestParseDir(t *testing.T) {
	for text, want := range map[string]Dir{
		"/segments/001":         {"/segments/001", "/segments/001"},
		"init[0]=/segments/001": {"init[0]", "/segments/001"},
		"services.a=b=c":        {"services.a", "b=c"},
		"./a=b":                 {"./a=b", "./a=b"},
		"=a":                    {"=a", "=a"},
	} {
		if got := ParseDir(text); got != want {
			t.Errorf("ParseDir(%q) = %+v, want %+v", text, got, want)
		}
	}
}
