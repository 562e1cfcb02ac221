package frontend

import (
	"context"
	"errors"
	"slices"
	"strconv"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/apicaps"

	"github.com/slipway-build/slipway/exporter/format"
	"github.com/slipway-build/slipway/exporter/segment"
	graph "github.com/slipway-build/slipway/llb"
	"github.com/slipway-build/slipway/machine"
)

// A Writer makes the files of a machine in the process of a client.
type Writer interface {
	// Write returns whether the files exist. Otherwise, BuildKit makes them.
	Write(context.Context, *Local) (bool, error)
}

// Local is what a [Writer] makes the files of a machine of.
type Local struct {
	Graph *pb.Definition // which makes the files in BuildKit

	// Writes returns what the formats are made of. It is nil if only BuildKit
	// can write them: container images, formats that are larger in parts than
	// complete, signed ones, whose key the builder asks for, and all formats of a frontend image that writes other bytes than
	// this program.
	Writes func() ([]graph.Write, error)

	Caps    apicaps.CapSet                                             // of the builder
	Solve   func(context.Context, llb.State) (client.Reference, error) // executes a part of the graph
	Explain func(w graph.Write, err error) error                       // locates an error of the exporter in the YAML
	Warn    func(ctx context.Context, text string)                     // shows a warning of the exporter
}

// BuildLocal answers one request like [Build]. If w makes the files of the
// machine, the result is empty.
func BuildLocal(ctx context.Context, c client.Client, w Writer) (*client.Result, error) {
	return answer(ctx, c, w)
}

// formatsLabel is the label of the frontend image with the version of the formats
// that its exporter writes.
const formatsLabel = "build.slipway.formats"

// writesSame reports whether the exporter in an image writes the same bytes as
// that in this process.
func writesSame(labels map[string]string) bool {
	return labels[formatsLabel] == strconv.Itoa(format.Version)
}

// local lets the client make the files of a machine. It returns false if BuildKit
// must.
func (b *build) local(ctx context.Context, st llb.State, parts *graphParts) (bool, error) {
	if b.req.writer == nil || b.req.ui.MultiPlatformRequested {
		return false, nil
	}
	def, err := b.req.marshal(ctx, st)
	if err != nil {
		return false, err
	}
	l := &Local{
		Graph: def,
		Caps:  b.req.ui.BuildOpts().LLBCaps,
		Solve: func(ctx context.Context, st llb.State) (client.Reference, error) {
			return b.req.evaluate(ctx, st, parts.imports...)
		},
		Explain: b.req.explainWrite,
		Warn:    b.req.warn,
	}
	onlyBuilder := func(f format.Format) bool { return f.Container || f.Segments != segment.CPIO }
	if b.tools.writesSame && b.options.sign == graph.SignNever && !slices.ContainsFunc(b.options.formats, onlyBuilder) {
		l.Writes = func() ([]graph.Write, error) { return graph.Writes(parts.input, parts.options) }
	}
	return b.req.writer.Write(ctx, l)
}

// explainWrite returns the error of an exporter in this process as
// [request.explain] returns that of one in a container.
func (r *request) explainWrite(w graph.Write, err error) error {
	message := "[" + w.Format.Name + "] write " + w.Input.Name + ": " + err.Error()
	if at, ok := r.components.named(message); ok {
		return machine.Diagnostics{r.sources.errorAt(at, "%s", message)}
	}
	return errors.New(message)
}
