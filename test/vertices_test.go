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

// executed lists the exporter's vertices that did work, sorted, from the
// statuses that BuildKit sent.
func executed(t *testing.T, rawjson string) []string {
	t.Helper()
	ran, cached := map[string]bool{}, map[string]bool{}
	seen := 0
	dec := json.NewDecoder(strings.NewReader(rawjson))
	for dec.More() {
		var status client.SolveStatus
		if err := dec.Decode(&status); err != nil {
			t.Fatalf("read the build's progress: %v", err)
		}
		for _, v := range status.Vertexes {
			if !isExporters(v.Name) {
				continue
			}
			seen++
			switch {
			case v.Cached: // later without this word, when its output is pulled
				cached[v.Name] = true
			case v.Completed != nil:
				ran[v.Name] = true
			}
		}
	}
	if seen == 0 {
		t.Fatal("the build reported no vertex of ours")
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

// builds runs docker buildx build on a daemon and lists the exporter's vertices that did work.
func builds(t *testing.T, d *buildkitd.Daemon, dir string, args ...string) []string {
	t.Helper()
	return runs(t, d.Build(t.Context(), append(args, "--progress=rawjson", "-f", "machine.yml", ".")...), dir)
}

// runs does the same with a command of docker buildx.
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

// sameVertices compares what ran, both sorted, by the beginnings of the names.
func sameVertices(t *testing.T, what string, ran, want []string) {
	t.Helper()
	if len(ran) != len(want) || !slices.EqualFunc(ran, want, strings.HasPrefix) {
		t.Errorf("%s ran %q, want %q", what, ran, want)
	}
}

// large is the size in bytes from which a blob is more than a manifest, a configuration or a generated file.
const large = 128 << 10

// largeBlobs lists what a daemon has, by size.
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

// scanned lists the components that were scanned, from the statuses that BuildKit sent.
func scanned(t *testing.T, rawjson string) []string {
	t.Helper()
	ran := map[string]bool{}
	dec := json.NewDecoder(strings.NewReader(rawjson))
	for dec.More() {
		var status client.SolveStatus
		if err := dec.Decode(&status); err != nil {
			t.Fatal(err)
		}
		for _, v := range status.Vertexes {
			if component, image, ok := strings.Cut(v.Name, "] scan "); ok && image != "" && v.Completed != nil && !v.Cached {
				ran[strings.TrimPrefix(component, "[")] = true
			}
		}
	}
	var out []string
	for name := range ran {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}
