package main

import (
	"context"
	"errors"

	"github.com/slipway-build/slipway/guest/bundle"
	"github.com/slipway-build/slipway/guest/containerd"
)

// Groups of containers that share a shim. The services that start with the
// machine are one group: one shim takes less time and memory than one for each.
// A service that is started again is a group of its own, because the shared shim
// may be about to end, and its working directory is gone when its first container
// is. Neither may be the name of a service, which is containerd's default: when a
// shim ends, it removes the socket of the group that is named after its first
// container.
const (
	sharedGroup = "slipway/services"
	ownGroup    = "slipway/service/" // and the name
)

// shims is what a daemon knows of shared shims.
type shims struct {
	// first holds an element while the first container of a group is created,
	// because two that find no shim would both start one.
	first chan struct{}

	leaders map[string]string // for each namespace, the service whose shim the others share; under the lock of the daemon
}

func newShims() shims { return shims{make(chan struct{}, 1), map[string]string{}} }

// leader returns the leader of a namespace, or "".
func (d *daemon) leader(space string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.shims.leaders[space]
}

// dismiss makes a service, whose task is about to be deleted, no leader any more.
func (d *daemon) dismiss(b *bundle.Bundle) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if space := namespace(b); d.shims.leaders[space] == b.Name {
		delete(d.shims.leaders, space)
	}
}

// createFirst creates a container and its task for a service that starts with the
// machine. If they cannot share a shim, they get one of their own, since the
// shared one may have ended at that moment.
func (d *daemon) createFirst(ctx context.Context, b *bundle.Bundle, out *stream) (pid int, err error) {
	pid, err = d.createShared(ctx, b, out)
	if err == nil || errors.Is(err, containerd.ErrUnavailable) || ctx.Err() != nil {
		return pid, err
	}
	d.remove(b)
	return d.createOwn(ctx, b, out)
}

// createShared creates a container and its task, which share the shim of the
// leader of their namespace. Containerd connects to that shim itself. If there is
// no leader, this one becomes it; by the group, it shares the shim of those before.
func (d *daemon) createShared(ctx context.Context, b *bundle.Bundle, out *stream) (pid int, err error) {
	annotations, err := b.Annotations()
	if err != nil {
		return 0, err
	}
	if annotations[containerd.GroupAnnotation] != "" {
		return d.createOwn(ctx, b, out)
	}
	select {
	case d.shims.first <- struct{}{}:
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	space := namespace(b)
	if leader := d.leader(space); leader != "" {
		<-d.shims.first
		return d.create(ctx, b, sharedGroup, leader, out)
	}
	defer func() { <-d.shims.first }()
	if pid, err = d.create(ctx, b, sharedGroup, "", out); err != nil {
		return 0, err
	}
	// Without the record, containerd runs a shim that finds the shared one by the
	// group.
	if err := d.client.CreateSandbox(ctx, space, b.Name); err != nil && !errors.Is(err, containerd.ErrAlreadyExists) {
		d.m.out.say("containerd: record the shared shim: %v", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.shims.leaders[space] = b.Name
	return pid, nil
}

// createOwn creates a container and its task with a shim of their own, unless the
// container names a group.
func (d *daemon) createOwn(ctx context.Context, b *bundle.Bundle, out *stream) (pid int, err error) {
	return d.create(ctx, b, ownGroup+b.Name, "", out)
}
