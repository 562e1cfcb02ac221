// Package gatewaytest provides a BuildKit gateway in memory, for tests of
// frontends. It is strict: whatever BuildKit would reject is a violation, which
// fails the call and the test. It executes no containers; a test provides what
// they write.
package gatewaytest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/defaults"
	"github.com/containerd/platforms"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/frontend/gateway/client"
	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/apicaps"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Session is the id of the client's session.
const Session = "session"

// Files maps slash-separated paths to contents.
type Files map[string]string

// A Warning is one that the frontend reported.
type Warning struct {
	Text string
	client.WarnOpts
}

// A Gateway is a [client.Client]. Set its fields before the first call.
type Gateway struct {
	Opts     map[string]string // of the request, as FrontendAttrs
	Platform string            // of the builder
	Missing  []apicaps.CapID   // capabilities that the builder lacks
	Locals   map[string]Files  // folders of the client
	Images   map[string]*Image // in registries, by canonical reference
	Classic  map[string]*Image // in the classic store of a Docker Engine, by canonical reference
	Layouts  map[string]*Image // OCI layouts of the client, by store
	Policy   map[string]string // source policy: identifier to identifier
	Frontend *llb.State        // image that the frontend runs in; nil for the client's process
	Rootless bool              // the builder creates no device nodes

	// Run returns the files that a container writes to its output.
	Run func(*pb.ExecOp) (Files, error)
	// Fail returns the message of a program that fails, or "". Only requests that
	// evaluate their graph notice.
	Fail func(*pb.ExecOp) string
	// Dockerfile returns the image that the Dockerfile frontend builds.
	Dockerfile func(opts map[string]string, context Files) (*ocispecs.Image, error)

	t  testing.TB
	mu sync.Mutex

	warnings []Warning
	solved   []client.SolveRequest
	resolved []sourceresolver.Opt
	vertices map[digest.Digest]bool
}

// New returns a gateway on linux/amd64 for a request with the given file as the
// machine YAML.
func New(t testing.TB, filename, yaml string) *Gateway {
	files := Files{filename: yaml}
	return &Gateway{
		Opts:     map[string]string{"filename": filename},
		Platform: "linux/amd64",
		Locals:   map[string]Files{"dockerfile": files, "context": files},
		Images:   map[string]*Image{},
		Classic:  map[string]*Image{},
		Layouts:  map[string]*Image{},
		t:        t,
		vertices: map[digest.Digest]bool{},
	}
}

// Warnings returns the warnings that the frontend reported.
func (g *Gateway) Warnings() []Warning {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.warnings)
}

// Solved returns all requests to solve.
func (g *Gateway) Solved() []client.SolveRequest {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.solved)
}

// Resolved returns the options of all requests for the metadata of an image.
func (g *Gateway) Resolved() []sourceresolver.Opt {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.resolved)
}

// violation fails the test.
func (g *Gateway) violation(format string, args ...any) error {
	err := fmt.Errorf("gateway: "+format, args...)
	g.t.Error(err)
	return err
}

// BuildOpts implements [client.Client].
func (g *Gateway) BuildOpts() client.BuildOpts {
	return client.BuildOpts{
		Opts:      maps.Clone(g.Opts),
		SessionID: Session,
		Workers:   []client.WorkerInfo{{ID: "worker", Platforms: []ocispecs.Platform{platforms.MustParse(g.Platform)}}},
		Product:   "buildkit",
		LLBCaps:   g.caps(),
		Caps:      gwpb.Caps.CapSet(gwpb.Caps.All()),
	}
}

func (g *Gateway) caps() apicaps.CapSet {
	return pb.Caps.CapSet(slices.DeleteFunc(pb.Caps.All(), func(c *apicaps.PBCap) bool {
		return slices.Contains(g.Missing, apicaps.CapID(c.ID))
	}))
}

// CurrentFrontend returns the image that the frontend runs in.
func (g *Gateway) CurrentFrontend() (*llb.State, error) { return g.Frontend, nil }

// Inputs implements [client.Client].
func (g *Gateway) Inputs(context.Context) (map[string]llb.State, error) { return nil, nil }

// Warn implements [client.Client].
func (g *Gateway) Warn(_ context.Context, d digest.Digest, text string, opts client.WarnOpts) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.vertices[d] {
		return g.violation("warning %q about unknown vertex %s", text, d)
	}
	if err := checkRanges(opts.SourceInfo, opts.Range); err != nil {
		return g.violation("warning %q: %w", text, err)
	}
	g.warnings = append(g.warnings, Warning{text, opts})
	return nil
}

// ResolveSourceMetadata implements [client.Client].
func (g *Gateway) ResolveSourceMetadata(_ context.Context, op *pb.SourceOp, opt sourceresolver.Opt) (*sourceresolver.MetaResponse, error) {
	g.mu.Lock()
	g.resolved = append(g.resolved, opt)
	g.mu.Unlock()
	id := op.Identifier
	if to, ok := g.Policy[id]; ok {
		id = to
	}
	name, ok := strings.CutPrefix(id, "docker-image://")
	if !ok {
		return &sourceresolver.MetaResponse{Op: &pb.SourceOp{Identifier: id}}, nil
	}
	if opt.ImageOpt == nil || opt.ImageOpt.Platform == nil {
		return nil, g.violation("metadata of %s without platform", name)
	}
	if mode := opt.ImageOpt.ResolveMode; !slices.Contains([]string{"", pb.AttrImageResolveModeDefault, pb.AttrImageResolveModePreferLocal, pb.AttrImageResolveModeForcePull}, mode) {
		return nil, g.violation("metadata of %s: resolve mode %q", name, mode)
	}
	if i := g.Classic[name]; i != nil && i.isFor(*opt.ImageOpt.Platform) && opt.ImageOpt.ResolveMode != pb.AttrImageResolveModeForcePull {
		config, err := i.config(*opt.ImageOpt.Platform)
		return &sourceresolver.MetaResponse{
			Op:    &pb.SourceOp{Identifier: id},
			Image: &sourceresolver.ResolveImageResponse{Config: config}, // this store has no digests
		}, err
	}
	image, err := g.image(name)
	if err != nil {
		return nil, err
	}
	config, err := image.config(*opt.ImageOpt.Platform)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return &sourceresolver.MetaResponse{
		Op:    &pb.SourceOp{Identifier: id},
		Image: &sourceresolver.ResolveImageResponse{Digest: image.Digest, Config: config},
	}, nil
}

// ResolveImageConfig implements [client.Client] for images of OCI layouts.
func (g *Gateway) ResolveImageConfig(_ context.Context, ref string, opt sourceresolver.Opt) (string, digest.Digest, []byte, error) {
	o := opt.OCILayoutOpt
	if o == nil || o.Platform == nil || o.Store.SessionID != Session {
		return "", "", nil, g.violation("configuration of %s: not an OCI layout of this session for a platform", ref)
	}
	if slices.Contains(g.Missing, pb.CapSourceOCILayout) {
		return "", "", nil, errors.New("unknown scheme oci-layout: not found")
	}
	image := g.Layouts[o.Store.StoreID]
	if image == nil {
		return "", "", nil, fmt.Errorf("OCI layout %s: not found", o.Store.StoreID)
	}
	config, err := image.config(*o.Platform)
	return ref, image.Digest, config, err
}

// Solve implements [client.Client].
func (g *Gateway) Solve(ctx context.Context, req client.SolveRequest) (*client.Result, error) {
	g.mu.Lock()
	g.solved = append(g.solved, req.Clone())
	g.mu.Unlock()
	if req.Frontend != "" {
		return g.solveDockerfile(req)
	}
	if size := req.Definition.SizeVT(); size > defaults.DefaultMaxRecvMsgSize {
		return nil, g.violation("message of %d bytes is larger than gRPC's maximum", size)
	}
	graph, err := g.check(req.Definition)
	if err != nil {
		return nil, g.violation("%w", err)
	}
	g.mu.Lock()
	for d := range graph.ops {
		g.vertices[d] = true
	}
	g.mu.Unlock()
	if req.Evaluate && g.Fail != nil {
		for d, op := range graph.ops {
			if exec := op.GetExec(); exec != nil && g.Fail(exec) != "" {
				return nil, failed(ctx, d, op, req.Definition)
			}
		}
	}
	res := client.NewResult()
	res.SetRef(&reference{g, req.Definition, graph})
	return res, nil
}

func checkRanges(info *pb.SourceInfo, ranges []*pb.Range) error {
	if info == nil {
		return errors.New("no source")
	}
	lines := strings.Count(string(info.Data), "\n") + 1
	for _, r := range ranges {
		if r.Start.Line < 1 || r.End.Line < r.Start.Line || int(r.End.Line) > lines {
			return fmt.Errorf("lines %d to %d of %s, which has %d", r.Start.Line, r.End.Line, info.Filename, lines)
		}
	}
	return nil
}
