// Package client is Slipway's other door: it runs the frontend inside of this
// process against any BuildKit, with what docker buildx build offers for it.
package client

import (
	"context"

	"github.com/moby/buildkit/client"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/util/progress/progressui"
	"golang.org/x/sync/errgroup"

	"github.com/slipway-build/slipway/frontend"
)

// Build builds a machine and returns the files it made. They get their names
// when all are whole: a build that fails leaves nothing behind.
//
// The errors of the machine YAML and of BuildKit's steps carry the lines at
// fault (solver/errdefs.Sources).
func Build(ctx context.Context, c *client.Client, opt Options, display progressui.Display) ([]File, error) {
	outputs, err := parseOutputs(opt.Outputs)
	if err != nil {
		return nil, err
	}
	so, err := opt.solve()
	if err != nil {
		return nil, err
	}
	defer outputs.discard()
	if so.Exports, err = outputs.exports(); err != nil {
		return nil, err
	}
	folder := opt.folder(outputs)
	var graph string
	var there []File
	err = run(ctx, c, so, display, func(ctx context.Context, c gateway.Client) (*gateway.Result, error) {
		if folder == "" {
			return frontend.Build(ctx, c)
		}
		g := &graphs{Client: c, known: map[gateway.Reference]string{}}
		res, err := frontend.Build(ctx, g)
		if err != nil {
			return nil, err
		}
		if ref, err := res.SingleRef(); err == nil {
			graph = g.known[ref]
		}
		if there = unchanged(folder, graph); graph != "" && there != nil {
			return gateway.NewResult(), nil
		}
		return res, nil
	})
	if err != nil || there != nil {
		return there, err
	}
	files, err := outputs.keep()
	if err == nil && graph != "" {
		err = remember(folder, graph, files)
	}
	return files, err
}

// Lock looks the images of a machine YAML up and returns its lock: what belongs
// beside it, under the name that [frontend.LockName] gives.
func Lock(ctx context.Context, c *client.Client, opt Options, display progressui.Display) ([]byte, error) {
	so, err := opt.solve()
	if err != nil {
		return nil, err
	}
	so.FrontendAttrs["requestid"] = frontend.LockRequest
	so.Internal = true
	var lock []byte
	err = run(ctx, c, so, display, func(ctx context.Context, c gateway.Client) (*gateway.Result, error) {
		res, err := frontend.Build(ctx, c)
		if err == nil {
			lock = res.Metadata["result.txt"]
		}
		return res, err
	})
	return lock, err
}

// run lets BuildKit work for a frontend and shows how.
func run(ctx context.Context, c *client.Client, so client.SolveOpt, display progressui.Display, build gateway.BuildFunc) error {
	status := make(chan *client.SolveStatus)
	var eg errgroup.Group
	eg.Go(func() error {
		_, err := c.Build(ctx, so, "", build, status)
		return err
	})
	eg.Go(func() error {
		// Until the channel is closed: what went wrong is among the last to come.
		_, err := display.UpdateFrom(context.WithoutCancel(ctx), status)
		return err
	})
	return eg.Wait()
}
