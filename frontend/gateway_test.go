package frontend

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipway-build/slipway/exporter/segment"
	"github.com/slipway-build/slipway/internal/gatewaytest"
	"github.com/slipway-build/slipway/machine"
)

// newGateway returns a gateway with a machine and the images that tests use.
func newGateway(t *testing.T, yaml string) *gatewaytest.Gateway {
	t.Helper()
	g := gatewaytest.New(t, "aws.yml", yaml)
	for _, name := range []string{"slipway:1", "kernel:v1", "init:v1", "rngd:v1", "sshd:v1"} {
		g.Images["docker.io/slipwaybuild/"+name] = gatewaytest.NewImage(name, ocispecs.ImageConfig{
			Cmd: []string{"/bin/" + name}, Labels: map[string]string{machine.Label: "readonlyPaths: [/proc/sys, /sys]"},
		})
	}
	g.Run = func(*pb.ExecOp) (gatewaytest.Files, error) {
		return gatewaytest.Files{segment.FileName: "segment"}, nil
	}
	return g
}

func mustBuild(t *testing.T, g *gatewaytest.Gateway) *client.Result {
	t.Helper()
	res, err := Build(t.Context(), g)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// lines returns the lines of the YAML that an error is about, in their order in
// the text.
func lines(err error) []string {
	var out []string
	for _, s := range errdefs.Sources(err) {
		text := strings.Split(string(s.Info.Data), "\n")
		for _, r := range s.Ranges {
			for i := r.Start.Line; i <= r.End.Line; i++ {
				out = append(out, fmt.Sprintf("%s:%d:%s", s.Info.Filename, i, strings.TrimSpace(text[i-1])))
			}
		}
	}
	slices.Sort(out)
	return out
}

// wantError checks the text of an error and its lines, as FILE:LINE:TEXT.
func wantError(t *testing.T, err error, text string, at ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %q", text)
	}
	if !strings.Contains(err.Error(), text) {
		t.Errorf("error %q, want %q", err, text)
	}
	if got := lines(err); !slices.Equal(got, at) {
		t.Errorf("lines %q, want %q", got, at)
	}
}

// A solvedGraph is a definition that the frontend submitted.
type solvedGraph struct {
	ops     []*pb.Op
	names   []string // of the vertices
	noCache []string // names of vertices that ignore the cache
}

// graphs returns all definitions that run containers.
func graphs(t *testing.T, g *gatewaytest.Gateway) []solvedGraph {
	t.Helper()
	var out []solvedGraph
	for _, req := range g.Solved() {
		if req.Definition == nil {
			continue
		}
		var s solvedGraph
		runs := false
		for _, data := range req.Definition.Def {
			var op pb.Op
			if err := op.UnmarshalVT(data); err != nil {
				t.Fatal(err)
			}
			runs = runs || op.GetExec() != nil
			s.ops = append(s.ops, &op)
		}
		for _, m := range req.Definition.Metadata {
			if name := m.Description["llb.customname"]; name != "" {
				s.names = append(s.names, name)
				if m.IgnoreCache {
					s.noCache = append(s.noCache, name)
				}
			}
		}
		slices.Sort(s.names)
		slices.Sort(s.noCache)
		if runs {
			out = append(out, s)
		}
	}
	return out
}

// onlyGraph returns the graph of a build that submits one.
func onlyGraph(t *testing.T, g *gatewaytest.Gateway) solvedGraph {
	t.Helper()
	all := graphs(t, g)
	if len(all) != 1 {
		t.Fatalf("%d graphs, want 1", len(all))
	}
	return all[0]
}

// sources returns the identifiers of the sources that a graph reads.
func (s solvedGraph) sources() []string {
	found := map[string]bool{}
	for _, op := range s.ops {
		if src := op.GetSource(); src != nil {
			found[src.Identifier] = true
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// exec returns the arguments of the container whose program and subcommand are
// given.
func (s solvedGraph) exec(command string) []string {
	for _, op := range s.ops {
		if e := op.GetExec(); e != nil && strings.HasPrefix(strings.Join(e.Meta.Args, " "), command) {
			return e.Meta.Args
		}
	}
	return nil
}

func (s solvedGraph) execs(command string) (out [][]string) {
	for _, op := range s.ops {
		if e := op.GetExec(); e != nil && strings.HasPrefix(strings.Join(e.Meta.Args, " "), command) {
			out = append(out, e.Meta.Args)
		}
	}
	return out
}

// mkfiles returns the contents of generated files by name.
func (s solvedGraph) mkfiles() map[string]string {
	out := map[string]string{}
	for _, op := range s.ops {
		for _, a := range op.GetFile().GetActions() {
			if f := a.GetMkfile(); f != nil {
				out[strings.TrimPrefix(f.Path, "/")] = string(f.Data)
			}
		}
	}
	return out
}

// flag returns the values of a flag in arguments.
func flag(args []string, name string) (values []string) {
	for i, a := range args {
		if a == name && i+1 < len(args) {
			values = append(values, args[i+1])
		}
	}
	return values
}

// warnings returns the texts of all warnings.
func warnings(g *gatewaytest.Gateway) []string {
	var out []string
	for _, w := range g.Warnings() {
		out = append(out, w.Text)
	}
	return out
}
