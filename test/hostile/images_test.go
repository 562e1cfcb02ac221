package hostile

import (
	"archive/tar"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/slipway-build/slipway/exporter/tree"
	"github.com/slipway-build/slipway/internal/testutil/stack"
)

// An image is made of layers. The layers of an image are compressed, which
// hides the sizes of bombs.
type image struct {
	name   string
	layers [][]file
	media  types.MediaType // of the layers; default: OCI's, with gzip
	plain  bool            // whatever the media type says, the layers are not compressed
	urls   []string        // of all layers
	labels map[string]string
}

// identity makes a layer whose diff ID is that of the uncompressed content.
type identity struct {
	v1.Layer
	diffID v1.Hash
}

func (l identity) DiffID() (v1.Hash, error) { return l.diffID, nil }

// build returns the image for the registry or a layout.
func (i image) build(t testing.TB) v1.Image {
	t.Helper()
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	for _, files := range i.layers {
		data := archive(t, files)
		stored := data
		if !i.plain {
			stored = compress(t, data)
		}
		media := i.media
		if media == "" {
			media = types.OCILayer
		}
		uncompressed, err := static.NewLayer(data, types.OCIUncompressedLayer).Digest()
		if err != nil {
			t.Fatal(err)
		}
		img, err = mutate.Append(img, mutate.Addendum{
			Layer: identity{static.NewLayer(stored, media), uncompressed}, MediaType: media, URLs: i.urls,
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", "amd64"
	config.Config.Cmd = []string{"/proc/run"} // a build cannot know what is there
	config.Config.Labels = i.labels
	if img, err = mutate.ConfigFile(img, config); err != nil {
		t.Fatal(err)
	}
	return img
}

// ref is the reference of the image in the stack's registry.
func (i image) ref() string { return stack.Registry + "/test/hostile/" + i.name + ":v1" }

// prefix is the place of its files in a machine with it as a service.
func (i image) prefix() string { return "containers/services/" + i.name + "/rootfs" }

// push puts an image into a registry.
func push(t testing.TB, ref string, img v1.Image) {
	t.Helper()
	tag, err := name.NewTag(ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(tag, img, remote.WithNondistributable); err != nil {
		t.Fatal(err)
	}
}

// A store is an OCI layout.
type store struct {
	dir  string
	path layout.Path
}

func newStore(t testing.TB) *store {
	t.Helper()
	s := &store{dir: t.TempDir()}
	var err error
	if s.path, err = layout.Write(s.dir, empty.Index); err != nil {
		t.Fatal(err)
	}
	return s
}

// add stores an image and returns the argument that makes the build use it in
// place of the one in the registry.
func (s *store) add(t testing.TB, ref string, img v1.Image) string {
	t.Helper()
	if err := s.path.AppendImage(img); err != nil {
		t.Fatal(err)
	}
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return s.use(ref, digest)
}

func (s *store) use(ref string, digest v1.Hash) string {
	return "--build-context=" + ref + "=oci-layout://" + s.dir + "@" + digest.String()
}

// corrupt changes a byte of the first layer of an image in the layout.
func (s *store) corrupt(t testing.TB, img v1.Image) {
	t.Helper()
	manifest, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	blob := filepath.Join(s.dir, "blobs", "sha256", manifest.Layers[0].Digest.Hex)
	data, err := os.ReadFile(blob)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(blob, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// label returns a label that configures the container.
func label(t testing.TB, config map[string]any) map[string]string {
	t.Helper()
	data, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]string{"org.mobyproject.config": string(data)}
}

var long = strings.Repeat("n", 255)

// oddNames are names that programs may take for something else.
var oddNames = []string{
	"-rf", "--help", "*", "?", "[a]", "~", "$(reboot)", "`reboot`", "${HOME}", "%s%n", "a b", " lead", "trail ", "a\\b", "a\\nb", `"quoted"`, "'", "a;b|c&d",
	"new\nline", "tab\t", "esc\x1b[31m", "cr\r", "del\x7f", "ünïcödé", "e\u0301", "\u202egpj", "\xff\xfe", "con", "aux.", "...", "..a", "a..", ".hidden",
	"TRAILER!!!", "x.wh.y", "AbC", "aBc", "lost+found", "c0\x01", "=", "a=b", "a,b", "a:b", "<>", "\U0001f6a2", long,
}

// An acceptedImage has the files that it makes, without directories.
type acceptedImage struct {
	image
	want []tree.Entry
}

// accepted are images that must build, with the files that they make: one line
// each, as treetest.Dump writes them, without the directories.
func accepted() []acceptedImage {
	var odd []string
	var oddWant []tree.Entry
	for _, n := range oddNames {
		odd = append(odd, "odd/"+n)
	}
	var oddFiles []file
	for _, n := range odd {
		oddFiles = append(oddFiles, reg(n, "x"))
		oddWant = append(oddWant, regular(n, "x"))
	}
	deep := strings.Repeat("d/", 400) + "end"
	suid := tree.NewFile("d/suid", tree.SetUID|tree.SetGID|0o755, "x")
	suid.UID, suid.GID = 70000, 80000
	layers := func(l ...[]file) [][]file { return l }
	return []acceptedImage{
		{image{name: "links", layers: layers(
			[]file{symlink("up", "../../../../../../etc"), symlink("abs", "/etc"), symlink("loop", "loop"), symlink("a", "b"), symlink("b", "a"), symlink("dangling", "/no/such"), symlink("root", "/proc/self/root"), dir("etc"),
				reg("up/one", "1"), reg("abs/two", "2")},
		)}, []tree.Entry{link("up", "../../../../../../etc"), link("abs", "/etc"), link("loop", "loop"), link("a", "b"), link("b", "a"), link("dangling", "/no/such"), link("root", "/proc/self/root"), regular("etc/one", "1"), regular("etc/two", "2")}},
		{image{name: "lower-links", layers: layers(
			// Neither BuildKit nor Docker follows the links of a lower layer.
			[]file{dir("real"), reg("real/kept", "0"), symlink("link", "real"), symlink("dangling", "no"), reg("file", "x"), symlink("opaque", "/real")},
			[]file{reg("link/x", "1"), reg("dangling/a/b", "2"), reg("file/x", "3"), reg("opaque/.wh..wh..opq", ""), reg("none/.wh..wh..opq", "")},
		)}, []tree.Entry{regular("real/kept", "0"), regular("link/x", "1"), regular("dangling/a/b", "2"), regular("file/x", "3")}},
		{image{name: "absolute", layers: layers([]file{reg("/abs", "1"), reg("./dot", "2"), reg("//twice", "3"), reg("x/./y", "4")})},
			[]tree.Entry{regular("abs", "1"), regular("dot", "2"), regular("twice", "3"), regular("x/y", "4")}},
		{image{name: "odd", layers: layers(oddFiles)}, oddWant},
		{image{name: "deep", layers: layers([]file{reg(deep, "x")})}, []tree.Entry{regular(deep, "x")}},
		{image{name: "targets", layers: layers([]file{symlink("long", strings.Repeat("../", 1364)+"end"), symlink("odd", "new\nline\x1b")})},
			[]tree.Entry{link("long", strings.Repeat("../", 1364)+"end"), link("odd", "new\nline\x1b")}},
		{image{name: "hardlinks", layers: layers(
			[]file{reg("h/a", "x"), hardlink("h/b", "h/a"), hardlink("h/c", "h/b"), hardlink("/h/d", "/h/c")},
			[]file{reg("h/a", "new")},
		)}, []tree.Entry{regular("h/a", "new"), linked("h/b"), linked("h/c"), linked("h/d")}},
		{image{name: "devices", layers: layers([]file{
			special(tar.TypeChar, "d/mem", 0o666, 1, 1), special(tar.TypeBlock, "d/disk", 0o666, 8, 1), special(tar.TypeFifo, "d/fifo", 0o666, 0, 0),
			{Header: tar.Header{Typeflag: tar.TypeReg, Name: "d/suid", Mode: 0o6755, Uid: 70000, Gid: 80000}, content: "x"},
		})}, []tree.Entry{
			{Path: "d/mem", Type: tree.Char, Mode: 0o666, Major: 1, Minor: 1}, {Path: "d/disk", Type: tree.Block, Mode: 0o666, Major: 8, Minor: 1},
			{Path: "d/fifo", Type: tree.FIFO, Mode: 0o666}, suid,
		}},
		{image{name: "xattrs", layers: layers([]file{withXattr(reg("x/cap", "x"), "security.capability", capability), withXattr(reg("x/user", "x"), "user."+strings.Repeat("u", 250), "new\nline\x00")})},
			[]tree.Entry{attributed("x/cap", "security.capability", capability), attributed("x/user", "user."+strings.Repeat("u", 250), "new\nline\x00")}},
		{image{name: "whiteouts", layers: layers(
			[]file{reg("w/gone", "x"), reg("w/kept", "x"), reg("o/gone", "x"), reg("o/dir/gone", "x"), reg("t/dir/gone", "x"), symlink("s", "w")},
			[]file{reg("w/.wh.gone", ""), reg("w/.wh.missing", ""), reg("o/.wh..wh..opq", ""), reg("o/new", "y"), reg(".wh.t", "")},
		)}, []tree.Entry{regular("w/kept", "x"), regular("o/new", "y"), link("s", "w")}},
		{image{name: "pax", layers: layers([]file{
			{Header: tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"path": "evil", "uid": "7"}}},
			reg("p/once", "1"), reg("p/once", "2"), symlink("p/was-link", "/etc"), reg("p/was-link", "3"),
			{raw: append(append(pax(record("path", "p/renamed")), rawHeader("p/header", '0', 1)...), append([]byte("4"), make([]byte, 511)...)...)},
		})}, []tree.Entry{regular("p/once", "2"), regular("p/was-link", "3"), regular("p/renamed", "4")}},
		{image{name: "zeros", layers: layers([]file{reg("zeros", strings.Repeat("\x00", 8<<20))})}, []tree.Entry{regular("zeros", strings.Repeat("\x00", 8<<20))}},
		{image{name: "label", layers: layers([]file{reg("x", "x")}), labels: map[string]string{"large": strings.Repeat("x", 3<<20)}}, []tree.Entry{regular("x", "x")}},
		{image{name: "media", layers: layers([]file{reg("x", "x")}), media: types.DockerLayer, plain: true}, []tree.Entry{regular("x", "x")}},
	}
}

const capability = "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

func regular(path, content string) tree.Entry { return tree.NewFile(path, 0o644, content) }

func link(path, target string) tree.Entry { return tree.NewSymlink(path, target) }

func linked(path string) tree.Entry {
	e := regular(path, "x")
	e.Inode = 1
	return e
}

func attributed(path, name, value string) tree.Entry {
	e := regular(path, "x")
	e.Xattrs = map[string]string{name: value}
	return e
}

// A refusedImage has the errors of the builds from an OCI layout and from the
// registry. If one is "", the build from there succeeds.
type refusedImage struct {
	image
	layout, registry string
}

// refused are images that must fail. The message of a registry image can be
// BuildKit's, which unpacks it.
func refused(t testing.TB) []refusedImage {
	one := func(f ...file) [][]file { return [][]file{f} }
	deepLink := []file{symlink("l0", strings.Repeat("d/", 1000)+"d")}
	for i := 1; i < 39; i++ {
		deepLink = append(deepLink, symlink(fmt.Sprintf("l%d", i), fmt.Sprintf("l%d/%s", i-1, strings.Repeat("d/", 1000)+"d")))
	}
	deepLink = append(deepLink, reg("l38/x", "x"))
	return []refusedImage{
		{image{name: "up", layers: one(reg("../../etc/passwd", "x"))}, "leads out of the root", ""},
		{image{name: "up-link", layers: one(hardlink("x", "../../etc/passwd"))}, "leads out of the root", "etc/passwd"},
		{image{name: "long-name", layers: one(reg("big/"+long+"n", "x"), reg("big/ok", "x"))}, "has 256 bytes: Linux allows 255", "file name too long"},
		{image{name: "long-path", layers: one(reg(strings.Repeat("d/", 2048)+"x", "x"))}, "bytes: Linux allows 4095", "name too long"},
		{image{name: "long-target", layers: one(symlink("x", strings.Repeat("t", 4096)))}, "has 4096 bytes: Linux allows 4095", "name too long"},
		{image{name: "long-xattr", layers: one(withXattr(reg("x", "x"), "user."+strings.Repeat("u", 251), "v"))}, "the name has 256 bytes: Linux allows 255", "x"},
		{image{name: "large-xattr", layers: one(withXattr(reg("x", "x"), "user.x", strings.Repeat("v", 70_000)))}, "has 70000 bytes: Linux allows 65536", "x"},
		{image{name: "xattr-path", layers: one(withXattr(reg("\xff", "x"), "user.x", "v"))}, "must be valid UTF-8", "must be valid UTF-8"},
		{image{name: "deep-links", layers: one(deepLink...)}, "Linux allows", "x"},
		{image{name: "sparse-map", layers: one(file{raw: unboundedSparseMap()})}, "sparse", "sparse"},
		{image{name: "cycle", layers: one(hardlink("a", "b"), hardlink("b", "a"))}, "which has no earlier entry", "no such file"},
		{image{name: "link-to-dir", layers: one(dir("d"), hardlink("l", "d"))}, "which is a directory", "l"},
		{image{name: "below-file", layers: one(reg("f", "x"), reg("f/x", "x"))}, "f", "not a directory"},
		{image{name: "socket", layers: one(special('s', "sock", 0o644, 0, 0))}, "is not supported", "unhandled tar header type"},
		{image{name: "truncated", layers: one(file{raw: rawHeader("x", '0', 1<<40)})}, "damaged", "unexpected EOF"},
		{image{name: "negative", layers: one(file{raw: append(pax(record("size", "-1")), rawHeader("x", '0', 0)...)})}, "damaged", "invalid tar header"},
		{image{name: "garbage", layers: one(file{raw: []byte(strings.Repeat("garbage ", 200))})}, "not an uncompressed tar archive", "invalid tar header"},
		{image{name: "root-link", layers: one(symlink("./", "/etc"))}, "the root cannot be a symlink", ""},
		{image{name: "label-json", layers: one(reg("x", "x")), labels: map[string]string{"org.mobyproject.config": "{\"binds\": [\"\x1b[2J\"]"}}, "label", "label"},
		{image{name: "label-large", layers: one(reg("x", "x")), labels: label(t, map[string]any{"env": []string{strings.Repeat("x", 10<<20)}})}, "", ""},
		{image{name: "whiteout-nowhere", layers: one(reg("none/.wh.x", ""), reg("x", "x"))}, "", ""},
		{image{name: "whiteout-below-link", layers: [][]file{{reg("real/x", "x"), symlink("link", "real")}, {reg("link/.wh.x", "")}}}, "", "no such file"},
		{image{name: "label-key", layers: one(reg("x", "x")), labels: label(t, map[string]any{"\x1b[31mkey": 1})}, "unknown key", "unknown key"},
	}
}
