// Package client is Slipway's other door: it runs the frontend inside of this
// process against any BuildKit, with what docker buildx build offers for it.
package client

import (
	"context"

	"github.com/moby/buildkit/client"
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
	status := make(chan *client.SolveStatus)
	var eg errgroup.Group
	eg.Go(func() error {
		_, err := c.Build(ctx, so, "", frontend.Build, status)
		return err
	})
	eg.Go(func() error {
		// Until the channel is closed: what went wrong is among the last to come.
		_, err := display.UpdateFrom(context.WithoutCancel(ctx), status)
		return err
	})
	if err := eg.Wait(); err != nil {
		return nil, err
	}
	return outputs.keep()
}
