package frontend

import (
	"context"
	"errors"
	"fmt"
	"path"
	"regexp"
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

// components are the lines of the YAML for what the exporter names in its
// messages: components, files and the kernel.
type components struct {
	mu    sync.Mutex
	lines map[string]machine.Range // by component
	files map[string]machine.Range // by path, also of directories above a file
}

// add adds the components of a plan, which differ between platforms.
func (c *components) add(plan *machine.Plan) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lines == nil {
		c.lines, c.files = map[string]machine.Range{}, map[string]machine.Range{}
	}
	for _, t := range plan.Trees {
		c.lines[t.Name] = t.Range
	}
	for _, l := range plan.Layouts {
		c.lines[l.Name] = l.Range
	}
	for _, s := range plan.Starts {
		c.lines[s.Name+": command: "] = s.Range
		for destination, at := range s.MountRanges {
			c.lines[s.Name+": mount on "+destination+": "] = at
		}
	}
	if k := plan.Kernel; k != nil {
		for _, name := range []string{"the kernel", "in kernel", "of kernel", "not a Linux kernel", "microcode"} {
			c.lines[name] = k.Range
		}
		c.lines["the kernel cannot mount"], c.lines["modules of the kernel"] = k.TarRange, k.TarRange
	}
	for _, f := range plan.Files {
		for p := f.Path; p != "."; p = path.Dir(p) {
			if _, ok := c.files[p]; !ok {
				c.files[p] = f.Range
			}
		}
	}
}

// fileNames match the names of files of the machine YAML in a message of
// exporter/tree.
var fileNames = []*regexp.Regexp{
	regexp.MustCompile(`(?:^|: )([^:]+) of (?:files|secrets) `),
	regexp.MustCompile(` is below (.+), which is a .* in (?:files|secrets)\b`),
}

// named returns the lines of what a message names first.
func (c *components) named(message string) (machine.Range, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	first, at, found := len(message), machine.Range{}, ""
	for name, line := range c.lines {
		i := strings.Index(message, name)
		if i >= 0 && (i < first || i == first && len(name) > len(found)) {
			first, at, found = i, line, name
		}
	}
	for _, r := range fileNames {
		for _, m := range r.FindAllStringSubmatchIndex(message, -1) {
			if line, ok := c.files[message[m[2]:m[3]]]; ok && m[2] < first {
				first, at = m[2], line
			}
		}
	}
	return at, first < len(message)
}
