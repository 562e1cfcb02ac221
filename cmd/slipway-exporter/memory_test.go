package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// memoryBound is how much memory packer and exporter may use in bytes.
const memoryBound = 256 << 20

// layerOf writes a compressed layer with what fill adds to it.
func layerOf(t *testing.T, dir string, fill func(*tar.Writer) error) string {
	t.Helper()
	name := filepath.Join(dir, "layer")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	compressed, err := zstd.NewWriter(f)
	if err != nil {
		t.Fatal(err)
	}
	archive := tar.NewWriter(compressed)
	for _, step := range []func() error{func() error { return fill(archive) }, archive.Close, compressed.Close} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	return name
}

// deepLinks adds n symbolic links, each to a directory that is levels deep below
// the one before, and a file behind the last.
func deepLinks(w *tar.Writer, n, levels int) error {
	deep := strings.Repeat("d/", levels)
	for i := range n {
		target := deep
		if i > 0 {
			target = fmt.Sprintf("/l%d/%s", i-1, deep)
		}
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: fmt.Sprintf("l%d", i), Linkname: target}); err != nil {
			return err
		}
	}
	return w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("l%d/file", n-1), Mode: 0o644})
}

// TestMemory runs the packer on what a stranger could make of a small image, and
// on large files. It either packs or refuses, in bounded memory.
func TestMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("packs large files")
	}
	files := func(n int, header func(i int) *tar.Header) func(*tar.Writer) error {
		return func(w *tar.Writer) error {
			for i := range n {
				if err := w.WriteHeader(header(i)); err != nil {
					return err
				}
			}
			return nil
		}
	}
	for name, c := range map[string]struct {
		fill     func(*tar.Writer) error
		refused  string   // the message; "": the packer packs it
		archives []string // default: both
	}{
		"deep links": {
			fill:    func(w *tar.Writer) error { return deepLinks(w, 30, 2000) },
			refused: "symbolic links lead to a path of 4097 bytes: Linux allows 4095",
		},
		"deep directories": {
			fill: files(30_000, func(i int) *tar.Header {
				return &tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("%d/%sfile", i, strings.Repeat("d/", 2000)), Mode: 0o644}
			}),
			refused: "more than",
		},
		"many files": {
			fill: files(190_000, func(i int) *tar.Header {
				return &tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("%d/%d-%s", i%100, i, strings.Repeat("n", 100)), Mode: 0o644}
			}),
			archives: []string{"cpio"}, // it takes seconds
		},
		"too many files": {
			fill: files(300_000, func(i int) *tar.Header {
				return &tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprint(i), Mode: 0o644}
			}),
			refused: "more than 200000 files",
		},
		"large attributes": {
			fill: files(1000, func(i int) *tar.Header {
				return &tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprint(i), Mode: 0o644, PAXRecords: map[string]string{"SCHILY.xattr.user.x": strings.Repeat("x", 60<<10)}}
			}),
			refused: "MiB of paths, link targets and extended attributes",
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			layer := layerOf(t, dir, c.fill)
			if c.archives == nil {
				c.archives = []string{"cpio", "tar"}
			}
			for _, archive := range c.archives {
				out := filepath.Join(dir, archive)
				if err := os.Mkdir(out, 0o755); err != nil {
					t.Fatal(err)
				}
				memory, stderr, err := peakMemory("slipway-packer", "pack", "--layer", layer, "--prefix", "containers/services/x/lower", "--rules", "container", "--archive", archive, "--out", out)
				if (err != nil) != (c.refused != "") || !strings.Contains(stderr, c.refused) {
					t.Errorf("%s: %v, %q, want %q", archive, err, stderr, c.refused)
				}
				if memory > memoryBound {
					t.Errorf("%s: %d MiB of memory, want at most %d", archive, memory>>20, memoryBound>>20)
				}
				t.Logf("%s: %d MiB", archive, memory>>20)
			}
		})
	}

	t.Run("large files", func(t *testing.T) {
		dir := t.TempDir()
		random := rand.New(rand.NewPCG(1, 2))
		for _, name := range []string{"a", "b", "c"} {
			writeRandom(t, filepath.Join(dir, name), random, 200<<20)
		}
		for _, compression := range []string{"zstd:3", "zstd:19", "gzip"} {
			out := t.TempDir()
			memory, stderr, err := peakMemory("slipway-packer", "pack", "--in", dir, "--rules", "none", "--compression", compression, "--out", out)
			if err != nil {
				t.Errorf("%s: %v, %s", compression, err, stderr)
			}
			if memory > memoryBound {
				t.Errorf("%s: %d MiB of memory, want at most %d", compression, memory>>20, memoryBound>>20)
			}
			t.Logf("%s: %d MiB", compression, memory>>20)
		}
	})
}

// TestMemoryOfSource packs a file of 1 GiB that the YAML names as a source.
func TestMemoryOfSource(t *testing.T) {
	if testing.Short() {
		t.Skip("packs a large file")
	}
	dir := t.TempDir()
	source := filepath.Join(dir, "source")
	if err := os.Mkdir(source, 0o755); err != nil {
		t.Fatal(err)
	}
	disk := filepath.Join(source, "disk.raw")
	if err := os.WriteFile(disk, []byte("a disk"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(disk, 1<<30); err != nil {
		t.Fatal(err)
	}
	spec := filepath.Join(dir, "spec")
	if err := os.WriteFile(spec, []byte(`[{"path": "images", "type": "dir", "mode": 493}, {"path": "images/disk.raw", "type": "file", "mode": 420, "source": "disk.raw"}]`), 0o644); err != nil {
		t.Fatal(err)
	}
	memory, stderr, err := peakMemory("slipway-packer", "entries", "--spec", spec, "--source", source, "--compression", "zstd:3", "--out", t.TempDir())
	if err != nil {
		t.Fatalf("%v, %s", err, stderr)
	}
	if memory > memoryBound {
		t.Errorf("%d MiB of memory, want at most %d", memory>>20, memoryBound>>20)
	}
	t.Logf("%d MiB", memory>>20)
}

// peakMemory runs a program of the build and returns the most memory that it used
// at once, in bytes.
func peakMemory(program string, args ...string) (memory int64, stderr string, err error) {
	cmd := exec.Command(filepath.Join(bin, program), args...)
	cmd.Env = append(os.Environ(), "GOMAXPROCS=16")
	var log bytes.Buffer
	cmd.Stderr = &log
	err = cmd.Run()
	return cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10, log.String(), err
}

// writeRandom writes a file that cannot be compressed.
func writeRandom(t *testing.T, name string, random *rand.Rand, size int) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := bufio.NewWriter(f)
	var word [8]byte
	for range size / len(word) {
		n := random.Uint64()
		for i := range word {
			word[i] = byte(n >> (8 * i))
		}
		if _, err := w.Write(word[:]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
}
