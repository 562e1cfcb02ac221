package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/internal/testutil/need"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/exporter/tree"
	"github.com/slipway-build/slipway/internal/contract"
	"github.com/slipway-build/slipway/internal/testutil/treetest"
	"github.com/slipway-build/slipway/machine"
)

// corpus is the folder of the conformance corpus: machines with the trees that
// LinuxKit makes of them.
const corpus = "../../test/conformance/testdata"

// The programs pack every machine of the corpus, as in a build, and the corpus'
// own program compares the tar archive with the expected tree. The initramfs must
// unpack to the same tree.
func TestConformance(t *testing.T) {
	cases, err := filepath.Glob(corpus + "/cases/*")
	if err != nil || len(cases) == 0 {
		t.Fatalf("no conformance corpus at %s: %v", corpus, err)
	}
	need.Program(t, "python3", "python3")
	images := readCorpusImages(t)
	for _, dir := range cases {
		var expected struct {
			Inputs []string
			Arch   string
			OK     bool
		}
		readJSON(t, filepath.Join(dir, "expected.json"), &expected)
		if !expected.OK {
			continue
		}
		t.Run(filepath.Base(dir), func(t *testing.T) {
			t.Parallel()
			plan := images.plan(t, dir, expected.Inputs, expected.Arch)
			tar := images.build(t, plan, dir, expected.Arch, "tar")
			compare := exec.Command("python3", "-B", corpus+"/compare.py", corpus, filepath.Base(dir), tar)
			if out, err := compare.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
			if diff := cmp.Diff(dumpTar(t, tar), dumpInitrd(t, images.build(t, plan, dir, expected.Arch, "cpio"))); diff != "" {
				t.Errorf("tree (-tar +initramfs):\n%s", diff)
			}
		})
	}
}

// dumpTar lists a tar archive without the boot files.
func dumpTar(t *testing.T, name string) string {
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := tree.ReadTar(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	inBoot := 0
	entries = slices.DeleteFunc(entries, func(e tree.Entry) bool {
		boots := slices.Contains([]string{"boot/cmdline", "boot/kernel", "boot/ucode.cpio"}, e.Path)
		if strings.HasPrefix(e.Path, "boot/") && !boots {
			inBoot++
		}
		return boots
	})
	return treetest.Dump(t, slices.DeleteFunc(entries, func(e tree.Entry) bool { return e.Path == "boot" && inBoot == 0 }))
}

// dumpInitrd unpacks the archives of an uncompressed initramfs with cpio(1) in
// order, as the kernel does, sets extended attributes, as Slipway's init does, and
// lists the tree.
func dumpInitrd(t *testing.T, name string) string {
	need.Program(t, "cpio", "cpio")
	need.Root(t)
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	const trailer = "TRAILER!!!"
	for len(data) > 0 {
		end := bytes.Index(data, []byte(trailer)) + len(trailer)
		for end < len(data) && data[end] == 0 {
			end++
		}
		unpack := exec.Command("cpio", "-iu", "--quiet", "--no-absolute-filenames")
		unpack.Dir, unpack.Stdin = dir, bytes.NewReader(data[:end])
		if out, err := unpack.CombinedOutput(); err != nil || len(out) > 0 {
			t.Fatalf("cpio: %v\n%s", err, out)
		}
		data = data[end:]
	}
	if list := filepath.Join(dir, contract.XattrsFile); fileExists(list) {
		data, err := os.ReadFile(list)
		if err != nil {
			t.Fatal(err)
		}
		xattrs, err := contract.UnmarshalXattrs(data)
		if err != nil {
			t.Fatal(err)
		}
		for path, attributes := range xattrs {
			for name, value := range attributes {
				if err := unix.Lsetxattr(filepath.Join(dir, path), name, value, 0); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := os.RemoveAll(filepath.Dir(list)); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := tree.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return treetest.Dump(t, entries)
}

func fileExists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

// corpusImages are the images of the corpus by name.
type corpusImages map[string]ocispec.Descriptor

func readCorpusImages(t *testing.T) corpusImages {
	var index ocispec.Index
	readJSON(t, corpus+"/images/index.json", &index)
	images := corpusImages{}
	for _, d := range index.Manifests {
		images[d.Annotations[ocispec.AnnotationRefName]] = d
	}
	return images
}

func blobFile(d digest.Digest) string {
	return filepath.Join(corpus, "images/blobs", d.Algorithm().String(), d.Encoded())
}

// manifest returns an image's manifest for linux/arch.
func (c corpusImages) manifest(t *testing.T, name, arch string) (ocispec.Descriptor, ocispec.Manifest) {
	var index ocispec.Index
	readJSON(t, blobFile(c[name].Digest), &index)
	for _, d := range index.Manifests {
		if d.Platform != nil && d.Platform.OS == "linux" && d.Platform.Architecture == arch {
			var manifest ocispec.Manifest
			readJSON(t, blobFile(d.Digest), &manifest)
			return d, manifest
		}
	}
	t.Fatalf("no image %s for %s", name, arch)
	return ocispec.Descriptor{}, ocispec.Manifest{}
}

func (c corpusImages) plan(t *testing.T, dir string, inputs []string, arch string) *machine.Plan {
	var sources []machine.Source
	for _, name := range inputs {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		sources = append(sources, machine.Source{Name: name, Data: data})
	}
	m, err := machine.Parse(sources...)
	if err != nil {
		t.Fatal(err)
	}
	missing := map[string]bool{}
	for _, s := range m.Sources() {
		missing[s.Source] = !fileExists(filepath.Join(dir, s.Source))
	}
	m = m.WithoutSources(missing)
	images := map[string]machine.Image{}
	for _, ref := range m.ImageRefs() {
		d, manifest := c.manifest(t, ref.Name, arch)
		var image ocispec.Image
		readJSON(t, blobFile(manifest.Config.Digest), &image)
		images[ref.Name] = machine.Image{Digest: d.Digest.String(), Config: image.Config}
	}
	plan, err := m.Plan(images)
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

// build packs the segments of a plan and writes the tar archive or, from cpio
// archives, the initramfs.
func (c corpusImages) build(t *testing.T, plan *machine.Plan, dir, arch, archive string) string {
	work := t.TempDir()
	var segments []string
	made := 0
	newDir := func() string {
		made++
		out := filepath.Join(work, fmt.Sprintf("%03d", made))
		if err := os.Mkdir(out, 0o755); err != nil {
			t.Fatal(err)
		}
		return out
	}
	do := func(args ...string) {
		t.Helper()
		if _, errs, status := run(t, "", args...); status != 0 {
			t.Fatalf("%q: %s", args, errs)
		}
	}
	layers := func(image string) (args []string) {
		_, manifest := c.manifest(t, image, arch)
		for _, layer := range manifest.Layers {
			args = append(args, "--layer", blobFile(layer.Digest))
		}
		return args
	}
	pack := func(name string, args ...string) {
		t.Helper()
		out := newDir()
		do(append(args, "--archive", archive, "--compression", "none", "--out", out)...)
		segments = append(segments, name+"="+out)
	}
	entries := func(name string, list []machine.Entry) {
		t.Helper()
		data, err := json.Marshal(list)
		if err != nil {
			t.Fatal(err)
		}
		spec := filepath.Join(newDir(), "spec.json")
		if err := os.WriteFile(spec, data, 0o644); err != nil {
			t.Fatal(err)
		}
		pack(name, "entries", "--spec", spec, "--source", dir)
	}

	cmdline := filepath.Join(newDir(), "cmdline")
	if err := os.WriteFile(cmdline, []byte(plan.Cmdline), 0o644); err != nil {
		t.Fatal(err)
	}
	entries("directories", plan.Dirs)
	write := []string{"write", "--name", "machine", "--cmdline", cmdline, "--out", work}
	if k := plan.Kernel; k != nil {
		out := newDir()
		do(append([]string{"kernel", "--binary", k.Binary, "--tar", k.Tar, "--ucode", k.Ucode, "--archive", archive, "--compression", "none", "--out", out}, layers(k.Image)...)...)
		if k.Tar != "" {
			segments = append(segments, "kernel="+out)
		}
		write = append(write, "--kernel", filepath.Join(out, "kernel"))
		if archive == "tar" { // cpio does not know where to go on behind it
			write = append(write, "--ucode", filepath.Join(out, "ucode.cpio"))
		}
	}
	for _, tree := range plan.Trees {
		pack(tree.Name, append([]string{"pack", "--prefix", tree.Prefix, "--rules", tree.Rules}, layers(tree.Image)...)...)
	}
	for _, l := range plan.Layouts {
		args := []string{"layout", "--index", blobFile(c[l.Image].Digest), "--name", l.Image, "--prefix", l.Prefix}
		blobs, err := filepath.Glob(corpus + "/images/blobs/*/*")
		if err != nil {
			t.Fatal(err)
		}
		for _, blob := range blobs {
			args = append(args, "--blob", blob)
		}
		for _, platform := range l.Platforms {
			args = append(args, "--platform", platform)
		}
		pack(l.Name, args...)
	}
	entries("bundles", plan.Configs)
	entries("files", plan.Files)
	format, file := "tar", "machine.tar"
	if archive == "cpio" {
		format, file = "kernel+initrd", "machine-initrd.img"
	}
	do(slices.Concat(write, []string{"--format", format}, segments)...)
	return filepath.Join(work, file)
}

func readJSON(t *testing.T, name string, into any) {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}
