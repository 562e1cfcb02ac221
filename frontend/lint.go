package frontend

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerui"
	"github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"

	"github.com/slipway-build/slipway/machine"
)

// lint decides which warnings are shown, by the options that BuildKit's own
// Dockerfile checks have: build argument BUILDKIT_DOCKERFILE_CHECK, or a line
// "# check=skip=RULE,RULE;error=true" among the first of the file.
type lint struct {
	config linter.Config
}

func newLint(arg *linter.Config, data []byte) (*lint, error) {
	if arg != nil {
		return &lint{*arg}, nil
	}
	_, text, _, ok := parser.ParseDirective("check", data)
	if !ok {
		return &lint{}, nil
	}
	config, err := linter.ParseLintOptions(text)
	if err != nil {
		return nil, fmt.Errorf("read the check directive: %w", err)
	}
	return &lint{*config}, nil
}

// wanted leaves out what is skipped.
func (l *lint) wanted(ds machine.Diagnostics) machine.Diagnostics {
	if l.config.SkipAll {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(ds), func(d machine.Diagnostic) bool {
		return slices.Contains(l.config.SkipRules, d.Rule)
	})
}

// warn shows warnings at the end of the build, or fails it where the user asked for that.
func (l *lint) warn(ctx context.Context, sources []*dockerui.Source, ds machine.Diagnostics) error {
	ds = l.wanted(ds)
	for _, d := range ds {
		description, url := about(d.Rule)
		sources[d.Range.Source].Warn(ctx, linter.LintFormatShort(d.Rule, d.Message, d.Range.Start), client.WarnOpts{
			Detail: [][]byte{[]byte(description)},
			URL:    url,
			Range:  []*pb.Range{pbRange(d.Range)},
		})
	}
	if l.config.ReturnAsError && len(ds) > 0 {
		for i := range ds {
			ds[i].Message = ds[i].Rule + ": " + ds[i].Message
		}
		return ds
	}
	return nil
}

// rulePage is where the rules are explained.
const rulePage = "https://github.com/slipway-build/slipway/blob/main/docs/reference/lint.md#"

// about gives a rule's description and its page.
func about(rule string) (description, url string) {
	i := slices.IndexFunc(machine.Rules, func(r machine.Rule) bool { return r.Name == rule })
	if i < 0 {
		return "", ""
	}
	return machine.Rules[i].Description, rulePage + strings.ToLower(rule)
}

// locate gives diagnostics their excerpts of the YAML.
func (b *builder) locate(err error) error {
	var ds machine.Diagnostics
	if !errors.As(err, &ds) {
		return err
	}
	out := errors.New(ds.Error())
	for _, d := range ds {
		if d.Range.Start == 0 {
			continue // about what no line names
		}
		src := b.sources[d.Range.Source]
		out = errdefs.WithSource(out, &errdefs.Source{
			Info: &pb.SourceInfo{
				Data:       src.Data,
				Filename:   src.Filename,
				Language:   src.Language,
				Definition: src.Definition.ToPB(),
			},
			Ranges: []*pb.Range{pbRange(d.Range)},
		})
	}
	return out
}

func pbRange(r machine.Range) *pb.Range {
	return &pb.Range{Start: &pb.Position{Line: int32(r.Start)}, End: &pb.Position{Line: int32(r.End)}}
}

func parserRange(r machine.Range) parser.Range {
	return parser.Range{Start: parser.Position{Line: r.Start}, End: parser.Position{Line: r.End}}
}

// isNotFound knows a missing file on either side of the gateway, which carries
// the text of such an error but not its kind.
func isNotFound(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || strings.Contains(err.Error(), "no such file or directory")
}
