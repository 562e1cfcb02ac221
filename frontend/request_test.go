package frontend

import (
	"errors"
	"slices"
	"testing"

	"github.com/moby/buildkit/solver/errdefs"

	"github.com/slipway-build/slipway/internal/gatewaytest"
	"github.com/slipway-build/slipway/machine"
)

func TestUnusedContexts(t *testing.T) {
	g := newGateway(t, "init:\n  - slipwaybuild/init:v1\nfiles:\n  - path: a\n    source: /etc/a\n")
	g.Locals["host"] = gatewaytest.Files{"etc/a": "a"}
	g.Opts["context:host"] = "local:host"
	g.Opts["context:slipwaybuild/slipway:1"] = "docker-image://slipwaybuild/slipway:1"
	g.Opts["context:slipwaybuild/init:v1::linux/amd64"] = "docker-image://slipwaybuild/init:v1"
	g.Opts["context:slipwaybuild/intt:v1"] = "docker-image://slipwaybuild/init:v1"
	mustBuild(t, g)
	want := []string{`build context "slipwaybuild/intt:v1" has no effect: the machine has no image of this name (did you mean "slipwaybuild/init:v1"?)`}
	if got := warnings(g); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Errors about lines that are close to each other share an excerpt.
func TestExcerpts(t *testing.T) {
	g := newGateway(t, "init:\n  - slipwaybuild/init:v1\n")
	src, err := readTestSources(t, g)
	if err != nil {
		t.Fatal(err)
	}
	var diags machine.Diagnostics
	for _, line := range []int{1, 1, 3, 7, 12, 30} {
		diags = append(diags, src.errorAt(machine.Range{Start: line, End: line}, "invalid"))
	}
	var got [][]int32
	for _, s := range errdefs.Sources(src.locate(errors.Join(diags))) {
		var lines []int32
		for _, r := range s.Ranges {
			lines = append(lines, r.Start.Line)
		}
		got = append(got, lines)
	}
	if want := [][]int32{{1, 1, 3, 7}, {12}, {30}}; !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("excerpts of lines %v, want %v", got, want)
	}
}

func readTestSources(t *testing.T, g *gatewaytest.Gateway) (sources, error) {
	r, err := newRequest(t.Context(), g)
	if err != nil {
		return nil, err
	}
	return r.sources, nil
}
