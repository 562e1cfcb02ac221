// Package sarif writes the results of a check in the Static Analysis Results
// Interchange Format, version 2.1.0 (OASIS), which code scanning services read.
package sarif

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/subrequests/lint"
	"github.com/moby/buildkit/solver/pb"
)

// A Log is the root object (section 3.13).
type Log struct {
	Schema  string `json:"$schema"`
	Version string `json:"version"`
	Runs    []Run  `json:"runs"`
}

// A Run is one check (section 3.14).
type Run struct {
	Tool struct {
		Driver Driver `json:"driver"`
	} `json:"tool"`
	Results []Result `json:"results"`
}

// A Driver describes the program (section 3.19).
type Driver struct {
	Name           string `json:"name"`
	Version        string `json:"version"`
	InformationURI string `json:"informationUri"`
	Rules          []Rule `json:"rules"`
}

// A Rule describes a kind of warning (section 3.49).
type Rule struct {
	ID               string `json:"id"`
	ShortDescription Text   `json:"shortDescription"`
	HelpURI          string `json:"helpUri,omitempty"`
}

// A Text is a message (section 3.11).
type Text struct {
	Text string `json:"text"`
}

// A Result is a warning or an error (section 3.27).
type Result struct {
	RuleID    string     `json:"ruleId"`
	Level     string     `json:"level"`
	Message   Text       `json:"message"`
	Locations []Location `json:"locations,omitempty"`
}

// A Location is a part of a file (section 3.28).
type Location struct {
	PhysicalLocation struct {
		ArtifactLocation struct {
			URI string `json:"uri"`
		} `json:"artifactLocation"`
		Region struct {
			StartLine int32 `json:"startLine"`
			EndLine   int32 `json:"endLine,omitempty"`
		} `json:"region"`
	} `json:"physicalLocation"`
}

// errorRule is the rule of errors, which have none of their own.
const errorRule = "Error"

// New returns the results of a check of the file with a name. Other files of the
// machine, such as overlays, are in the same folder.
func New(version, name string, results *lint.LintResults) Log {
	run := Run{Results: []Result{}}
	run.Tool.Driver = Driver{Name: "slipway", Version: version, InformationURI: "https://github.com/slipway-build/slipway", Rules: []Rule{}}
	rule := func(r Rule) {
		if !slices.ContainsFunc(run.Tool.Driver.Rules, func(other Rule) bool { return other.ID == r.ID }) {
			run.Tool.Driver.Rules = append(run.Tool.Driver.Rules, r)
		}
	}
	uri := func(source int32) string {
		if source > 0 && int(source) < len(results.Sources) {
			return filepath.ToSlash(filepath.Join(filepath.Dir(name), results.Sources[source].Filename))
		}
		return filepath.ToSlash(name)
	}
	add := func(id, level, message string, source int32, ranges []*pb.Range) {
		r := Result{RuleID: id, Level: level, Message: Text{message}}
		for _, part := range ranges {
			var l Location
			l.PhysicalLocation.ArtifactLocation.URI = uri(source)
			l.PhysicalLocation.Region.StartLine = max(1, part.GetStart().GetLine())
			l.PhysicalLocation.Region.EndLine = part.GetEnd().GetLine()
			r.Locations = append(r.Locations, l)
		}
		run.Results = append(run.Results, r)
	}
	for _, w := range results.Warnings {
		rule(Rule{w.RuleName, Text{w.Description}, w.URL})
		add(w.RuleName, "warning", w.Detail, w.Location.GetSourceIndex(), w.Location.GetRanges())
	}
	if e := results.Error; e != nil {
		rule(Rule{ID: errorRule, ShortDescription: Text{"The machine cannot be built"}})
		add(errorRule, "error", strings.TrimSpace(e.Message), e.Location.SourceIndex, e.Location.Ranges)
	}
	return Log{Schema: "https://json.schemastore.org/sarif-2.1.0.json", Version: "2.1.0", Runs: []Run{run}}
}
