package gatewaytest

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/grpcerrors"
	digest "github.com/opencontainers/go-digest"

	"github.com/slipway-build/slipway/internal/failure"
)

// failed returns BuildKit's error for a step that exits with status 1, as it
// arrives through gRPC.
func failed(ctx context.Context, d digest.Digest, op *pb.Op, def *pb.Definition) error {
	exec := op.GetExec()
	err := fmt.Errorf("process %q did not complete successfully: exit code: 1", strings.Join(exec.Meta.Args, " "))
	for _, l := range def.GetSource().GetLocations()[d.String()].GetLocations() {
		err = errdefs.WithSource(err, &errdefs.Source{Info: def.Source.Infos[l.SourceIndex], Ranges: l.Ranges})
	}
	solve := &errdefs.Solve{Op: op, Description: def.Metadata[d.String()].GetDescription()}
	for i := range exec.Mounts {
		solve.MountIDs = append(solve.MountIDs, strconv.Itoa(i))
	}
	return grpcerrors.FromGRPC(grpcerrors.ToGRPC(ctx, &errdefs.SolveError{Solve: solve, Err: err}))
}

// NewContainer implements [client.Client]. The container has mounts of a failed
// step.
func (g *Gateway) NewContainer(_ context.Context, req client.NewContainerRequest) (client.Container, error) {
	if g.Fail == nil || req.NetMode != pb.NetMode_NONE {
		return nil, g.violation("no container expected")
	}
	return &container{g: g, mounts: req.Mounts}, nil
}

// container runs a program once more to ask why it failed.
type container struct {
	client.Container // panics
	g                *Gateway
	mounts           []client.Mount
}

// Start implements [client.Container].
func (c *container) Start(_ context.Context, req client.StartRequest) (client.ContainerProcess, error) {
	var dests []string
	for _, m := range c.mounts {
		if m.ResultID == "" {
			return nil, c.g.violation("mount at %s is not of a failed step", m.Dest)
		}
		dests = append(dests, m.Dest)
	}
	if len(req.Args) != 3 || req.Args[1] != failure.Command || !slices.Equal(dests, []string{pb.RootMount, req.Args[2], req.Args[0]}) {
		return nil, c.g.violation("container runs %q with mounts %q", req.Args, dests)
	}
	message := c.g.Fail(&pb.ExecOp{Meta: &pb.Meta{Args: []string{req.Args[0]}}})
	_, err := req.Stdout.Write([]byte(message))
	return process{}, err
}

// Release implements [client.Container].
func (c *container) Release(context.Context) error { return nil }

type process struct{}

func (process) Wait() error                                  { return nil }
func (process) Resize(context.Context, client.WinSize) error { return nil }
func (process) Signal(context.Context, syscall.Signal) error { return nil }
