package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipway-build/slipway/machine"
)

// corpus is the corpus of measured machine files that lies beside the checkout.
const corpus = "../../../shared/conformance"

// Every machine of the corpus becomes a tar of its root filesystem, from the
// blobs of its images, as the build makes it. The corpus' own program compares.
func TestConformance(t *testing.T) {
	cases, err := filepath.Glob(corpus + "/cases/*")
	if err != nil || len(cases) == 0 {
		t.Skipf("no conformance corpus at %s", corpus)
	}
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("python3, which compares, is not installed")
	}
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
			tar := images.build(t, plan, dir, expected.Arch)
			compare := exec.Command("python3", "-B", corpus+"/compare.py", corpus, filepath.Base(dir), tar)
			if out, err := compare.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
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

// manifest finds an image's manifest for linux/arch.
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

// build makes the segments of a plan and the tar of them.
func (c corpusImages) build(t *testing.T, plan *machine.Plan, dir, arch string) string {
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
		if err := run(args, io.Discard); err != nil {
			t.Fatalf("%q: %v", args, err)
		}
	}
	layers := func(image string) (args []string) {
		_, manifest := c.manifest(t, image, arch)
		for _, layer := range manifest.Layers {
			args = append(args, "--layer", blobFile(layer.Digest))
		}
		return args
	}
	segment := func(name string, args ...string) {
		t.Helper()
		out := newDir()
		do(append(args, "--archive", "tar", "--out", out)...)
		segments = append(segments, name+"="+out)
	}
	entries := func(name string, list []machine.Entry) {
		t.Helper()
		var there []machine.Entry
		for _, e := range list {
			_, err := os.Stat(filepath.Join(dir, e.Source))
			if e.Optional && errors.Is(err, os.ErrNotExist) {
				continue
			}
			there = append(there, e)
		}
		data, err := json.Marshal(there)
		if err != nil {
			t.Fatal(err)
		}
		spec := filepath.Join(newDir(), "spec.json")
		if err := os.WriteFile(spec, data, 0o644); err != nil {
			t.Fatal(err)
		}
		segment(name, "entries", "--spec", spec, "--source", dir)
	}

	cmdline := filepath.Join(newDir(), "cmdline")
	if err := os.WriteFile(cmdline, []byte(plan.Cmdline), 0o644); err != nil {
		t.Fatal(err)
	}
	entries("directories", plan.Dirs)
	write := []string{"write", "--format", "tar", "--name", "machine", "--cmdline", cmdline, "--out", work}
	if k := plan.Kernel; k != nil {
		out := newDir()
		do(append([]string{"kernel", "--binary", k.Binary, "--tar", k.Tar, "--ucode", k.Ucode, "--archive", "tar", "--out", out}, layers(k.Image)...)...)
		if k.Tar != "" {
			segments = append(segments, "kernel="+out)
		}
		write = append(write, "--kernel", filepath.Join(out, "kernel"), "--ucode", filepath.Join(out, "ucode.cpio"))
	}
	for _, tree := range plan.Trees {
		segment(tree.Name, append([]string{"pack", "--prefix", tree.Prefix, "--rules", tree.Rules}, layers(tree.Image)...)...)
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
		segment(l.Name, args...)
	}
	entries("bundles", plan.Configs)
	entries("files", plan.Files)
	do(append(write, segments...)...)
	return filepath.Join(work, "machine.tar")
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
