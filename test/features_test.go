package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/internal/testutil/stack"
)

// builderTable reads the table of docs/reference/builders.md: features by builder.
func builderTable(t *testing.T, builder string) map[string]bool {
	t.Helper()
	text, err := os.ReadFile("../docs/reference/builders.md")
	if err != nil {
		t.Fatal(err)
	}
	column := -1
	out := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.Trim(line, "| \n"), " | ")
		switch {
		case !strings.HasPrefix(line, "| "):
		case cells[0] == "feature":
			column = slices.Index(cells, builder)
		case column < 0 || cells[column] != "yes" && cells[column] != "no":
			t.Fatalf("row %q for builder %s", line, builder)
		default:
			out[cells[0]] = cells[column] == "yes"
		}
	}
	return out
}

// A feature is a row of the table.
type feature struct {
	name    string
	yaml    string
	targets string
	args    []string
	has     func(files map[string]string, output string) bool // also reports what a build lacks that succeeds
}

// features returns all rows. The image is one of a registry with the files "text"
// and "dev/disk". It is also in the OCI layout "layout".
func features(image string) []feature {
	layout := "--build-context=test/layout:v1=oci-layout://layout"
	hasFile := func(name string) func(map[string]string, string) bool {
		return func(files map[string]string, _ string) bool { _, ok := files[name]; return ok }
	}
	hasLayout := func(files map[string]string, _ string) bool {
		for name, text := range files {
			if strings.HasPrefix(name, "containers/volumes/images/") && strings.HasSuffix(name, "/index.json") {
				return strings.Contains(text, "manifest")
			}
		}
		return false
	}
	volume := func(image string) string {
		return "volumes:\n  - name: images\n    image: " + image + "\n    format: oci\n    platforms: [linux/amd64]\n"
	}
	return []feature{
		{name: "images of registries", yaml: "init:\n  - " + image + "\n", has: hasFile("text")},
		{name: "images in the store of the engine", yaml: "init:\n  - test/stored:v1\n", has: hasFile("text")},
		{name: "OCI layouts as build contexts", yaml: "init:\n  - test/layout:v1\n", args: []string{layout}, has: hasFile("text")},
		{name: "`format: oci` with images of registries", yaml: volume(image), has: hasLayout},
		{name: "`format: oci` with OCI layouts", yaml: volume("test/layout:v1"), args: []string{layout}, has: hasLayout},
		{name: "device nodes of images of registries", yaml: "init:\n  - " + image + "\n", has: hasFile("dev/disk")},
		{name: "device nodes of OCI layouts", yaml: "init:\n  - test/layout:v1\n", args: []string{layout}, has: hasFile("dev/disk")},
		{name: "several formats without copies", yaml: "init:\n  - " + image + "\n", targets: "tar,kernel+initrd",
			has: func(_ map[string]string, output string) bool {
				return !strings.Contains(output, "the builder lacks mergeop")
			}},
	}
}

// featureImage publishes the image of the features, and writes the layout of it to a
// folder.
func featureImage(t *testing.T) (ref, dir string) {
	t.Helper()
	ref, dir = stack.Registry+"/test/features:v1", t.TempDir()
	write(t, dir, map[string]string{"Dockerfile": "FROM debian:trixie-slim AS build\nRUN mkdir -p /out/dev && mknod /out/dev/disk b 7 0 && echo text >/out/text\nFROM scratch\nCOPY --from=build /out /\n"})
	stack.MustBuildx(t, dir, "--provenance=false", "-o", "type=registry", "-t", ref, ".")
	stack.MustBuildx(t, dir, "--provenance=false", "-o", "type=oci,tar=false,dest=layout", ".")
	return ref, dir
}

// testFeatures tries all features with a builder and compares them with its column
// in the table. The function build returns a build in a folder.
func testFeatures(t *testing.T, builder string, build func(dir string, args ...string) *exec.Cmd) {
	image, dir := featureImage(t)
	table := builderTable(t, builder)
	all := features(image)
	if len(table) != len(all) {
		t.Errorf("the table has %d rows, want %d", len(table), len(all))
	}
	for _, f := range all {
		want, ok := table[f.name]
		if !ok {
			t.Errorf("the table lacks %q", f.name)
			continue
		}
		write(t, dir, map[string]string{"machine.yml": "# syntax=slipwaybuild/slipway:1\n" + f.yaml})
		if err := os.RemoveAll(filepath.Join(dir, "out")); err != nil {
			t.Fatal(err)
		}
		targets := "tar"
		if f.targets != "" {
			targets = f.targets
		}
		out, err := build(dir, slices.Concat([]string{"--progress=plain", "-f", "machine.yml", "--target=" + targets, "-o=out"}, f.args, []string{"."})...).CombinedOutput()
		got := err == nil && f.has(tree(t, filepath.Join(dir, "out", "machine.tar")), string(out))
		if got != want {
			t.Errorf("%s with %s: %v, the table says %v\n%s", f.name, builder, got, want, out)
		}
		// A build that fails names the line of the image.
		if err != nil && !strings.Contains(string(out), "machine.yml:") {
			t.Errorf("%s with %s fails without a line:\n%s", f.name, builder, out)
		}
	}
}
