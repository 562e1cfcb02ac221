package frontend

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/platforms"
	"github.com/docker/go-units"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerui"
	"github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/frontend/subrequests"
	lintreq "github.com/moby/buildkit/frontend/subrequests/lint"
	"github.com/moby/buildkit/frontend/subrequests/outline"
	"github.com/moby/buildkit/frontend/subrequests/targets"
	"github.com/moby/buildkit/solver/pb"

	"github.com/slipway-build/slipway/exporter/format"
	"github.com/slipway-build/slipway/internal/printable"
	"github.com/slipway-build/slipway/machine"
)

// An ownRequest is a subrequest of Slipway, for --call=NAME.
type ownRequest struct {
	subrequests.Request
	answer func(*request, context.Context) (*client.Result, error)
}

// ownRequests returns Slipway's subrequests. Docker buildx adds the prefix
// "frontend." to the name in --call.
func ownRequests() []ownRequest {
	metadata := []subrequests.Named{{Name: "result.json"}, {Name: "result.txt"}}
	return []ownRequest{
		{subrequests.Request{
			Name: "frontend.machine.plan", Version: "1.0.0", Type: subrequests.TypeRPC, Metadata: metadata,
			Description: "Show every component with its image, place and configuration",
		}, (*request).answerPlan},
		{subrequests.Request{
			Name: "frontend.machine.resolved", Version: "1.0.0", Type: subrequests.TypeRPC, Metadata: metadata,
			Description: "Print the merged machine YAML, with the place from which each line comes",
		}, (*request).answerResolved},
		{subrequests.Request{
			Name: "frontend.machine.schema", Version: "1.0.0", Type: subrequests.TypeRPC, Metadata: metadata,
			Description: "Print the JSON Schema of the machine YAML",
		}, (*request).answerSchema},
		{subrequests.Request{
			Name: LockRequest, Version: "1.0.0", Type: subrequests.TypeRPC, Metadata: metadata,
			Description: "Print the digest of every image, as the lock beside the machine YAML",
		}, (*request).answerLock},
		{subrequests.Request{
			Name: "frontend.machine.measurements", Version: "1.0.0", Type: subrequests.TypeRPC, Metadata: metadata,
			Description: "Build the format of --target, and predict the TPM's registers after a boot",
		}, (*request).answerMeasurements},
	}
}

// subrequest answers --call and --check. It reports whether the request is one of
// these. It answers all of BuildKit's own subrequests, because docker buildx
// would answer an unsupported one by parsing the YAML as a Dockerfile.
func (r *request) subrequest(ctx context.Context) (*client.Result, bool, error) {
	id, ok := r.ui.BuildOpts().Opts["requestid"]
	if !ok {
		return nil, false, nil
	}
	if id == subrequests.RequestSubrequestsDescribe {
		res, err := describe()
		return res, true, err
	}
	for _, own := range ownRequests() {
		if own.Name == id {
			res, err := own.answer(r, ctx)
			return res, true, err
		}
	}
	return r.ui.HandleSubrequest(ctx, dockerui.RequestHandler{Outline: r.outline, ListTargets: r.listTargets, Lint: r.check})
}

// describe lists the subrequests. BuildKit's own list lacks the check.
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
	return subrequestResult(data, text.Bytes(), subrequests.SubrequestsDescribeDefinition.Version)
}

// subrequestResult returns an answer as JSON and as text.
func subrequestResult(data, text []byte, version string) (*client.Result, error) {
	if size := len(data) + len(text); size > maxMessage {
		return nil, fmt.Errorf("the answer takes %s, of which BuildKit transmits %s", units.BytesSize(float64(size)), units.BytesSize(maxMessage))
	}
	res := client.NewResult()
	res.AddMeta("result.json", data)
	res.AddMeta("result.txt", text)
	res.AddMeta("version", []byte(version))
	return res, nil
}

// answerResolved prints the machine as one YAML. As JSON, it is the machine
// alone.
func (r *request) answerResolved(ctx context.Context) (*client.Result, error) {
	m, err := r.parse(ctx)
	if err != nil {
		return nil, err
	}
	return subrequestResult(m.Describe("json"), m.Annotated(), "1.0.0")
}

func (r *request) answerSchema(context.Context) (*client.Result, error) {
	data := machine.JSONSchema()
	return subrequestResult(data, data, "1.0.0")
}

// outline lists the args of the machine and the options.
func (r *request) outline(ctx context.Context) (*outline.Outline, error) {
	m, err := r.parse(ctx)
	if err != nil && len(m.ArgValues()) == 0 {
		return nil, err
	}
	opt, err := parseOptions(r.ui.Target, r.ui.BuildArgs, r.sources.main().Filename)
	if err != nil {
		return nil, err
	}
	var names, descriptions []string
	for _, f := range opt.formats {
		names, descriptions = append(names, f.Name), append(descriptions, f.Description)
	}
	out := &outline.Outline{Name: strings.Join(names, ","), Description: strings.Join(descriptions, "; ")}
	for _, src := range r.sources {
		out.Sources = append(out.Sources, src.Data)
	}
	for _, a := range m.ArgValues() {
		out.Args = append(out.Args, outline.Arg{
			Name:        string(a.Name),
			Description: describeArg(a),
			Value:       a.Value,
			Location:    &pb.Location{SourceIndex: int32(a.Range.Source), Ranges: []*pb.Range{pbRange(a.Range)}},
		})
	}
	for _, a := range arguments {
		value := r.ui.BuildArgs[a.name]
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

// describeArg says what the value of an arg can be.
func describeArg(a machine.ArgValue) string {
	kind := a.Kind()
	switch {
	case len(a.Values) > 0:
		kind = strings.Join(a.Values, ", ")
	case a.Pattern != "":
		kind = a.Pattern
	}
	switch {
	case a.Required:
		kind += "; required"
	case a.Default != nil:
		kind += "; default: " + string(*a.Default)
	}
	return printable.Line(strings.TrimSpace(fmt.Sprintf("%s (%s)", a.Description, kind)))
}

func (r *request) listTargets(context.Context) (*targets.List, error) {
	list := &targets.List{Sources: [][]byte{r.sources.main().Data}}
	for _, f := range format.All() {
		list.Targets = append(list.Targets, targets.Target{Name: f.Name, Default: f.Name == format.Default, Description: f.Description})
	}
	return list, nil
}

// check reports warnings and errors without building.
func (r *request) check(ctx context.Context) (*lintreq.LintResults, error) {
	results := &lintreq.LintResults{}
	warnings, err := r.findings(ctx)
	index := make([]int, len(r.sources))
	for i, src := range r.sources {
		index[i] = results.AddSource(src.SourceMap)
	}
	for _, d := range shown(r.lint.filter(warnings)) {
		description, url := describeRule(d.Rule)
		results.AddWarning(d.Rule, description, url, d.Message, index[d.Range.Source], []parser.Range{parserRange(d.Range)})
	}
	var diags machine.Diagnostics
	if !errors.As(err, &diags) {
		return results, err
	}
	// The protocol has room for one error in one file.
	results.Error = &lintreq.BuildError{Message: diags.Error()}
	results.Error.Location.SourceIndex = int32(index[diags[0].Range.Source])
	for _, d := range diags {
		if d.Range.Source == diags[0].Range.Source {
			results.Error.Location.Ranges = append(results.Error.Location.Ranges, pbRange(d.Range))
		}
	}
	return results, nil
}

// findings returns all warnings about the machine.
func (r *request) findings(ctx context.Context) (machine.Diagnostics, error) {
	m, err := r.parse(ctx)
	if err != nil {
		return nil, err
	}
	optional := map[string]bool{}
	for _, s := range m.Sources() {
		if s.Optional {
			optional[s.Source] = true
		}
	}
	m = m.WithoutSources(optional) // a check reads no build context
	images, err := r.newResolver(ctx)
	if err != nil {
		return r.warnings(m), err
	}
	var warnings machine.Diagnostics
	for i, p := range r.ui.TargetPlatforms {
		resolved, err := images.resolveMachine(ctx, m, platforms.Normalize(p))
		if err != nil {
			return r.warnings(m), err
		}
		if _, err := images.layouts(ctx, resolved.plan.Layouts, resolved.platform); err != nil {
			return r.warnings(m), err
		}
		if i == 0 { // the same for all
			warnings = resolved.warnings
		}
	}
	return warnings, nil
}
