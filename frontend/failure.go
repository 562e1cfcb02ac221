package frontend

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/grpcerrors"
	"google.golang.org/grpc/status"

	"github.com/slipway-build/slipway/internal/failure"
	"github.com/slipway-build/slipway/machine"
)

// explain replaces the text of the error of a failed step by the message of its
// program. The error keeps its lines of the YAML.
func (r *request) explain(ctx context.Context, err error) error {
	var failed *errdefs.SolveError
	if !errors.As(err, &failed) || ctx.Err() != nil {
		return err
	}
	message := r.failure(ctx, failed.Solve)
	if message == "" {
		return err
	}
	if name := failed.Description["llb.customname"]; name != "" {
		message = name + ": " + message
	}
	for _, s := range errdefs.Sources(err) {
		if len(s.Ranges) > 0 {
			message = fmt.Sprintf("%s:%d: %s", s.Info.GetFilename(), s.Ranges[0].Start.Line, message)
			break
		}
	}
	if len(errdefs.Sources(err)) == 0 {
		if at, ok := r.components.named(message); ok {
			return machine.Diagnostics{r.sources.errorAt(at, "%s", message)}
		}
	}
	// Not wrapped: BuildKit shows the text of the gRPC status that the error
	// contains.
	st := status.Convert(grpcerrors.ToGRPC(ctx, err)).Proto()
	st.Message = message
	return grpcerrors.FromGRPC(status.FromProto(st).Err())
}

// failure returns the message that the program of a failed step left in its
// output directory, or "" if there is none.
func (r *request) failure(ctx context.Context, failed *errdefs.Solve) string {
	exec := failed.GetOp().GetExec()
	args := exec.GetMeta().GetArgs()
	if len(args) < 4 || args[2] != "--out" || len(failed.MountIDs) < len(exec.Mounts) {
		return ""
	}
	program, out := args[0], args[3]
	req := client.NewContainerRequest{NetMode: pb.NetMode_NONE}
	for i, m := range exec.Mounts {
		if m.Dest != pb.RootMount && m.Dest != program && m.Dest != out {
			continue
		}
		req.Mounts = append(req.Mounts, client.Mount{
			Dest: m.Dest, Selector: m.Selector, Readonly: m.Readonly, MountType: m.MountType, ResultID: failed.MountIDs[i],
		})
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	c, err := r.gateway.NewContainer(ctx, req)
	if err != nil {
		return ""
	}
	defer c.Release(context.WithoutCancel(ctx))
	var message failure.Message
	p, err := c.Start(ctx, client.StartRequest{Args: []string{program, failure.Command, out}, Cwd: "/", Stdout: &message})
	if err != nil || p.Wait() != nil {
		return ""
	}
	return failure.Clean(message.String())
}

// components are the lines of the images of a machine, by component. The
// exporter names components in its messages.
type components struct {
	mu    sync.Mutex
	lines map[string]machine.Range
}

// add adds the components of a plan, which differ between platforms.
func (c *components) add(plan *machine.Plan) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lines == nil {
		c.lines = map[string]machine.Range{}
	}
	for _, t := range plan.Trees {
		c.lines[t.Name] = t.Range
	}
	for _, l := range plan.Layouts {
		c.lines[l.Name] = l.Range
	}
}

// named returns the lines of the component that a message names.
func (c *components) named(message string) (machine.Range, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	found := ""
	for name := range c.lines {
		if len(name) > len(found) && strings.Contains(message, name) {
			found = name
		}
	}
	return c.lines[found], found != ""
}
