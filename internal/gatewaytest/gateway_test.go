package gatewaytest

import (
	"context"
	"strings"
	"testing"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/apicaps"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// recorder records the violations that would fail a test.
type recorder struct {
	testing.TB
	violations []string
}

func (r *recorder) Error(args ...any) {
	r.violations = append(r.violations, args[0].(error).Error())
}

func newGateway(t *testing.T) (*Gateway, *recorder) {
	r := &recorder{TB: t}
	g := New(r, "aws.yml", "init: []\n")
	g.Images["docker.io/test/a:v1"] = NewImage("a", ocispecs.ImageConfig{})
	return g, r
}

func marshal(t *testing.T, st llb.State) *pb.Definition {
	t.Helper()
	def, err := st.Marshal(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return def.ToPB()
}

func TestViolations(t *testing.T) {
	image := llb.Image("docker.io/test/a:v1")
	source := llb.NewSourceMap(nil, "aws.yml", "YAML", []byte("init: []\n"))
	at := func(first, last int32) llb.ConstraintsOpt {
		return source.Location([]*pb.Range{{Start: &pb.Position{Line: first}, End: &pb.Position{Line: last}}})
	}
	solve := func(st llb.State) func(context.Context, *Gateway) error {
		return func(ctx context.Context, g *Gateway) error {
			_, err := g.Solve(ctx, client.SolveRequest{Definition: marshal(t, st)})
			return err
		}
	}
	for _, c := range []struct {
		name string
		call func(context.Context, *Gateway) error
		want string // empty: no violation
	}{
		{"an image", solve(image), ""},
		{"a location", solve(llb.Scratch().File(llb.Mkdir("/a", 0o755), at(1, 1))), ""},
		{"a location outside of the text", solve(llb.Scratch().File(llb.Mkdir("/a", 0o755), at(3, 3))), "lines 3 to 3 of aws.yml, which has 2"},
		{"a location that ends before it starts", solve(llb.Scratch().File(llb.Mkdir("/a", 0o755), at(2, 1))), "lines 2 to 1"},
		{"an unknown image", solve(llb.Image("docker.io/test/b:v1")), "docker.io/test/b:v1: not found"},
		{"an unknown folder", solve(llb.Local("nonsuch", llb.SessionID(Session))), `local source "nonsuch" is not in the session`},
		{"a folder of another session", solve(llb.Local("context", llb.SessionID("other"))), `local source "context" is of session "other"`},
		{"a blob of no image", solve(llb.ImageBlob("docker.io/test/a@sha256:" + strings.Repeat("0", 64))), "not found"},
		{"another source", solve(llb.HTTP("https://example.com")), `source "https://example.com"`},
		{"a capability", solve(llb.Merge([]llb.State{image, llb.Scratch().File(llb.Mkdir("/a", 0o755))})), "mergeop"},
		{"no definition", func(ctx context.Context, g *Gateway) error {
			_, err := g.Solve(ctx, client.SolveRequest{})
			return err
		}, "no definition"},
		{"another frontend", func(ctx context.Context, g *Gateway) error {
			_, err := g.Solve(ctx, client.SolveRequest{Frontend: "other"})
			return err
		}, `frontend "other"`},
		{"metadata without platform", func(ctx context.Context, g *Gateway) error {
			_, err := g.ResolveSourceMetadata(ctx, &pb.SourceOp{Identifier: "docker-image://docker.io/test/a:v1"}, sourceresolver.Opt{})
			return err
		}, "without platform"},
		{"a resolve mode", func(ctx context.Context, g *Gateway) error {
			_, err := g.ResolveSourceMetadata(ctx, &pb.SourceOp{Identifier: "docker-image://docker.io/test/a:v1"}, sourceresolver.Opt{
				ImageOpt: &sourceresolver.ResolveImageOpt{Platform: &ocispecs.Platform{OS: "linux", Architecture: "amd64"}, ResolveMode: "always"},
			})
			return err
		}, `resolve mode "always"`},
		{"configuration outside of a layout", func(ctx context.Context, g *Gateway) error {
			_, _, _, err := g.ResolveImageConfig(ctx, "docker.io/test/a:v1", sourceresolver.Opt{})
			return err
		}, "not an OCI layout"},
		{"a warning about nothing", func(ctx context.Context, g *Gateway) error {
			return g.Warn(ctx, "sha256:0", "text", client.WarnOpts{})
		}, "unknown vertex"},
		{"a container", func(ctx context.Context, g *Gateway) error {
			_, err := g.NewContainer(ctx, client.NewContainerRequest{})
			return err
		}, "no container expected"},
		{"files of a container", func(ctx context.Context, g *Gateway) error {
			res, err := g.Solve(ctx, client.SolveRequest{Definition: marshal(t, image.Run(llb.Args([]string{"sh"})).Root())})
			if err != nil {
				return err
			}
			ref, err := res.SingleRef()
			if err != nil {
				return err
			}
			return ref.Evaluate(ctx)
		}, `nothing should run, but did: ["sh"]`},
	} {
		t.Run(c.name, func(t *testing.T) {
			g, r := newGateway(t)
			g.Missing = []apicaps.CapID{pb.CapMergeOp}
			err := c.call(t.Context(), g)
			if c.want == "" {
				if err != nil || len(r.violations) > 0 {
					t.Errorf("got %v, violations %q", err, r.violations)
				}
				return
			}
			if err == nil || len(r.violations) != 1 || !strings.Contains(r.violations[0], c.want) {
				t.Errorf("got %v, violations %q, want %q", err, r.violations, c.want)
			}
		})
	}
}

func TestFiles(t *testing.T) {
	g, _ := newGateway(t)
	g.Locals["context"] = Files{"a/b": "1", "a/c": "2", "d": "3"}
	local := func(opts ...llb.LocalOption) llb.State {
		return llb.Local("context", append(opts, llb.SessionID(Session))...)
	}
	for name, c := range map[string]struct {
		state llb.State
		has   string
		lacks string
	}{
		"followed": {local(llb.FollowPaths([]string{"d"})), "d", "a/b"},
		"included": {local(llb.IncludePatterns([]string{"a"})), "a/b", "d"},
		"excluded": {local(llb.ExcludePatterns([]string{"a/c"})), "d", "a/c"},
		"copied":   {llb.Scratch().File(llb.Copy(local(), "/a", "/e", &llb.CopyInfo{CopyDirContentsOnly: true})), "e/b", "a/b"},
		"made":     {llb.Scratch().File(llb.Mkfile("/f", 0o644, []byte("f"))), "f", "d"},
		"merged":   {llb.Merge([]llb.State{local(), llb.Scratch().File(llb.Mkfile("/f", 0o644, nil))}), "f", "e"},
	} {
		res, err := g.Solve(t.Context(), client.SolveRequest{Definition: marshal(t, c.state)})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		ref, err := res.SingleRef()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ref.StatFile(t.Context(), client.StatRequest{Path: c.has}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := ref.ReadFile(t.Context(), client.ReadRequest{Filename: c.lacks}); err == nil || !strings.Contains(err.Error(), "no such file or directory") {
			t.Errorf("%s: %s: got %v", name, c.lacks, err)
		}
	}
}
