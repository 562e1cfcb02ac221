// Package client runs the frontend in this process, against any BuildKit. It
// supports the options of docker buildx build.
package client

import (
	"context"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/progress/progressui"
	"golang.org/x/sync/errgroup"

	"github.com/slipway-build/slipway/frontend"
)

// Progress displays the progress of a build and keeps its warnings.
type Progress struct {
	progressui.Display
	Warnings []client.VertexWarning
}

// Build builds a machine and returns the files that it wrote. A build that fails
// leaves no files behind.
//
// Errors in the machine YAML and in BuildKit's steps carry the affected lines
// (solver/errdefs.Sources of BuildKit).
func Build(ctx context.Context, b *Builder, opt Options, progress *Progress) ([]File, error) {
	outputs, err := parseOutputs(opt.Outputs)
	if err != nil {
		return nil, err
	}
	reuse := &reuse{folder: opt.reusableFolder(outputs)}
	if reuse.folder != "" {
		if reuse.inputs = opt.inputDigest(ctx, b); reuse.unchanged() {
			return reuse.files, nil
		}
	}
	so, err := opt.solveOpt()
	if err != nil {
		return nil, err
	}
	defer outputs.discard()
	if so.Exports, err = outputs.exports(ctx, b.isEngine); err != nil {
		return nil, err
	}
	reuse.openStore(outputs)
	defer reuse.close()
	if err := solve(ctx, b, so, progress, reuse.build); err != nil {
		return nil, outputs.explain(err)
	}
	// The next build shows the warnings again. A file that changed during the build
	// may be in the result or not.
	if len(progress.Warnings) > 0 || reuse.inputs != "" && opt.inputDigest(ctx, b) != reuse.inputs {
		reuse.inputs = ""
	}
	if reuse.files != nil {
		if reuse.inputs != "" {
			return reuse.files, reuse.record(reuse.files)
		}
		return reuse.files, nil
	}
	files, err := outputs.keep()
	if err != nil {
		return nil, err
	}
	return files, reuse.record(files)
}

// Lock resolves the images of a machine YAML and returns its lock, which belongs
// in the file that [frontend.LockName] names.
func Lock(ctx context.Context, b *Builder, opt Options, progress *Progress) ([]byte, error) {
	answer, err := Call(ctx, b, opt, frontend.LockRequest, progress)
	return answer["result.txt"], err
}

// Call asks the frontend a question, as docker buildx build --call does. The
// request is the full name, for example "frontend.machine.plan". The answer has
// "result.json" and "result.txt".
func Call(ctx context.Context, b *Builder, opt Options, request string, progress *Progress) (map[string][]byte, error) {
	so, err := opt.solveOpt()
	if err != nil {
		return nil, err
	}
	so.FrontendAttrs["requestid"] = request
	so.Internal = true
	var answer map[string][]byte
	err = solve(ctx, b, so, progress, func(ctx context.Context, c gateway.Client) (*gateway.Result, error) {
		res, err := frontend.Build(ctx, c)
		if err == nil {
			answer = res.Metadata
		}
		return res, err
	})
	return answer, err
}

// ResolveFrontend returns the frontend image that machines name by default, with
// its digest.
func (b *Builder) ResolveFrontend(ctx context.Context) (string, error) {
	named, err := reference.ParseNormalizedNamed(frontend.DefaultImage)
	if err != nil {
		return "", err
	}
	var ref string
	_, err = b.Build(ctx, client.SolveOpt{Internal: true}, "", func(ctx context.Context, c gateway.Client) (*gateway.Result, error) {
		_, digest, _, err := c.ResolveImageConfig(ctx, named.String(), sourceresolver.Opt{})
		ref = frontend.DefaultImage + "@" + digest.String()
		return gateway.NewResult(), err
	}, nil)
	return ref, err
}

// solve lets BuildKit work for a frontend and displays the progress.
func solve(ctx context.Context, b *Builder, so client.SolveOpt, progress *Progress, build gateway.BuildFunc) error {
	if _, ok := so.FrontendAttrs[imageResolveMode]; !ok && b.isEngine() {
		so.FrontendAttrs[imageResolveMode] = pb.AttrImageResolveModePreferLocal
	}
	status := make(chan *client.SolveStatus)
	var eg errgroup.Group
	eg.Go(func() error {
		_, err := b.Build(ctx, so, "", build, status)
		return err
	})
	eg.Go(func() (err error) {
		// Not canceled: the last messages, before the channel is closed, are about
		// what failed.
		progress.Warnings, err = progress.UpdateFrom(context.WithoutCancel(ctx), status)
		return err
	})
	return eg.Wait()
}
