package tree_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-build/slipway/exporter/tree"
	"github.com/slipway-build/slipway/internal/testutil/treetest"
)

// linked makes entries hard links to one file.
func linked(inode uint64, entries ...tree.Entry) []tree.Entry {
	for i := range entries {
		e := entries[0]
		e.Path, e.Inode = entries[i].Path, inode
		entries[i] = e
	}
	return entries
}

func TestMerge(t *testing.T) {
	private := tree.Entry{Path: "d", Type: tree.Dir, Mode: 0o700, UID: 1, Xattrs: map[string]string{"user.a": "1"}}
	for name, test := range map[string]struct {
		parts [][]tree.Entry
		want  string // without the root
	}{
		"nothing": {},
		"directories": {
			parts: [][]tree.Entry{
				{private, tree.NewFile("d/a", 0o644, "a")},
				{tree.NewDir("d"), tree.NewFile("d/b", 0o644, "b")},
				{tree.NewFile("d/c", 0o644, "c"), tree.NewFile("e/f", 0o644, "f")},
			},
			want: "dir     0755 0:0 d\nfile    0644 0:0 d/a \"a\"\nfile    0644 0:0 d/b \"b\"\nfile    0644 0:0 d/c \"c\"\n" +
				"dir     0755 0:0 e\nfile    0644 0:0 e/f \"f\"\n",
		},
		"attributes of a directory": {
			parts: [][]tree.Entry{{tree.NewDir("d"), tree.NewFile("d/a", 0o644, "")}, {private}},
			want:  "dir     0700 1:0 d user.a=\"1\"\nfile    0644 0:0 d/a \"\"\n",
		},
		"files": {
			parts: [][]tree.Entry{
				{tree.NewFile("a", 0o600, "old"), tree.NewSymlink("l", "a"), tree.NewDir("run")},
				{tree.NewFile("a", 0o644, "new"), tree.NewFile("l", 0o644, "file"), tree.NewSymlink("run", "/var/run")},
				{tree.NewDir("l")},
			},
			want: "file    0644 0:0 a \"new\"\ndir     0755 0:0 l\nsymlink 0777 0:0 run -> /var/run\n",
		},
		"hard links": {
			parts: [][]tree.Entry{
				linked(1, tree.NewFile("a", 0o644, "1"), tree.NewFile("b", 0o644, ""), tree.NewFile("c", 0o644, "")),
				append(linked(1, tree.NewFile("d", 0o644, "2"), tree.NewFile("e", 0o644, "")), linked(2, tree.NewFile("f", 0o644, "3"), tree.NewFile("g", 0o644, ""))...),
				{tree.NewFile("a", 0o644, "4"), tree.NewFile("d", 0o644, "5")},
			},
			want: "file    0644 0:0 a \"4\"\nfile    0644 0:0 b \"1\" = c\nfile    0644 0:0 c \"1\" = b\nfile    0644 0:0 d \"5\"\n" +
				"file    0644 0:0 e \"2\"\nfile    0644 0:0 f \"3\" = g\nfile    0644 0:0 g \"3\" = f\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			var parts []tree.Part
			for _, entries := range test.parts {
				parts = append(parts, tree.Part{Entries: entries})
			}
			merged, err := tree.Merge(parts)
			if err != nil {
				t.Fatal(err)
			}
			got := strings.TrimPrefix(treetest.Dump(t, merged), "dir     0755 0:0 .\n")
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("tree (-want +got):\n%s", diff)
			}
			for _, e := range merged {
				if e.Path == "a" && e.Inode != 0 {
					t.Error("a file with one name has an inode")
				}
			}
		})
	}
}

func TestMergeErrors(t *testing.T) {
	firmware := []tree.Entry{tree.NewDir("lib"), tree.NewDir("lib/firmware"), tree.NewFile("lib/firmware/x", 0o644, "")}
	merged := []tree.Entry{tree.NewSymlink("lib", "usr/lib"), tree.NewDir("usr"), tree.NewDir("usr/lib")}
	for want, parts := range map[string][]tree.Part{
		"lib/firmware of kernel is below lib, which is a symlink to usr/lib in init[0]: use the path usr/lib/firmware": {
			{Name: "kernel", Entries: firmware}, {Name: "init[0]", Entries: merged}},
		"lib/firmware of init[1] is below lib, which is a symlink to usr/lib in init[0]: use the path usr/lib/firmware": {
			{Name: "init[0]", Entries: merged}, {Name: "init[1]", Entries: firmware}},
		"lib/x of files is below lib, which is a symlink to usr/lib in init[0]: use the path usr/lib/x": {
			{Name: "init[0]", Entries: merged}, {Name: "files", Entries: []tree.Entry{tree.NewFile("lib/x", 0o644, "")}}},
		"var/run/x of files is below var/run, which is a symlink to /run in init[0]: use the path run/x": {
			{Name: "init[0]", Entries: []tree.Entry{tree.NewSymlink("var/run", "/run")}}, {Name: "files", Entries: []tree.Entry{tree.NewFile("var/run/x", 0o644, "")}}},
		"etc/a/b of init[1] is below etc/a, which is a file in init[0]: remove one of them or choose another path": {
			{Name: "init[0]", Entries: []tree.Entry{tree.NewFile("etc/a", 0o644, "")}}, {Name: "init[1]", Entries: []tree.Entry{tree.NewFile("etc/a/b", 0o644, "")}}},
		"etc/a/b of init[0] is below etc/a, which is a file in init[1]: remove one of them or choose another path": {
			{Name: "init[0]", Entries: []tree.Entry{tree.NewFile("etc/a/b", 0o644, "")}}, {Name: "init[1]", Entries: []tree.Entry{tree.NewFile("etc/a", 0o644, "")}}},
	} {
		if _, err := tree.Merge(parts); err == nil || err.Error() != want {
			t.Errorf("error %v\nwant  %s", err, want)
		}
	}
}

func TestFind(t *testing.T) {
	entries := []tree.Entry{
		tree.NewDir("."), tree.NewDir("boot"), tree.NewFile("boot/vmlinuz-6", 0o644, "k"),
		tree.NewSymlink("vmlinuz", "/boot/vmlinuz"), tree.NewSymlink("boot/vmlinuz", "../../boot/./vmlinuz-6"), tree.NewSymlink("loop", "loop"),
	}
	for name, want := range map[string]string{
		"boot/vmlinuz-6": "k", "/vmlinuz": "k", "./boot/../vmlinuz": "k",
		"none": "none: file does not exist", "loop": "loop: too many symbolic links", "vmlinuz/x": "it is below boot/vmlinuz-6, which is a file",
	} {
		e, err := tree.Find(entries, name)
		if got := ""; err != nil {
			got = err.Error()
			if got != want {
				t.Errorf("%s: %s, want %s", name, got, want)
			}
		} else if got = treetest.Content(t, e); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}
