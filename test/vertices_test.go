package test

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/moby/buildkit/client"

	"github.com/slipway-build/slipway/internal/testutil/buildkitd"
)

// vertices returns the updates of all vertices in the progress of a build. It logs
// lines that are not JSON, which libraries print.
func vertices(t *testing.T, rawjson string) (all []*client.Vertex) {
	t.Helper()
	for line := range strings.Lines(rawjson) {
		if !strings.HasPrefix(line, "{") {
			t.Logf("%s", line)
			continue
		}
		var status client.SolveStatus
		if err := json.Unmarshal([]byte(line), &status); err != nil {
			t.Fatalf("read the build's progress: %v", err)
		}
		all = append(all, status.Vertexes...)
	}
	return all
}

// executed returns the sorted names of the vertices of packer and exporter that
// were not cached, from the progress of a build.
func executed(t *testing.T, rawjson string) []string {
	t.Helper()
	ran, cached := map[string]bool{}, map[string]bool{}
	seen := 0
	for _, v := range vertices(t, rawjson) {
		if !isExporters(v.Name) {
			continue
		}
		seen++
		switch {
		case v.Cached: // may come again without Cached, when BuildKit pulls its output
			cached[v.Name] = true
		case v.Completed != nil:
			ran[v.Name] = true
		}
	}
	if seen == 0 {
		t.Fatal("the build has no vertex of packer or exporter")
	}
	var out []string
	for name := range ran {
		if !cached[name] {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

func isExporters(name string) bool {
	_, verb, _ := strings.Cut(name, "] ")
	verb, _, _ = strings.Cut(verb, " ")
	return verb == "pack" || verb == "write"
}

// builds runs docker buildx build on a daemon and returns the executed
// vertices.
func builds(t *testing.T, d *buildkitd.Daemon, dir string, args ...string) []string {
	t.Helper()
	return runs(t, d.Build(t.Context(), append(args, "--progress=rawjson", "-f", "machine.yml", ".")...), dir)
}

// runs runs a command of docker buildx and returns the executed vertices.
func runs(t *testing.T, cmd *exec.Cmd, dir string) []string {
	t.Helper()
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%q: %v\n%s", cmd.Args, err, stderr.String())
	}
	return executed(t, stderr.String())
}

// sameVertices compares sorted names of vertices with the starts of names.
func sameVertices(t *testing.T, what string, ran, want []string) {
	t.Helper()
	if len(ran) != len(want) || !slices.EqualFunc(ran, want, strings.HasPrefix) {
		t.Errorf("%s ran %q, want %q", what, ran, want)
	}
}

// large is the size in bytes that manifests, configurations and generated files
// do not exceed.
const large = 128 << 10

// largeBlobs returns the sorted sizes of a daemon's large blobs.
func largeBlobs(t *testing.T, d *buildkitd.Daemon) []int64 {
	t.Helper()
	blobs, err := d.Blobs()
	if err != nil {
		t.Fatal(err)
	}
	var out []int64
	for _, n := range blobs {
		if n > large {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out
}

// scanned returns the sorted names of the components that were scanned, from
// the progress of a build.
func scanned(t *testing.T, rawjson string) []string {
	t.Helper()
	ran := map[string]bool{}
	for _, v := range vertices(t, rawjson) {
		if component, image, ok := strings.Cut(v.Name, "] scan "); ok && image != "" && v.Completed != nil && !v.Cached {
			ran[strings.TrimPrefix(component, "[")] = true
		}
	}
	var out []string
	for name := range ran {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}
