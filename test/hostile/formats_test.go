package hostile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/exporter/cpio"
	"github.com/slipway-build/slipway/exporter/fat"
	"github.com/slipway-build/slipway/exporter/gpt"
	"github.com/slipway-build/slipway/exporter/tree"
	"github.com/slipway-build/slipway/internal/contract"
	disk "github.com/slipway-build/slipway/internal/image"
	"github.com/slipway-build/slipway/internal/testutil/treetest"
)

// A fileFormat is a format that each accepted image is built to, with the
// program or the reader that shows what is in it.
type fileFormat struct {
	name   string
	suffix string // of the file
	read   func(t *testing.T, file string) []tree.Entry
	loses  func(*tree.Entry) // what the reader does not show
}

var formats = []fileFormat{
	{"tar", ".tar", extract("tar", "--xattrs", "--xattrs-include=*", "--numeric-owner", "--same-owner", "-xpf", "FILE", "-C", "DIR"), nil},
	{"kernel+initrd", "-initrd.img", readInitrdFile, nil},
	{"raw", ".raw", readDisk, nil},
	{"iso", ".iso", readCD, nil},
	{"kernel+squashfs", "-squashfs.img", extract("unsquashfs", "-no-progress", "-f", "-d", "DIR", "FILE"), nil},
	{"kernel+erofs", "-erofs.img", extract("fsck.erofs", "--extract=DIR", "--preserve", "FILE"), func(e *tree.Entry) {
		// fsck.erofs 1.5 does not extract these.
		e.Xattrs, e.Inode, e.Mode = nil, 0, e.Mode&^(tree.SetUID|tree.SetGID)
	}},
	{"raw-verity", "-verity.img", readVerity, nil},
}

// compare compares the files of images in a machine in the directory dir with
// what is right.
func (f fileFormat) compare(t *testing.T, dir string, images []acceptedImage) {
	t.Helper()
	entries := f.read(t, filepath.Join(dir, "machine"+f.suffix))
	for _, i := range images {
		want := slices.Clone(i.want)
		for j := range want {
			if f.loses != nil {
				f.loses(&want[j])
			}
		}
		got := dump(t, entries, i.prefix()+"/")
		if diff := cmp.Diff(dump(t, want, ""), got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", i.name, diff)
		}
	}
}

// extract runs a program that extracts FILE into DIR.
func extract(program string, args ...string) func(*testing.T, string) []tree.Entry {
	return func(t *testing.T, file string) []tree.Entry {
		dir := filepath.Join(t.TempDir(), "root")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		replace := strings.NewReplacer("DIR", dir, "FILE", file)
		var real []string
		for _, a := range args {
			real = append(real, replace.Replace(a))
		}
		if out, err := exec.Command(program, real...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", program, err, out)
		}
		entries, err := tree.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		return entries
	}
}

func readInitrdFile(t *testing.T, file string) []tree.Entry {
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return readInitrd(t, f)
}

// readInitrd unpacks an initramfs as Linux does: later members replace earlier
// ones, and the names of a file share the content that one of them has. The
// init's list has the extended attributes.
func readInitrd(t *testing.T, r io.Reader) []tree.Entry {
	t.Helper()
	archive := cpio.NewInitramfsReader(r, 4<<30)
	defer archive.Close()
	found := map[string]tree.Entry{}
	contents := map[uint64]string{} // of hard links
	var inodes uint64
	var last uint32
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		if h.Inode < last {
			inodes += 1 << 32 // another archive
		}
		last = h.Inode
		name := path.Clean(h.Name)
		e := tree.Entry{Path: name, Mode: h.Mode & tree.ModeMask, UID: h.UID, GID: h.GID, Major: h.Major, Minor: h.Minor}
		switch h.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			e = tree.NewFile(name, e.Mode, string(content))
			e.UID, e.GID = h.UID, h.GID
			if h.Links > 1 {
				e.Inode = inodes + uint64(h.Inode)
				if len(content) > 0 {
					contents[e.Inode] = string(content)
				}
			}
		case unix.S_IFLNK:
			e.Type, e.Link = tree.Symlink, string(content)
		case unix.S_IFDIR:
			e.Type = tree.Dir
		case unix.S_IFCHR:
			e.Type = tree.Char
		case unix.S_IFBLK:
			e.Type = tree.Block
		case unix.S_IFIFO:
			e.Type = tree.FIFO
		}
		if name == contract.XattrsFile {
			list, err := contract.UnmarshalXattrs(content)
			if err != nil {
				t.Fatal(err)
			}
			for p, attributes := range list {
				e := found[p]
				e.Xattrs = map[string]string{}
				for k, v := range attributes {
					e.Xattrs[k] = string(v)
				}
				found[p] = e
			}
		}
		if old := found[name]; old.Xattrs != nil {
			e.Xattrs = old.Xattrs
		}
		found[name] = e
	}
	var entries []tree.Entry
	for _, e := range found {
		if content, ok := contents[e.Inode]; ok && e.Inode != 0 {
			linked := tree.NewFile(e.Path, e.Mode, content)
			e.Size, e.Open = linked.Size, linked.Open
		}
		entries = append(entries, e)
	}
	tree.Sort(entries)
	return entries
}

// readDisk reads the initramfs on the EFI system partition of a disk.
func readDisk(t *testing.T, file string) []tree.Entry {
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	table, err := gpt.Read(f)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range table.Partitions {
		if p.Type != gpt.TypeESP {
			continue
		}
		esp, err := fat.Open(io.NewSectionReader(f, int64(p.First)*gpt.SectorSize, int64(p.Last-p.First+1)*gpt.SectorSize))
		if err != nil {
			t.Fatal(err)
		}
		initrd, err := esp.Content("initrd.img")
		if err != nil {
			t.Fatal(err)
		}
		return readInitrd(t, initrd)
	}
	t.Fatal("the disk has no EFI system partition")
	return nil
}

// readVerity reads the root filesystem of a disk, and verifies it with the root hash
// on the kernel command line.
func readVerity(t *testing.T, file string) []tree.Entry {
	i, err := disk.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { i.Close() })
	if v := i.Verity(); v == nil || !v.Matches {
		t.Errorf("dm-verity: %+v", v)
	}
	return i.Root
}

// readCD reads the initramfs on a CD.
func readCD(t *testing.T, file string) []tree.Entry {
	to := filepath.Join(t.TempDir(), "initrd.img")
	if out, err := exec.Command("xorriso", "-osirrox", "on", "-indev", file, "-extract", "/boot/initrd.img", to).CombinedOutput(); err != nil {
		t.Fatalf("xorriso: %v\n%s", err, out)
	}
	return readInitrdFile(t, to)
}

// dump returns one line per file below the directory prefix, in the form of
// accepted, without directories and without what the rules for containers add.
func dump(t *testing.T, entries []tree.Entry, prefix string) []string {
	t.Helper()
	names := map[uint64][]string{}
	var kept []tree.Entry
	for _, e := range entries {
		p, ok := strings.CutPrefix(e.Path, prefix)
		if !ok || e.Type == tree.Dir || added[p] {
			continue
		}
		e.Path = p
		if e.Inode != 0 {
			names[e.Inode] = append(names[e.Inode], p)
		}
		kept = append(kept, e)
	}
	var lines []string
	for _, e := range kept {
		line := fmt.Sprintf("%-7s %04o %d:%d %s", e.Type, e.Mode, e.UID, e.GID, e.Path)
		switch e.Type {
		case tree.Symlink:
			line += " -> " + e.Link
		case tree.Char, tree.Block:
			line += fmt.Sprintf(" %d,%d", e.Major, e.Minor)
		case tree.File:
			line += fmt.Sprintf(" %q", treetest.Content(t, e))
		}
		for _, other := range names[e.Inode] {
			if other != e.Path {
				line += " = " + other
			}
		}
		for _, name := range slices.Sorted(maps.Keys(e.Xattrs)) {
			line += fmt.Sprintf(" %s=%q", name, e.Xattrs[name])
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return lines
}

// added are files that the rules for containers add to each image.
var added = map[string]bool{"etc/hosts": true, "etc/resolv.conf": true, "etc/mtab": true}

func sameFile(t *testing.T, a, b string) {
	t.Helper()
	one, err := os.ReadFile(a)
	if err != nil {
		t.Fatal(err)
	}
	if two, err := os.ReadFile(b); err != nil || !bytes.Equal(one, two) {
		t.Errorf("%s from a layout differs from the one from the registry: %v", filepath.Base(a), err)
	}
}
