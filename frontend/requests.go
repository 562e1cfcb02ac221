package frontend

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerui"
	"github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/frontend/subrequests"
	lintreq "github.com/moby/buildkit/frontend/subrequests/lint"
	"github.com/moby/buildkit/frontend/subrequests/outline"
	"github.com/moby/buildkit/frontend/subrequests/targets"

	"github.com/slipway-build/slipway/exporter"
	"github.com/slipway-build/slipway/machine"
)

// request is one that the user reaches by --call=NAME.
type request struct {
	subrequests.Request
	answer func(*builder, context.Context) (*client.Result, error)
}

// ownRequests are Slipway's own, beside BuildKit's. The prefix is buildx's.
func ownRequests() []request {
	metadata := []subrequests.Named{{Name: "result.json"}, {Name: "result.txt"}}
	return []request{
		{subrequests.Request{
			Name: "frontend.machine.plan", Version: "1.0.0", Type: subrequests.TypeRPC, Metadata: metadata,
			Description: "Show every component with its image, its place and its configuration",
		}, (*builder).plan},
		{subrequests.Request{
			Name: "frontend.machine.schema", Version: "1.0.0", Type: subrequests.TypeRPC, Metadata: metadata,
			Description: "Print the JSON Schema of the machine YAML",
		}, (*builder).schema},
		{subrequests.Request{
			Name: LockRequest, Version: "1.0.0", Type: subrequests.TypeRPC, Metadata: metadata,
			Description: "Print every image with its digest, as the lock that lies beside the machine YAML",
		}, (*builder).writeLock},
	}
}

// request answers --call and --check, if that is what the user typed. BuildKit's
// own requests are all answered: for one that is not, buildx would read the
// YAML as a Dockerfile.
func (b *builder) request(ctx context.Context) (*client.Result, bool, error) {
	id, ok := b.ui.BuildOpts().Opts["requestid"]
	if !ok {
		return nil, false, nil
	}
	if id == subrequests.RequestSubrequestsDescribe {
		res, err := describe()
		return res, true, err
	}
	for _, r := range ownRequests() {
		if r.Name == id {
			res, err := r.answer(b, ctx)
			return res, true, err
		}
	}
	return b.ui.HandleSubrequest(ctx, dockerui.RequestHandler{Outline: b.outline, ListTargets: b.targets, Lint: b.check})
}

// describe lists the requests. BuildKit's own description leaves the check out.
func describe() (*client.Result, error) {
	all := []subrequests.Request{
		outline.SubrequestsOutlineDefinition,
		targets.SubrequestsTargetsDefinition,
		lintreq.SubrequestLintDefinition,
		subrequests.SubrequestsDescribeDefinition,
	}
	for _, r := range ownRequests() {
		all = append(all, r.Request)
	}
	data, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	if err := subrequests.PrintDescribe(data, &text); err != nil {
		return nil, err
	}
	return result(data, text.Bytes(), subrequests.SubrequestsDescribeDefinition.Version), nil
}

func result(data, text []byte, version string) *client.Result {
	res := client.NewResult()
	res.AddMeta("result.json", data)
	res.AddMeta("result.txt", text)
	res.AddMeta("version", []byte(version))
	return res
}

func (b *builder) schema(context.Context) (*client.Result, error) {
	data := machine.JSONSchema()
	return result(data, data, "1.0.0"), nil
}

func (b *builder) outline(context.Context) (*outline.Outline, error) {
	opt, err := parseOptions(b.ui.Target, b.ui.BuildArgs, b.yaml().Filename)
	if err != nil {
		return nil, err
	}
	var names, descriptions []string
	for _, f := range opt.formats {
		names, descriptions = append(names, f.Name), append(descriptions, f.Description)
	}
	out := &outline.Outline{Name: strings.Join(names, ","), Description: strings.Join(descriptions, "; "), Sources: [][]byte{b.yaml().Data}}
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
		description, url := about(d.Rule)
		results.AddWarning(d.Rule, description, url, d.Message, index[d.Range.Source], []parser.Range{parserRange(d.Range)})
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
	plan, _, err := b.planned(ctx, m, b.target(nil))
	if err != nil {
		return m.Warnings(), err
	}
	return slices.Concat(m.Warnings(), plan.Warnings), nil
}
