package main

import (
	"context"
	"errors"

	"github.com/slipway-build/slipway/guest/bundle"
	"github.com/slipway-build/slipway/guest/containerd"
)

// shimGroup is the group of the services that start with the machine. One shim
// for all of them takes less time and memory than one for each. A service that
// is started again has a shim of its own, because the shared one may be about to
// end, and its working directory is gone when its first container is. No service
// can have this name, which would be the group of its own shim.
const shimGroup = "slipway/services"

// createFirst creates a container and its task, which share a shim. If that fails,
// they get one of their own, since the shared one may have ended at that moment.
func (d *daemon) createFirst(ctx context.Context, b *bundle.Bundle, spec []byte, out *stream) (pid int, err error) {
	pid, err = d.createShared(ctx, b, spec, out)
	if err == nil || errors.Is(err, containerd.ErrUnavailable) {
		return pid, err
	}
	d.remove(b)
	return d.create(ctx, b, spec, "", out)
}

// createShared creates a container and its task, which share the shim of the
// leader of their namespace. Containerd connects to that shim itself. By the group,
// the next leader finds it too. A leader is created alone, because two that find
// no shim would both start one.
func (d *daemon) createShared(ctx context.Context, b *bundle.Bundle, spec []byte, out *stream) (pid int, err error) {
	spec, added, err := containerd.Group(spec, shimGroup)
	if err != nil {
		return 0, err
	}
	if !added {
		return d.create(ctx, b, spec, "", out)
	}
	space := namespace(b)
	d.shims.Lock()
	leader := d.leaders[space]
	if leader == "" {
		defer d.shims.Unlock()
		if pid, err = d.create(ctx, b, spec, "", out); err == nil {
			d.leaders[space] = b.Name
			d.client.CreateSandbox(ctx, space, b.Name) // if this fails, the group remains
		}
		return pid, err
	}
	d.shims.Unlock()
	if pid, err = d.create(ctx, b, spec, leader, out); err != nil {
		d.shims.Lock()
		defer d.shims.Unlock()
		if d.leaders[space] == leader { // it may have ended
			delete(d.leaders, space)
		}
	}
	return pid, err
}
