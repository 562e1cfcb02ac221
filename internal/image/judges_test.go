package image

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/slipway-build/slipway/exporter/format"
	"github.com/slipway-build/slipway/exporter/tree"
	"github.com/slipway-build/slipway/internal/testutil/need"
	"github.com/slipway-build/slipway/internal/testutil/treetest"
)

// TestJudges checks that an opened image has what other people's tools read in
// the same files: sfdisk its partitions, mtools the files and the free space of
// the EFI system partition, objcopy the sections of a unified kernel image, and
// cpio, unsquashfs, fsck.erofs, xorriso and tar its root file system.
func TestJudges(t *testing.T) {
	need.Program(t, "sfdisk", "fdisk")
	need.Program(t, "mdir", "mtools")
	need.Program(t, "objcopy", "binutils")
	need.Program(t, "cpio", "cpio")
	need.Program(t, "zstd", "zstd")
	need.Program(t, "unsquashfs", "squashfs-tools")
	need.Program(t, "fsck.erofs", "erofs-utils")
	need.Program(t, "xorriso", "xorriso")
	need.Program(t, "qemu-img", "qemu-utils")
	need.Root(t)
	for _, f := range format.All() {
		if f.Name == "eif" {
			continue // of AWS's own library: see TestEIFLibrary in exporter/format
		}
		t.Run(f.Name, func(t *testing.T) {
			names := write(t, f)
			i, err := Open(names[0])
			if err != nil {
				t.Fatal(err)
			}
			defer i.Close()
			j := &judges{T: t, image: i}
			for _, name := range names {
				j.file(name)
			}
			j.compare()
		})
	}
}

// judges collects what other tools read in an image.
type judges struct {
	*testing.T
	image      *Image
	partitions []Partition
	root       string // directory with the root file system
	kernel     int64  // size in bytes, 0 if there is none
	cmdline    string
}

func (j *judges) run(name string, args ...string) string {
	j.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		j.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// file reads a file as its name says.
func (j *judges) file(name string) {
	raw := filepath.Join(j.TempDir(), "raw")
	switch has := func(suffix string) bool { return strings.HasSuffix(name, suffix) }; {
	case has("-squashfs.img"):
		j.root = filepath.Join(j.TempDir(), "root")
		j.run("unsquashfs", "-no-progress", "-d", j.root, name)
	case has("-erofs.img"):
		j.erofs(name)
	case has("-initrd.img"):
		if j.image.RootKind == "initramfs" {
			j.unpack(name)
		}
	case has("-kernel"), has("-vmlinux"):
		j.kernel = j.size(name)
	case has("-cmdline"):
		j.cmdline = strings.TrimSpace(j.text(name))
	case has(".iso"):
		j.cd(name)
	case has(".qcow2"), has(".vhd"), has(".vmdk"):
		j.run("qemu-img", "convert", "-O", "raw", name, raw)
		j.disk(raw)
	case has(".raw"), has("-bios.img"), has("-efi.img"), has("-verity.img"):
		j.disk(name)
	case has(".img.tar.gz"), has(".tar"):
		j.archive(name)
	case has(".efi"):
		j.unified(name)
	case has("-firecracker.json"), has("-cloud-hypervisor.sh"):
	default:
		j.Errorf("nothing judges %s", name)
	}
}

func (j *judges) text(name string) string {
	data, err := os.ReadFile(name)
	if err != nil {
		j.Fatal(err)
	}
	return string(data)
}

func (j *judges) size(name string) int64 {
	info, err := os.Stat(name)
	if err != nil {
		j.Fatal(err)
	}
	return info.Size()
}

var bootImageLine = regexp.MustCompile(`El Torito boot img : +\d+ +UEFI .* (\d+)\n`)

// cd reads a CD: its file system, its partitions if it has a partition table,
// and otherwise the image that firmware boots.
func (j *judges) cd(iso string) {
	dir := j.TempDir()
	j.run("xorriso", "-osirrox", "on:sort_lba_off", "-indev", iso, "-extract", "/", dir)
	boots := j.boots(dir)
	// sfdisk fails on a CD without a partition table.
	if table, err := exec.Command("sfdisk", "--dump", iso).Output(); err == nil && strings.Contains(string(table), "label: gpt") {
		j.disk(iso)
	} else if image := bootImageLine.FindStringSubmatch(j.run("xorriso", "-indev", iso, "-report_el_torito", "plain")); image != nil {
		block, _ := strconv.ParseInt(image[1], 10, 64)
		p := j.partition(iso, Partition{Start: block * 2048})
		p.Size = j.sectors(iso, p) * 512 // the catalog cannot store it
		j.partitions = append(j.partitions, p)
	}
	if j.root == "" || !boots && j.image.RootKind != "initramfs" {
		j.root = dir
		if err := os.RemoveAll(filepath.Join(dir, "boot")); err != nil { // no part of the machine
			j.Fatal(err)
		}
	}
}

// archive reads a tar archive with a root file system, a disk or the files to boot.
func (j *judges) archive(name string) {
	dir := j.TempDir()
	j.run("tar", "-x", "--same-permissions", "-f", name, "-C", dir)
	disks, _ := filepath.Glob(filepath.Join(dir, "disk/*.qcow2"))
	switch raw := filepath.Join(dir, "disk.raw"); {
	case len(disks) == 1:
		j.file(disks[0])
	case j.exists(raw):
		j.disk(raw)
	case j.exists(filepath.Join(dir, "kernel")):
		j.kernel = j.size(filepath.Join(dir, "kernel"))
		j.cmdline = strings.TrimSpace(j.text(filepath.Join(dir, "cmdline")))
		j.unpack(filepath.Join(dir, "initrd.img"))
	default:
		j.root = dir
	}
}

func (j *judges) exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

var (
	sectorLine = regexp.MustCompile(`start= *(\d+), size= *(\d+), type=[^,\n]*(?:, uuid=[^,\n]*)?(?:, name="([^"]*)")?`)
	freeLine   = regexp.MustCompile(`([\d ]+) bytes free`)
)

// disk reads the partitions of a disk, and what boots from them.
func (j *judges) disk(raw string) {
	const sector = 512
	for n, m := range sectorLine.FindAllStringSubmatch(j.run("sfdisk", "--dump", raw), -1) {
		start, _ := strconv.ParseInt(m[1], 10, 64)
		size, _ := strconv.ParseInt(m[2], 10, 64)
		j.partitions = append(j.partitions, j.partition(raw, Partition{Number: n + 1, Name: m[3], Start: start * sector, Size: size * sector}))
	}
}

// partition reads the file system of a partition.
func (j *judges) partition(disk string, p Partition) Partition {
	volume := fmt.Sprintf("%s@@%d", disk, p.Start)
	if listing, err := exec.Command("mdir", "-i", volume, "::").Output(); err == nil {
		free := freeLine.FindStringSubmatch(string(listing))
		if free == nil {
			j.Fatalf("mdir:\n%s", listing)
		}
		p.Free, _ = strconv.ParseInt(strings.ReplaceAll(free[1], " ", ""), 10, 64)
		dir := j.TempDir()
		j.run("mcopy", "-s", "-i", volume, "::*", dir)
		p.Files = j.files(dir)
		j.boots(dir)
	}
	if p.Name == "root" {
		part := filepath.Join(j.TempDir(), "part")
		j.run("dd", "if="+disk, "of="+part, "bs=512", fmt.Sprintf("skip=%d", p.Start/512), fmt.Sprintf("count=%d", p.Size/512), "status=none")
		j.erofs(part)
	}
	return p
}

var sectorsLine = regexp.MustCompile(`(?:big|small) size: (\d+) sectors`)

// sectors returns the number of sectors that a FAT file system says it has.
func (j *judges) sectors(disk string, p Partition) int64 {
	for _, m := range sectorsLine.FindAllStringSubmatch(j.run("minfo", "-i", fmt.Sprintf("%s@@%d", disk, p.Start), "::"), -1) {
		if n, _ := strconv.ParseInt(m[1], 10, 64); n > 0 {
			return n
		}
	}
	j.Fatal("minfo does not say the size")
	return 0
}

// files returns the files below a directory.
func (j *judges) files(dir string) []File {
	var files []File
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files = append(files, File{name, j.size(filepath.Join(dir, name))})
		return nil
	})
	if err != nil {
		j.Fatal(err)
	}
	return files
}

var (
	linuxLine   = regexp.MustCompile(`(?m)^\s*linux\s+(\S+)(?:[^\S\n]+(.*))?$`)
	optionsLine = regexp.MustCompile(`(?m)^options\s+(.*)$`)
	initrdLine  = regexp.MustCompile(`(?m)^\s*initrd\s+(.*)$`)
)

// boots reads what a directory of boot files starts, and reports whether it is
// one.
func (j *judges) boots(dir string) bool {
	if programs, _ := filepath.Glob(filepath.Join(dir, "EFI/BOOT/BOOT*.EFI")); len(programs) == 1 && j.unified(programs[0]) {
		return true
	}
	entries, _ := filepath.Glob(filepath.Join(dir, "loader/entries/*.conf"))
	entries = append(entries, filepath.Join(dir, "grub/grub.cfg"), filepath.Join(dir, "boot/grub/grub.cfg"))
	for _, entry := range entries {
		if !j.exists(entry) {
			continue
		}
		text := j.text(entry)
		linux := linuxLine.FindStringSubmatch(text)
		if linux == nil {
			j.Fatalf("%s:\n%s", entry, text)
		}
		j.kernel, j.cmdline = j.size(filepath.Join(dir, linux[1])), linux[2]
		if options := optionsLine.FindStringSubmatch(text); options != nil {
			j.cmdline = options[1]
		}
		initrd := initrdLine.FindStringSubmatch(text)
		if initrd == nil || j.image.RootKind != "initramfs" {
			return false
		}
		var whole []byte
		for _, name := range strings.Fields(initrd[1]) {
			whole = append(whole, j.text(filepath.Join(dir, name))...)
		}
		together := filepath.Join(j.TempDir(), "initrd")
		if err := os.WriteFile(together, whole, 0o644); err != nil {
			j.Fatal(err)
		}
		j.unpack(together)
		return true
	}
	return false
}

// unified reads the sections of a program, and reports whether it is a unified
// kernel image.
func (j *judges) unified(program string) bool {
	section := func(name string) (string, bool) {
		file := filepath.Join(j.TempDir(), "section")
		err := exec.Command("objcopy", "--dump-section", name+"="+file, program, filepath.Join(j.TempDir(), "copy")).Run()
		return file, err == nil && j.exists(file)
	}
	linux, ok := section(".linux")
	if !ok {
		return false
	}
	j.kernel = j.size(linux)
	cmdline, _ := section(".cmdline")
	j.cmdline = strings.TrimSpace(strings.TrimRight(j.text(cmdline), "\x00"))
	if initrd, ok := section(".initrd"); ok && j.image.RootKind == "initramfs" {
		j.unpack(initrd)
	}
	return true
}

func (j *judges) erofs(name string) {
	j.root = filepath.Join(j.TempDir(), "root")
	j.run("fsck.erofs", "--extract="+j.root, "--preserve", name)
}

// unpack unpacks an initramfs, archive by archive.
func (j *judges) unpack(name string) {
	j.root = j.TempDir()
	data := j.text(name)
	for _, p := range j.image.Initramfs {
		part := []byte(data[p.Offset : p.Offset+p.Compressed])
		if bytes.HasPrefix(part, []byte("\x28\xb5\x2f\xfd")) {
			zstd := exec.Command("zstd", "-dc")
			zstd.Stdin = bytes.NewReader(part)
			part, _ = zstd.Output() // an error about the zeros after the frame
		}
		cpio := exec.Command("cpio", "-idu", "--quiet", "--no-absolute-filenames")
		cpio.Dir, cpio.Stdin = j.root, bytes.NewReader(part)
		if out, err := cpio.CombinedOutput(); err != nil {
			j.Fatalf("cpio: archive at byte %d: %v\n%s", p.Offset, err, out)
		}
	}
}

// compare compares what the tools have read with the image.
func (j *judges) compare() {
	i := j.image
	shown := cmp.Options{
		cmpopts.IgnoreUnexported(Partition{}), cmpopts.IgnoreFields(Partition{}, "Type", "FileSystem"), cmpopts.EquateEmpty(),
	}
	if diff := cmp.Diff(j.partitions, i.Partitions, shown); diff != "" {
		j.Errorf("partitions (-tools +inspect):\n%s", diff)
	}
	unquoted := strings.NewReplacer(`"`, "", "'", "").Replace // each loader quotes in its own way
	if unquoted(j.cmdline) != unquoted(i.Cmdline) {
		j.Errorf("the tools read the command line %q, inspect %q", j.cmdline, i.Cmdline)
	}
	var kernel int64
	if i.Kernel != nil {
		kernel = i.Kernel.Size
	}
	if j.kernel != kernel {
		j.Errorf("the tools read a kernel of %d bytes, inspect of %d", j.kernel, kernel)
	}
	root, err := tree.ReadDir(j.root)
	if err != nil {
		j.Fatal(err)
	}
	plain := func(entries []tree.Entry) []tree.Entry { // without the root directory, whose mode is the test's
		return slices.DeleteFunc(slices.Clone(entries), func(e tree.Entry) bool { return e.Path == "." || e.Path == "" })
	}
	treetest.Equal(j.T, plain(root), plain(i.Root))
}
