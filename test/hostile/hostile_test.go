// Package hostile builds machines of images and YAML that somebody made to
// harm: to write outside of their place, to exhaust memory, to change the
// meaning of a boot entry, or to make the builder contact a server. A build
// either makes exactly the files that are right, or fails with a message about
// a line of the YAML.
package hostile

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/slipway-build/slipway/internal/testutil/buildkitd"
	"github.com/slipway-build/slipway/internal/testutil/stack"
)

const syntax = "# syntax=slipwaybuild/slipway:1\n"

// newDir returns a new directory with a machine YAML.
func newDir(t testing.TB, text string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "machine.yml"), []byte(syntax+text), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// build builds the machine YAML in a directory and returns what buildx prints.
func build(dir string, args ...string) (string, error) {
	_, stderr, err := stack.Buildx(dir, append(args, "--progress=plain", "-f", "machine.yml", ".")...)
	return stderr, err
}

// service returns the YAML of a service, without warnings.
func service(name, ref string) string {
	return fmt.Sprintf("  - name: %s\n    image: %s\n    readonly: true\n    readonlyPaths: [/proc/sys]\n", name, ref)
}

// TestAccepted builds all accepted images in one machine, from the registry and
// from an OCI layout, to all formats, and compares each file with what is right.
func TestAccepted(t *testing.T) {
	stack.Require(t)
	yaml := "kernel:\n  image: slipwaybuild/kernel:v1\n  cmdline: console=ttyS0\ninit:\n  - slipwaybuild/init:v1\n  - slipwaybuild/runc:v1\nservices:\n"
	images, layouts := accepted(), newStore(t)
	var contexts []string
	for _, i := range images {
		img := i.build(t)
		push(t, i.ref(), img)
		contexts = append(contexts, layouts.add(t, i.ref(), img))
		yaml += service(i.name, i.ref())
	}
	dir := newDir(t, yaml)
	// Formats whose files have the same names cannot be built together.
	for i, group := range []string{"tar,kernel+initrd,raw,iso,raw-verity", "kernel+squashfs", "kernel+erofs"} {
		out := filepath.Join(dir, fmt.Sprint("out", i)) // docker buildx takes no comma
		registry, layout := filepath.Join(out, "registry"), filepath.Join(out, "layout")
		target := "--target=" + group
		if out, err := build(dir, target, "-o", registry); err != nil {
			t.Fatalf("%s from the registry: %v\n%s", group, err, shorten(out))
		}
		if out, err := build(dir, append(contexts, target, "-o", layout)...); err != nil {
			t.Fatalf("%s from a layout: %v\n%s", group, err, shorten(out))
		}
		files, err := os.ReadDir(registry)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			sameFile(t, filepath.Join(registry, f.Name()), filepath.Join(layout, f.Name()))
		}
		for name := range strings.SplitSeq(group, ",") {
			i := slices.IndexFunc(formats, func(f fileFormat) bool { return f.name == name })
			t.Run(name, func(t *testing.T) { formats[i].compare(t, registry, images) })
		}
	}
}

// TestRefused builds the images that must not become part of a machine.
func TestRefused(t *testing.T) {
	stack.Require(t)
	layouts := newStore(t)
	for _, i := range refused(t) {
		img := i.build(t)
		push(t, i.ref(), img)
		context := layouts.add(t, i.ref(), img)
		for _, source := range []struct {
			name, want string
			args       []string
		}{
			{"layout", i.layout, []string{context}},
			{"registry", i.registry, nil},
		} {
			t.Run(i.name+" from a "+source.name, func(t *testing.T) {
				dir := newDir(t, "services:\n"+service("hostile", i.ref()))
				out, err := build(dir, append(source.args, "--target=tar", "-o", "out")...)
				expect(t, dir, out, err, source.want, ">>>     image: "+i.ref())
			})
		}
	}
	t.Run("wrong digest", func(t *testing.T) {
		i := image{name: "wrong-digest", layers: [][]file{{reg("x", strings.Repeat("x", 1000))}}}
		img := i.build(t)
		context := layouts.add(t, i.ref(), img)
		layouts.corrupt(t, img)
		dir := newDir(t, "services:\n"+service("hostile", i.ref()))
		out, err := build(dir, context, "--target=tar", "-o", "out")
		expect(t, dir, out, err, "digest", "")
	})
}

// expect checks a build that must fail with a message, on a line of the YAML if
// one is responsible. Without a message, the build must succeed.
func expect(t *testing.T, dir, out string, err error, want, line string) {
	t.Helper()
	files, _ := os.ReadDir(filepath.Join(dir, "out"))
	switch {
	case want == "" && err != nil:
		t.Errorf("the build failed: %v", err)
	case want == "":
		contained(t, filepath.Join(dir, "out", "machine.tar"))
	case err == nil:
		t.Errorf("the build succeeded; it must fail with %q", want)
	case !strings.Contains(out, want):
		t.Errorf("the output lacks %q", want)
	case !strings.Contains(out, line):
		t.Errorf("the output lacks the line %q", line)
	case len(files) > 0:
		t.Errorf("the failed build left %v", files)
	}
	printable(t, out)
	if t.Failed() {
		t.Log(shorten(out))
	}
}

// contained reports an error if a machine without an init has files outside of
// its containers and its modules.
func contained(t *testing.T, file string) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Error(err)
			return
		}
		if h.Typeflag != tar.TypeDir && !strings.HasPrefix(h.Name, "containers/services/hostile/") && !expected[h.Name] {
			t.Errorf("the machine has the file %q", h.Name)
		}
	}
}

// expected are the files of TestKernelTar.
var expected = map[string]bool{"boot/kernel": true, "boot/cmdline": true, "lib/modules/1/x": true, "up": true}

// printable reports an error if a text changes the terminal that shows it.
func printable(t *testing.T, out string) {
	t.Helper()
	for _, r := range out {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			t.Errorf("the output has the control character %q", r)
			return
		}
	}
}

func shorten(s string) string {
	const limit = 4000
	if len(s) > limit {
		return "…" + s[len(s)-limit:]
	}
	return s
}

// TestForeignLayers builds images whose layers name a URL. No request leaves for
// it if the image is in an OCI layout. BuildKit asks for layers of a registry, as
// docs/explanation/security.md says, without the credentials for the registry.
func TestForeignLayers(t *testing.T) {
	stack.Require(t)
	requests := make(chan *http.Request, 100)
	foreign := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests <- r
		http.Error(w, "none", http.StatusNotFound)
	}))
	t.Cleanup(foreign.Close)
	// The stack's registry rejects such images.
	images := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(images.Close)
	host := strings.TrimPrefix(images.URL, "http://")
	for builder, binary := range map[string]string{"current": "", "oldest": stack.File(t, "oldest", "buildkitd")} {
		d, err := buildkitd.Start(t.Context(), buildkitd.Config{Binary: binary, Registries: []string{host}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := d.Stop(); err != nil {
				t.Error(err)
			}
		})
		layouts := newStore(t)
		for i, media := range []types.MediaType{types.DockerForeignLayer, types.OCIRestrictedLayer, types.OCILayer} {
			for _, source := range []string{"registry", "layout"} {
				image := image{
					name: fmt.Sprintf("foreign-%s-%d", source, i), layers: [][]file{{reg("x", fmt.Sprint(builder, source, i))}}, media: media,
					urls: []string{foreign.URL + "/layer"},
				}
				img := image.build(t)
				ref := host + "/" + image.name + ":v1"
				push(t, ref, img)
				args := []string{"--progress=plain", "--target=tar", "-o", "out", "-f", "machine.yml", "."}
				if source == "layout" {
					args = append(args, layouts.add(t, ref, img))
				}
				dir := newDir(t, "services:\n"+service("hostile", ref))
				cmd := d.Build(t.Context(), args...)
				cmd.Dir = dir
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Errorf("%s, %s from a %s: %v\n%s", builder, media, source, err, shorten(string(out)))
					continue
				}
				contained(t, filepath.Join(dir, "out", "machine.tar"))
				if n := len(requests); (n > 0) != (source == "registry") {
					t.Errorf("%s, %s from a %s: %d requests to the URL of the layer", builder, media, source, n)
				}
				for len(requests) > 0 {
					if r := <-requests; r.Method != http.MethodGet || r.Header.Get("Authorization") != "" {
						t.Errorf("%s, %s: request %s %v", builder, media, r.Method, r.Header)
					}
				}
			}
		}
	}
}

// TestKernelTar builds kernel images whose archive of modules is hostile.
func TestKernelTar(t *testing.T) {
	stack.Require(t)
	layouts := newStore(t)
	for _, c := range []struct {
		name    string
		entries []file
		want    string // the error; "": the build succeeds
	}{
		{"plain", []file{reg("/lib/modules/1/x", "x"), symlink("up", "../../../../etc")}, ""},
		{"up", []file{reg("../../etc/passwd", "x")}, "leads out of the root"},
		{"long", []file{reg(long+"n", "x")}, "has 256 bytes: Linux allows 255"},
		{"below-file", []file{reg("f", "x"), reg("f/x", "x")}, "f"},
		{"sparse", []file{{raw: unboundedSparseMap()}}, "sparse"},
		{"link", []file{hardlink("a", "../../../etc/passwd")}, "leads out of the root"},
	} {
		t.Run(c.name, func(t *testing.T) {
			i := image{name: "kernel-" + c.name, layers: [][]file{{reg("kernel", "kernel"), reg("kernel.tar", string(archive(t, c.entries)))}}}
			context := layouts.add(t, i.ref(), i.build(t))
			dir := newDir(t, "kernel:\n  image: "+i.ref()+"\n  cmdline: rdinit=/init\n")
			out, err := build(dir, context, "--target=tar", "-o", "out")
			expect(t, dir, out, err, c.want, ">>>   image: "+i.ref())
		})
	}
}
