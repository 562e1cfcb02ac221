package segment

import (
	"bytes"
	"fmt"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/internal/testutil/need"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/exporter/tree"
	"github.com/slipway-build/slipway/internal/testutil/treetest"
)

func compression(t testing.TB, s string) Compression {
	t.Helper()
	c, err := ParseCompression(s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// packer returns a packer of cpio segments.
func packer(t testing.TB, c, out string) Packer {
	t.Helper()
	return Packer{Out: out, Archive: CPIO, Compression: compression(t, c)}
}

// segmentOf packs a directory and returns the segment.
func segmentOf(t testing.TB, dir, prefix string, rules Rules, c Compression) []byte {
	t.Helper()
	out := t.TempDir()
	if err := packer(t, c.String(), out).Pack(Rootfs{Dir: dir}, prefix, rules); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(out, FileName))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// imageTree creates a root filesystem with every type of file, in an order that
// depends on the seed. It needs root to create devices and to change owners.
func imageTree(t *testing.T, seed int64) string {
	t.Helper()
	need.Root(t)
	dir := t.TempDir()
	type step struct {
		name string
		make func(name string) error
	}
	write := func(content string, mode os.FileMode) func(string) error {
		return func(name string) error {
			return firstError(os.WriteFile(name, []byte(content), 0o600), os.Chmod(name, mode))
		}
	}
	steps := []step{
		{"usr/bin/sudo", write("sudo", 0o755|os.ModeSetuid)},
		{"usr/bin/write", write("write", 0o755|os.ModeSetgid)},
		{"usr/share/with blank/ünï", write("name", 0o644)},
		{"usr/share/empty", write("", 0o400)},
		{"var/tmp/", func(name string) error { return os.Chmod(name, 0o777|os.ModeSticky) }},
		{"var/owned", func(name string) error {
			return firstError(os.WriteFile(name, []byte("x"), 0o640), os.Lchown(name, 1000, 100000))
		}},
		{"etc/motd", func(name string) error { return os.Symlink("/run/motd", name) }},
		{"dev/null", func(name string) error {
			return firstError(unix.Mknod(name, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))), os.Chmod(name, 0o666))
		}},
		{"dev/vda", func(name string) error { return unix.Mknod(name, unix.S_IFBLK|0o600, int(unix.Mkdev(254, 0))) }},
		{"run/fifo", func(name string) error { return unix.Mkfifo(name, 0o600) }},
	}
	rand.New(rand.NewSource(seed)).Shuffle(len(steps), func(i, j int) { steps[i], steps[j] = steps[j], steps[i] })
	for _, s := range steps {
		name := filepath.Join(dir, s.name)
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(s.name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(s.name, "/") {
			name += "/"
		}
		if err := s.make(name); err != nil {
			t.Fatal(err)
		}
	}
	// Three names for one file, and two for a device.
	for from, to := range map[string]string{"usr/bin/a": "usr/bin/sudo", "var/z": "usr/bin/sudo", "dev/zz": "dev/null"} {
		if err := os.Link(filepath.Join(dir, to), filepath.Join(dir, from)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// TestSegmentUnpacks checks that cpio(1) unpacks a segment to the tree that was
// packed.
func TestSegmentUnpacks(t *testing.T) {
	need.Program(t, "cpio", "cpio")
	need.Program(t, "zstd", "zstd")
	dir := imageTree(t, 1)
	want, err := tree.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"zstd", "zstd:1", "zstd:19", "gzip", "none"} {
		t.Run(name, func(t *testing.T) {
			data := segmentOf(t, dir, "", RulesNone, compression(t, name))
			if len(data)%alignment != 0 {
				t.Errorf("%d bytes are not a multiple of %d", len(data), alignment)
			}
			out := t.TempDir()
			unpack(t, data, out)
			got, err := tree.ReadDir(out)
			if err != nil {
				t.Fatal(err)
			}
			treetest.Equal(t, want, got)
		})
	}
}

// unpack decompresses and unpacks a segment with other programs.
func unpack(t *testing.T, data []byte, dir string) {
	t.Helper()
	filter := "cat"
	switch {
	case bytes.HasPrefix(data, []byte("\x28\xb5\x2f\xfd")):
		filter = "zstd -dcq"
	case bytes.HasPrefix(data, []byte("\x1f\x8b")):
		filter = "gzip -dcq"
	}
	// The programs warn of the padding, which is not part of the frame.
	cmd := exec.Command("bash", "-c", "set -o pipefail; umask 0; ("+filter+" || [ $? = 1 -o $? = 2 ]) | cpio -i --quiet --no-absolute-filenames")
	cmd.Dir = dir
	cmd.Stdin = bytes.NewReader(bytes.TrimRight(data, "\x00"))
	if filter == "cat" {
		cmd.Stdin = bytes.NewReader(data)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s | cpio: %v\n%s", filter, err, out)
	}
}

// TestSegmentIsDeterministic checks that a segment depends neither on the order in
// which files were created nor on the number of processors.
func TestSegmentIsDeterministic(t *testing.T) {
	dirs := []string{imageTree(t, 1), imageTree(t, 2)}
	for _, name := range []string{"zstd:1", "zstd:3", "zstd:7", "zstd:19", "gzip", "none"} {
		t.Run(name, func(t *testing.T) {
			var first []byte
			for _, procs := range []int{1, 2, 4} {
				old := runtime.GOMAXPROCS(procs)
				defer runtime.GOMAXPROCS(old)
				for _, dir := range dirs {
					data := segmentOf(t, dir, "x/y", RulesContainer, compression(t, name))
					if first == nil {
						first = data
					}
					if !bytes.Equal(first, data) {
						t.Errorf("GOMAXPROCS=%d: other bytes", procs)
					}
				}
			}
		})
	}
}

// TestLongSegmentIsDeterministic checks that the blocks into which compressors
// divide long input do not depend on the number of processors.
func TestLongSegmentIsDeterministic(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "long"), compressible(6<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"zstd", "gzip"} {
		var first []byte
		for _, procs := range []int{1, 4} {
			old := runtime.GOMAXPROCS(procs)
			defer runtime.GOMAXPROCS(old)
			data := segmentOf(t, dir, "", RulesNone, compression(t, name))
			if first == nil {
				first = data
			}
			if !bytes.Equal(first, data) {
				t.Errorf("%s, GOMAXPROCS=%d: other bytes", name, procs)
			}
		}
	}
}

// TestLargeSegment checks that a large segment is several archives, which do not
// depend on the number of processors. Hard links to one file are in one archive.
func TestLargeSegment(t *testing.T) {
	need.Program(t, "cpio", "cpio")
	need.Program(t, "zstd", "zstd")
	dir := t.TempDir()
	text := compressible(archiveSize)
	for name, size := range map[string]int{"a": 100, "b": len(text) / 2, "c": len(text), "d": len(text) / 3, "e/f": len(text) / 2, "g": 0} {
		name = filepath.Join(dir, name)
		if err := firstError(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, text[:size], 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link(filepath.Join(dir, "b"), filepath.Join(dir, "d2")); err != nil {
		t.Fatal(err)
	}
	want, err := tree.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var archives []string
	for _, archive := range split(want) {
		var names []string
		for _, e := range archive {
			names = append(names, e.Path)
		}
		archives = append(archives, strings.Join(names, " "))
	}
	if diff := cmp.Diff([]string{". a b c d d2", "e e/f g"}, archives); diff != "" {
		t.Errorf("archives (-want +got):\n%s", diff)
	}
	var first []byte
	for _, procs := range []int{1, 4} {
		old := runtime.GOMAXPROCS(procs)
		defer runtime.GOMAXPROCS(old)
		data := segmentOf(t, dir, "", RulesNone, compression(t, "zstd:1"))
		if first == nil {
			first = data
		}
		if !bytes.Equal(first, data) {
			t.Errorf("GOMAXPROCS=%d: other bytes", procs)
		}
	}
	archive, err := exec.Command("bash", "-c", "zstd -dcq "+segmentFile(t, first)).Output()
	if err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	const trailer = "TRAILER!!!"
	for len(archive) > 0 {
		end := bytes.Index(archive, []byte(trailer)) + len(trailer)
		for end < len(archive) && archive[end] == 0 {
			end++
		}
		unpack(t, archive[:end], out)
		archive = archive[end:]
	}
	got, err := tree.ReadDir(out)
	if err != nil {
		t.Fatal(err)
	}
	treetest.Equal(t, want, got)
}

// segmentFile writes a segment to a file that zstd accepts.
func segmentFile(t *testing.T, data []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "segment.zst")
	if err := os.WriteFile(name, bytes.TrimRight(data, "\x00"), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

// compressible returns text of random words.
func compressible(size int) []byte {
	r := rand.New(rand.NewSource(1))
	var b bytes.Buffer
	for b.Len() < size {
		fmt.Fprintf(&b, "%x ", r.Intn(1<<16))
	}
	return b.Bytes()[:size]
}

// TestZstdFrame checks that a segment is one frame and how much memory the kernel
// allocates for its window.
func TestZstdFrame(t *testing.T) {
	need.Program(t, "zstd", "zstd")
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "long"), compressible(1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"zstd:1", "zstd:3", "zstd:7", "zstd:19"} {
		file := filepath.Join(t.TempDir(), "s.zst")
		data := bytes.TrimRight(segmentOf(t, dir, "", RulesNone, compression(t, name)), "\x00")
		if err := os.WriteFile(file, data, 0o644); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("zstd", "-lv", file).CombinedOutput()
		if err != nil {
			t.Fatalf("zstd -lv: %v\n%s", err, out)
		}
		for _, want := range []string{"Zstandard Frames: 1\n", "Window Size: 16.0 MiB (16777216 B)\n"} {
			if !strings.Contains(string(out), want) {
				t.Errorf("%s: zstd -lv does not say %q:\n%s", name, want, out)
			}
		}
	}
}

func TestParseCompression(t *testing.T) {
	for text, want := range map[string]string{
		"zstd": "zstd:3", "zstd:1": "zstd:1", "zstd:22": "zstd:22",
		"gzip": "gzip:6", "gzip:9": "gzip:9", "none": "none",
	} {
		if c, err := ParseCompression(text); err != nil || c.String() != want {
			t.Errorf("ParseCompression(%q) = %s, %v, want %s", text, c, err, want)
		}
	}
	for text, want := range map[string]string{
		"":        `compression "": use zstd, gzip or none`,
		"xz":      `compression "xz": use zstd, gzip or none`,
		"zstd:":   "the level of zstd is a number from 1 to 22",
		"zstd:23": "the level of zstd is a number from 1 to 22",
		"zstd:0":  "the level of zstd is a number from 1 to 22",
		"gzip:10": "the level of gzip is a number from 1 to 9",
		"none:1":  "none has no level",
	} {
		if _, err := ParseCompression(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseCompression(%q): error %v, want %q", text, err, want)
		}
	}
}

func TestAddPrefix(t *testing.T) {
	root := tree.NewDir(".")
	root.Mode = 0o750
	moved := AddPrefix("a/b", []tree.Entry{root, tree.NewDir("c")})
	want := "dir     0755 0:0 a\ndir     0750 0:0 a/b\ndir     0755 0:0 a/b/c\n"
	if got := treetest.Dump(t, moved); got != want {
		t.Errorf("moved:\n%swant:\n%s", got, want)
	}
}

// TestFileChangesSize checks that a file that changes during packing is an error.
func TestFileChangesSize(t *testing.T) {
	for content, want := range map[string]string{"ab": "content is shorter", "abcd": "content is longer"} {
		e := tree.NewFile("f", 0o644, "abc")
		e.Open = tree.NewFile("", 0, content).Open
		err := Write(io.Discard, []tree.Entry{e}, compression(t, "none"))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%d bytes for 3: error %v, want %q", len(content), err, want)
		}
	}
}

// TestNoPartialSegment checks that no file remains after an error.
func TestNoPartialSegment(t *testing.T) {
	dir, out := t.TempDir(), t.TempDir()
	f, err := os.Create(filepath.Join(dir, "big"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(1 << 32); err != nil {
		t.Fatal(err)
	}
	err = packer(t, "none", out).Pack(Rootfs{Dir: dir}, "", RulesNone)
	if err == nil || !strings.Contains(err.Error(), "big has 4294967296 bytes") {
		t.Errorf("error %v", err)
	}
	names, err := os.ReadDir(out)
	if err != nil || len(names) > 0 {
		t.Errorf("remaining files: %v, %v", names, err)
	}
}

// BenchmarkPack packs the programs of the Go toolchain and reports the size of the
// segment.
func BenchmarkPack(b *testing.B) {
	root, err := exec.Command("go", "env", "GOTOOLDIR").Output()
	if err != nil {
		b.Fatal(err)
	}
	for _, name := range []string{"none", "gzip:1", "gzip", "zstd:1", "zstd:3", "zstd", "zstd:19"} {
		b.Run(name, func(b *testing.B) {
			entries, err := tree.ReadDir(strings.TrimSpace(string(root)))
			if err != nil {
				b.Fatal(err)
			}
			var size int64
			for _, e := range entries {
				size += e.Size
			}
			b.SetBytes(size)
			c := compression(b, name)
			var out countingWriter
			for b.Loop() {
				out = countingWriter{w: io.Discard}
				if err := Write(&out, entries, c); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(100*float64(out.n)/float64(size), "%size")
		})
	}
}
