package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The packer's bytes are part of every segment's cache key, so that it must not
// contain the writers of formats or their libraries.
func TestPackerIsSmall(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.Module.Path}}{{if .Module.Main}} {{.ImportPath}}{{end}}{{end}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	const module = "github.com/slipway-build/slipway"
	for line := range strings.Lines(string(out)) {
		got = append(got, strings.TrimPrefix(strings.TrimSpace(line), module+" "+module+"/"))
	}
	slices.Sort(got)
	want := []string{
		"cmd/internal/command",
		"cmd/slipway-packer",
		"exporter/cpio",
		"exporter/internal/atomicfile",
		"exporter/segment",
		"exporter/tree",
		"github.com/containerd/log",
		"github.com/containerd/platforms",
		"github.com/klauspost/compress",
		"github.com/klauspost/pgzip",
		"github.com/opencontainers/go-digest",
		"github.com/opencontainers/image-spec",
		"github.com/sirupsen/logrus",
		"golang.org/x/sync",
		"golang.org/x/sys",
		"internal/contract",
		"internal/failure",
		"internal/printable",
	}
	if diff := cmp.Diff(want, slices.Compact(got)); diff != "" {
		t.Errorf("packages of Slipway and modules (-want +got):\n%s", diff)
	}
}
