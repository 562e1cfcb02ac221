package sarif

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/moby/buildkit/frontend/subrequests/lint"
	"github.com/moby/buildkit/solver/pb"
)

// Each warning and error is a result at its place, and each rule is there once.
func TestNew(t *testing.T) {
	at := func(source, line int32) *pb.Location {
		return &pb.Location{SourceIndex: source, Ranges: []*pb.Range{{Start: &pb.Position{Line: line}, End: &pb.Position{Line: line + 1}}}}
	}
	results := &lint.LintResults{
		Warnings: []lint.Warning{
			{RuleName: "A", Description: "about a", URL: "https://a", Detail: "first", Location: at(0, 3)},
			{RuleName: "A", Description: "about a", URL: "https://a", Detail: "second", Location: at(1, 5)},
		},
		Sources: []*pb.SourceInfo{{Filename: "m.yml"}, {Filename: "overlay.yml"}},
		Error:   &lint.BuildError{Message: "broken\n"},
	}
	results.Error.Location.Ranges = at(0, 0).Ranges
	run := New("1", "dir/m.yml", results).Runs[0]
	if len(run.Tool.Driver.Rules) != 2 || run.Tool.Driver.Rules[0].ID != "A" || run.Tool.Driver.Rules[1].ID != "Error" {
		t.Errorf("rules %+v", run.Tool.Driver.Rules)
	}
	type place struct {
		level, text, uri string
		line             int32
	}
	var got []place
	for _, r := range run.Results {
		l := r.Locations[0].PhysicalLocation
		got = append(got, place{r.Level, r.Message.Text, l.ArtifactLocation.URI, l.Region.StartLine})
	}
	want := []place{{"warning", "first", "dir/m.yml", 3}, {"warning", "second", "dir/overlay.yml", 5}, {"error", "broken", "dir/m.yml", 1}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("results %+v, want %+v", got, want)
	}
	empty, err := json.Marshal(New("1", "m.yml", &lint.LintResults{}))
	if err != nil || !json.Valid(empty) {
		t.Errorf("%s, %v", empty, err)
	}
}
