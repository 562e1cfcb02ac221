package frontend

import (
	"context"
	"errors"
	"fmt"

	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerui"
	lintreq "github.com/moby/buildkit/frontend/subrequests/lint"
	"github.com/moby/buildkit/frontend/subrequests/outline"
	"github.com/moby/buildkit/frontend/subrequests/targets"

	"github.com/slipway-build/slipway/exporter"
	"github.com/slipway-build/slipway/machine"
)

// requests answers --call and --check. All of BuildKit's own requests are
// answered: for one that is not, buildx would read the YAML as a Dockerfile.
func (b *builder) requests() dockerui.RequestHandler {
	return dockerui.RequestHandler{
		Outline:     b.outline,
		ListTargets: b.targets,
		Lint:        b.check,
	}
}

func (b *builder) outline(context.Context) (*outline.Outline, error) {
	opt, err := parseOptions(b.ui.Target, b.ui.BuildArgs, b.yaml().Filename)
	if err != nil {
		return nil, err
	}
	out := &outline.Outline{Name: opt.format.Name, Description: opt.format.Description, Sources: [][]byte{b.yaml().Data}}
	for _, a := range arguments {
		value := b.ui.BuildArgs[a.name]
		if a.name == "NAME" {
			value = opt.name
		}
		out.Args = append(out.Args, outline.Arg{
			Name:        a.name,
			Description: fmt.Sprintf("%s (default: %s)", a.description, a.value),
			Value:       value,
		})
	}
	return out, nil
}

func (b *builder) targets(context.Context) (*targets.List, error) {
	list := &targets.List{Sources: [][]byte{b.yaml().Data}}
	for i, f := range exporter.Formats {
		list.Targets = append(list.Targets, targets.Target{Name: f.Name, Default: i == 0, Description: f.Description})
	}
	return list, nil
}

// check reports warnings and mistakes without building.
func (b *builder) check(ctx context.Context) (*lintreq.LintResults, error) {
	results := &lintreq.LintResults{}
	index := make([]int, len(b.sources))
	for i, src := range b.sources {
		index[i] = results.AddSource(src.SourceMap)
	}
	warnings, err := b.findings(ctx)
	for _, d := range b.lint.wanted(warnings) {
		results.AddWarning(d.Rule, "", "", d.Message, index[d.Range.Source], []parser.Range{parserRange(d.Range)})
	}
	var mistakes machine.Diagnostics
	if !errors.As(err, &mistakes) {
		return results, err
	}
	// The protocol has one place for errors: mistakes of one file are shown at once.
	results.Error = &lintreq.BuildError{Message: mistakes.Error()}
	results.Error.Location.SourceIndex = int32(index[mistakes[0].Range.Source])
	for _, d := range mistakes {
		if d.Range.Source == mistakes[0].Range.Source {
			results.Error.Location.Ranges = append(results.Error.Location.Ranges, pbRange(d.Range))
		}
	}
	return results, nil
}

func (b *builder) findings(ctx context.Context) (machine.Diagnostics, error) {
	m, err := b.parse()
	if err != nil {
		return nil, err
	}
	images, err := b.resolve(ctx, m.ImageRefs(), b.target(nil))
	if err != nil {
		return m.Warnings(), err
	}
	plan, err := m.Plan(images.configs())
	if err != nil {
		return m.Warnings(), err
	}
	return append(m.Warnings(), plan.Warnings...), nil
}
