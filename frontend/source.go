package frontend

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerui"
	"github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"

	"github.com/slipway-build/slipway/internal/printable"
	"github.com/slipway-build/slipway/machine"
)

// sources are the machine YAML, its overlays, and the files that these include.
// [machine.Range.Source] is an index into them.
type sources []*dockerui.Source

// readSources reads the machine YAML and the overlays that the build argument
// OVERLAYS names, relative to it.
func readSources(ctx context.Context, c client.Client, ui *dockerui.Client) (sources, error) {
	src, err := readMachine(ctx, c, ui)
	if err != nil {
		return nil, err
	}
	all := sources{src}
	for name := range strings.FieldsFuncSeq(ui.BuildArgs["OVERLAYS"], func(c rune) bool { return c == ',' }) {
		if quoted := printable.Line(name); quoted != name {
			return nil, fmt.Errorf("--build-arg OVERLAYS: %s is not a file name: it contains a control character", quoted)
		}
		overlay, err := readBeside(ctx, c, src, name)
		if err != nil {
			return nil, fmt.Errorf("--build-arg OVERLAYS: %w", err)
		}
		all = append(all, overlay)
	}
	return all, nil
}

// readBeside reads a file in the folder of the machine YAML.
func readBeside(ctx context.Context, c client.Client, main *dockerui.Source, name string) (*dockerui.Source, error) {
	ui, err := dockerui.NewClient(entrypoint{c, path.Join(path.Dir(main.Filename), name)})
	if err != nil {
		return nil, err
	}
	src, err := ui.ReadEntrypoint(ctx, "YAML")
	if err != nil {
		// Not wrapped: if an error contains a gRPC status, BuildKit shows the
		// text of the status alone.
		return nil, fmt.Errorf("read %s, in the folder of the machine YAML: %s", printable.Line(name), printable.Lines(err.Error()))
	}
	return src, nil
}

// readMachine reads the machine YAML. It transfers the lock together with it.
func readMachine(ctx context.Context, c client.Client, ui *dockerui.Client) (*dockerui.Source, error) {
	filename := cmp.Or(c.BuildOpts().Opts["filename"], dockerui.DefaultDockerfileName)
	return ui.ReadEntrypoint(ctx, "YAML", llb.FollowPaths([]string{filename, filename + ".dockerignore", LockName(filename)}))
}

// entrypoint is a client whose user named another file.
type entrypoint struct {
	client.Client
	filename string
}

func (e entrypoint) BuildOpts() client.BuildOpts {
	opts := e.Client.BuildOpts()
	opts.Opts = maps.Clone(opts.Opts)
	opts.Opts["filename"] = e.filename
	return opts
}

// main returns the file that the user named.
func (s sources) main() *dockerui.Source { return s[0] }

// location ties a vertex to lines of the YAML, which BuildKit shows if it fails.
func (s sources) location(r machine.Range) llb.ConstraintsOpt {
	if r.Start == 0 {
		return llb.WithDescription(nil)
	}
	return s[r.Source].Location([]*pb.Range{pbRange(r)})
}

// errorAt returns a printable error about lines of the YAML.
func (s sources) errorAt(at machine.Range, format string, args ...any) machine.Diagnostic {
	return machine.Diagnostic{Range: at, File: s[at.Source].Filename, Message: printable.Lines(fmt.Sprintf(format, args...))}
}

// excerptContext is the number of lines that BuildKit shows before and after
// those of an error.
const excerptContext = 4

// The limits for what an error transmits. BuildKit transmits the YAML with each
// excerpt.
const (
	maxErrors   = 1000
	maxExcerpts = 4 << 20 // bytes of YAML
)

// locate adds the lines of the YAML to an error that holds diagnostics. Lines
// that are close to each other are in one excerpt.
func (s sources) locate(err error) error {
	var diags machine.Diagnostics
	if !errors.As(err, &diags) {
		return err
	}
	text := ""
	if rest := len(diags) - maxErrors; rest > 0 {
		diags, text = diags[:maxErrors], fmt.Sprintf("\n%d more errors", rest)
	}
	out := errors.New(diags.Error() + text)
	size := 0
	var last *errdefs.Source
	var end machine.Range // of the last excerpt
	for _, d := range diags {
		if d.Range.Start == 0 {
			continue // no line is responsible
		}
		at := pbRange(d.Range)
		if last != nil && d.Range.Source == end.Source && d.Range.Start >= end.Start && d.Range.Start <= end.End+excerptContext {
			last.Ranges = append(last.Ranges, at)
			end.End = max(end.End, d.Range.End)
			continue
		}
		src := s[d.Range.Source]
		if size += len(src.Data); size > maxExcerpts {
			break
		}
		last = &errdefs.Source{
			Info: &pb.SourceInfo{
				Data:       src.Data,
				Filename:   src.Filename,
				Language:   src.Language,
				Definition: src.Definition.ToPB(),
			},
			Ranges: []*pb.Range{at},
		}
		end = d.Range
		out = errdefs.WithSource(out, last)
	}
	return out
}

// sorted returns diagnostics in the order of the text, or nil if there are none.
func sorted(diags machine.Diagnostics) error {
	if len(diags) == 0 {
		return nil
	}
	slices.SortStableFunc(diags, func(a, b machine.Diagnostic) int {
		return cmp.Or(cmp.Compare(a.Range.Source, b.Range.Source), cmp.Compare(a.Range.Start, b.Range.Start))
	})
	return diags
}

func pbRange(r machine.Range) *pb.Range {
	return &pb.Range{Start: &pb.Position{Line: int32(r.Start)}, End: &pb.Position{Line: int32(r.End)}}
}

func parserRange(r machine.Range) parser.Range {
	return parser.Range{Start: parser.Position{Line: r.Start}, End: parser.Position{Line: r.End}}
}
