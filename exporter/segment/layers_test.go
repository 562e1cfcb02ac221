package segment

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
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

	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/gzip"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/exporter/tree"
	"github.com/slipway-build/slipway/internal/testutil/treetest"
)

// corpus has small images with everything that layers can contain.
const corpus = "../../test/conformance/testdata/images"

// corpusImages returns the layers of each image of the corpus, by name.
func corpusImages(t *testing.T) map[string][]string {
	t.Helper()
	need.Root(t)
	blob := func(d digest.Digest) string {
		return filepath.Join(corpus, "blobs", d.Algorithm().String(), d.Encoded())
	}
	read := func(name string, into any) {
		t.Helper()
		data, err := os.ReadFile(name)
		if err == nil {
			err = json.Unmarshal(data, into)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	images := map[string][]string{}
	var top, index ocispec.Index
	read(filepath.Join(corpus, "index.json"), &top)
	for _, image := range top.Manifests {
		read(blob(image.Digest), &index)
		for _, d := range index.Manifests {
			if d.Platform == nil || d.Platform.OS != "linux" {
				continue // an attestation
			}
			var manifest ocispec.Manifest
			read(blob(d.Digest), &manifest)
			name := image.Annotations[ocispec.AnnotationRefName] + " " + d.Platform.Architecture
			for _, layer := range manifest.Layers {
				images[name] = append(images[name], blob(layer.Digest))
			}
		}
	}
	return images
}

// checkSegments compares the segment of layers with that of the directory that
// they unpack to.
func checkSegments(t *testing.T, layers []string, dir string) {
	t.Helper()
	fromDir, fromLayers := t.TempDir(), t.TempDir()
	for _, archive := range []Archive{CPIO, Tar} {
		for _, rules := range []Rules{RulesNone, RulesInit, RulesContainer} {
			for out, image := range map[string]Rootfs{fromDir: {Dir: dir}, fromLayers: {Layers: layers}} {
				p := packer(t, "none", out)
				p.Archive = archive
				if err := p.Pack(image, "a/b", rules); err != nil {
					t.Fatal(err)
				}
			}
			if read(t, fromDir, FileName) != read(t, fromLayers, FileName) {
				t.Errorf("%s, %s: the segments differ", archive, rules)
			}
		}
	}
}

func dumpDir(t *testing.T, dir string) string {
	t.Helper()
	entries, err := tree.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return treetest.Dump(t, entries)
}

func dumpLayers(t *testing.T, layers []string) string {
	t.Helper()
	entries, closeTree, err := Rootfs{Layers: layers}.read(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer closeTree()
	return treetest.Dump(t, entries)
}

// Layers must read as the tree that GNU tar unpacks.
func TestLayersLikeGNUTar(t *testing.T) {
	need.Program(t, "tar", "tar")
	for name, layers := range corpusImages(t) {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for _, layer := range layers {
				// What the layer hides or replaces goes first, then what it has comes.
				script := `set -e
					tar -tf "$1" | while read -r name; do
						base=$(basename "$name") dir=$(dirname "$name")
						case $base in
						.wh..wh..opq) find "$dir" -mindepth 1 -delete ;;
						.wh.*) rm -rf "$dir/${base#.wh.}" ;;
						*) case $name in */) ;; *) [ ! -d "$name" -o -L "$name" ] || rm -rf "$name" ;; esac ;;
						esac
					done
					tar -xpf "$1" --numeric-owner --xattrs --xattrs-include='*' --exclude='.wh.*'`
				layer, err := filepath.Abs(layer)
				if err != nil {
					t.Fatal(err)
				}
				cmd := exec.Command("bash", "-c", script, "-", layer)
				cmd.Dir = dir
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
			}
			if diff := cmp.Diff(dumpDir(t, dir), dumpLayers(t, layers)); diff != "" {
				t.Errorf("tree (-unpacked +layers):\n%s", diff)
			}
			checkSegments(t, layers, dir)
		})
	}
}

// Layers must read as the tree that containerd unpacks, as it does for BuildKit.
func TestLayersLikeContainerd(t *testing.T) {
	for name, layers := range corpusImages(t) {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			files := map[string]*tar.Header{}
			for _, layer := range uncompress(t, layers) {
				layer := bytes.NewReader(withLinkAttributes(t, layer, files))
				if _, err := archive.Apply(context.Background(), dir, layer); err != nil {
					t.Fatal(err)
				}
			}
			want, got := dumpDir(t, dir), dumpLayers(t, layers)
			if strings.Contains(name, "app/filters") {
				// containerd ignores what a layer says of the root.
				_, want, _ = strings.Cut(want, "\n")
				_, got, _ = strings.Cut(got, "\n")
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("tree (-unpacked +layers):\n%s", diff)
			}
		})
	}
}

// withLinkAttributes sets the attributes in the headers of hard links to those of
// their targets. The corpus has others, which containerd applies to the targets.
func withLinkAttributes(t *testing.T, layer string, files map[string]*tar.Header) []byte {
	t.Helper()
	f, err := os.Open(layer)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out bytes.Buffer
	r, w := tar.NewReader(f), tar.NewWriter(&out)
	for {
		hdr, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if hdr.Typeflag == tar.TypeLink {
			target := files[hdr.Linkname]
			hdr.Mode, hdr.Uid, hdr.Gid = target.Mode, target.Uid, target.Gid
		}
		files[hdr.Name] = hdr
		if err := w.WriteHeader(hdr); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(w, r); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// The test changes a root filesystem at random, and containerd creates layers of
// the changes. They must read as the final root filesystem.
func TestLayersOfChanges(t *testing.T) {
	need.Program(t, "cp", "coreutils")
	need.Root(t)
	for seed := range 40 {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewSource(int64(seed)))
			work := t.TempDir()
			var layers []string
			lower := ""
			for i := range 4 {
				upper := filepath.Join(work, fmt.Sprint(i))
				if lower == "" {
					if err := os.Mkdir(upper, 0o755); err != nil {
						t.Fatal(err)
					}
				} else if out, err := exec.Command("cp", "-a", lower, upper).CombinedOutput(); err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
				change(t, r, upper)
				layer := filepath.Join(work, fmt.Sprint(i, ".tar"))
				f, err := os.Create(layer)
				if err != nil {
					t.Fatal(err)
				}
				if err := archive.WriteDiff(context.Background(), f, lower, upper); err != nil {
					t.Fatal(err)
				}
				if err := f.Close(); err != nil {
					t.Fatal(err)
				}
				layers = append(layers, layer)
				if diff := cmp.Diff(dumpDir(t, upper), dumpLayers(t, layers)); diff != "" {
					t.Fatalf("layer %d: tree (-directory +layers):\n%s", i, diff)
				}
				lower = upper
			}
			checkSegments(t, layers, lower)
		})
	}
}

// change makes random changes below dir. It uses few names, so that changes
// affect each other.
func change(t *testing.T, r *rand.Rand, dir string) {
	t.Helper()
	names := []string{"a", "b", "c", "d"}
	pick := func() string {
		name := dir
		for range 1 + r.Intn(3) {
			if info, err := os.Lstat(name); err != nil || !info.IsDir() {
				break
			}
			name = filepath.Join(name, names[r.Intn(len(names))])
		}
		return name
	}
	for i := range 30 {
		name := pick()
		if r.Intn(3) == 0 {
			if err := os.RemoveAll(name); err != nil {
				t.Fatal(err)
			}
		}
		var err error
		switch r.Intn(8) {
		case 0, 1:
			err = os.Mkdir(name, 0o755)
		case 2, 3:
			if info, statErr := os.Lstat(name); statErr != nil || info.Mode().IsRegular() {
				os.Remove(name) // a new file, not new content of others
				err = os.WriteFile(name, bytes.Repeat([]byte{'a' + byte(i)}, r.Intn(1000)), 0o644)
			}
		case 4:
			err = os.Symlink(names[r.Intn(len(names))], name)
		case 5:
			if from := pick(); from != dir {
				err = os.Link(from, name)
			}
		case 6:
			err = unix.Mknod(name, unix.S_IFCHR|0o600, int(unix.Mkdev(1, uint32(r.Intn(9)))))
		case 7:
			if info, statErr := os.Lstat(name); statErr == nil && info.Mode()&os.ModeSymlink == 0 {
				err = firstError(os.Lchown(name, r.Intn(9), r.Intn(1<<22)), os.Chmod(name, os.FileMode(r.Intn(0o1000))))
			}
		}
		// Not every change is possible with what is there.
		if err != nil && !os.IsExist(err) && !os.IsNotExist(err) && !os.IsPermission(err) {
			t.Fatal(err)
		}
	}
}

// The segment of layers depends neither on their compression nor on the number of
// processors.
func TestLayersAreDeterministic(t *testing.T) {
	layers := corpusImages(t)["example.test/os/layers:1 amd64"]
	for _, form := range []Archive{CPIO, Tar} {
		var first string
		for _, layers := range [][]string{layers, uncompress(t, layers)} {
			for _, procs := range []int{1, 4} {
				old := runtime.GOMAXPROCS(procs)
				defer runtime.GOMAXPROCS(old)
				out := t.TempDir()
				p := packer(t, "zstd", out)
				if p.Archive = form; form == Tar {
					p.Compression = compression(t, "none")
				}
				if err := p.Pack(Rootfs{Layers: layers}, "", RulesInit); err != nil {
					t.Fatal(err)
				}
				got := read(t, out, FileName)
				if first == "" {
					first = got
				}
				if got != first {
					t.Errorf("%s, GOMAXPROCS=%d: other bytes", form, procs)
				}
			}
		}
	}
}

func uncompress(t *testing.T, layers []string) []string {
	t.Helper()
	var names []string
	dir := t.TempDir()
	for i, layer := range layers {
		f, err := os.Open(layer)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		r, err := gzip.NewReader(f)
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, filepath.Join(dir, fmt.Sprint(i)))
		if err := os.WriteFile(names[i], data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return names
}

// BenchmarkImage reads the programs of the Go toolchain, unpacked and as a layer,
// and writes an uncompressed segment.
func BenchmarkImage(b *testing.B) {
	need.Program(b, "tar", "tar")
	need.Program(b, "gzip", "gzip")
	need.Program(b, "zstd", "zstd")
	root, err := exec.Command("go", "env", "GOTOOLDIR").Output()
	if err != nil {
		b.Fatal(err)
	}
	dir := strings.TrimSpace(string(root))
	images := map[string]Rootfs{"directory": {Dir: dir}}
	work := b.TempDir()
	for name, filter := range map[string]string{"tar": "cat", "gzip": "gzip", "zstd": "zstd -q"} {
		layer := filepath.Join(work, name)
		if out, err := exec.Command("bash", "-c", "tar -C "+dir+" -c . | "+filter+" > "+layer).CombinedOutput(); err != nil {
			b.Fatalf("%v\n%s", err, out)
		}
		images[name] = Rootfs{Layers: []string{layer}}
	}
	for _, name := range []string{"directory", "tar", "gzip", "zstd"} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				entries, close, err := images[name].read(work)
				if err != nil {
					b.Fatal(err)
				}
				out := countingWriter{w: io.Discard}
				if err := Write(&out, entries, compression(b, "none")); err != nil {
					b.Fatal(err)
				}
				close()
				b.SetBytes(out.n)
			}
		})
	}
}
