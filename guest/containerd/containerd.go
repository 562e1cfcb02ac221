// Package containerd is a client of those parts of the API of containerd that
// an init needs: containers, and the tasks that run in them. The messages are
// those of api/services/containers/v1, api/services/sandbox/v1 and
// api/services/tasks/v1 in the sources of containerd.
package containerd

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"google.golang.org/protobuf/encoding/protowire"
)

// Client calls the daemon that listens at Socket. It is safe for concurrent
// use. A call takes as long as the daemon needs, or until its context ends.
type Client struct{ Socket string }

// Error is the error of a call that the daemon rejects.
type Error struct {
	Code    int // gRPC status
	Message string
}

func (e *Error) Error() string { return e.Message }

// Is makes errors.Is compare codes.
func (e *Error) Is(target error) bool {
	other, ok := target.(*Error)
	return ok && other.Code == e.Code
}

// Errors for use with errors.Is.
var (
	ErrNotFound      = &Error{5, "not found"}
	ErrAlreadyExists = &Error{6, "already exists"}
	ErrUnavailable   = errors.New("containerd cannot be reached") // the call may or may not have taken effect
)

const (
	runtime  = "io.containerd.runc.v2"
	specType = "types.containerd.io/opencontainers/runtime-spec/1/Spec" // type URL of config.json
)

// GroupAnnotation is the annotation in config.json that names the group of a
// container. One shim watches all containers of a group that are in the same
// namespace, until the last of them is deleted.
const GroupAnnotation = "io.containerd.runc.v2.group"

func (c *Client) call(ctx context.Context, namespace, method string, request []byte) ([]byte, error) {
	return call(ctx, c.Socket, "/containerd.services."+method, request, "containerd-namespace", namespace)
}

// CreateContainer creates a container. spec is a config.json in which the path
// of the root filesystem is absolute. sandbox is a container whose shim the new
// one shares, or "".
func (c *Client) CreateContainer(ctx context.Context, namespace, id string, spec []byte, sandbox string) error {
	container := join(
		text(1, id),
		message(4, text(1, runtime)),
		message(5, text(1, specType), text(2, string(spec))),
		text(11, sandbox),
	)
	_, err := c.call(ctx, namespace, "containers.v1.Containers/Create", message(1, container))
	return err
}

// CreateSandbox records that containers may share the shim of a container with a
// task, so that containerd connects to it instead of running another one. If it
// has been recorded before, the error is ErrAlreadyExists.
func (c *Client) CreateSandbox(ctx context.Context, namespace, id string) error {
	sandbox := join(text(1, id), message(2, text(1, runtime)))
	_, err := c.call(ctx, namespace, "sandbox.v1.Store/Create", message(1, sandbox))
	return err
}

// DeleteContainer deletes a container that has no task.
func (c *Client) DeleteContainer(ctx context.Context, namespace, id string) error {
	_, err := c.call(ctx, namespace, "containers.v1.Containers/Delete", text(1, id))
	return err
}

// CreateTask creates the process of a container, which does not run yet, and
// returns its ID. The paths are of FIFOs, or of files to which output is
// appended.
func (c *Client) CreateTask(ctx context.Context, namespace, id, stdout, stderr string) (pid int, err error) {
	response, err := c.call(ctx, namespace, "tasks.v1.Tasks/Create", join(text(1, id), text(5, stdout), text(6, stderr)))
	if err != nil {
		return 0, err
	}
	n, err := number(response, 2)
	return int(n), err
}

// StartTask starts the process.
func (c *Client) StartTask(ctx context.Context, namespace, id string) error {
	_, err := c.call(ctx, namespace, "tasks.v1.Tasks/Start", text(1, id))
	return err
}

// KillTask sends a signal to the first process, or to all processes of the
// container.
func (c *Client) KillTask(ctx context.Context, namespace, id string, signal syscall.Signal, all bool) error {
	request := join(text(1, id), varint(3, uint64(signal)))
	if all {
		request = append(request, varint(4, 1)...)
	}
	_, err := c.call(ctx, namespace, "tasks.v1.Tasks/Kill", request)
	return err
}

// WaitTask waits for the end of the process and returns its exit status. If a
// signal killed it, that is 128 plus the number of the signal.
func (c *Client) WaitTask(ctx context.Context, namespace, id string) (status int, err error) {
	response, err := c.call(ctx, namespace, "tasks.v1.Tasks/Wait", text(1, id))
	if err != nil {
		return 0, err
	}
	n, err := number(response, 1)
	return int(n), err
}

// DeleteTask deletes a process that has ended.
func (c *Client) DeleteTask(ctx context.Context, namespace, id string) error {
	_, err := c.call(ctx, namespace, "tasks.v1.Tasks/Delete", text(1, id))
	return err
}

// The functions below encode and decode messages
// (https://protobuf.dev/programming-guides/encoding/).

func text(field protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(nil, field, protowire.BytesType), s)
}

func varint(field protowire.Number, n uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, field, protowire.VarintType), n)
}

func message(field protowire.Number, fields ...[]byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, field, protowire.BytesType), join(fields...))
}

func join(fields ...[]byte) []byte {
	var all []byte
	for _, f := range fields {
		all = append(all, f...)
	}
	return all
}

// number returns the number in a field of a message, or 0 if the field is
// missing.
func number(m []byte, field protowire.Number) (n uint64, err error) {
	for len(m) > 0 {
		num, kind, size := protowire.ConsumeTag(m)
		if size < 0 {
			return 0, fmt.Errorf("decode the response of containerd: %w", protowire.ParseError(size))
		}
		m = m[size:]
		if num == field && kind == protowire.VarintType {
			if n, size = protowire.ConsumeVarint(m); size < 0 {
				return 0, fmt.Errorf("decode the response of containerd: %w", protowire.ParseError(size))
			}
		} else if size = protowire.ConsumeFieldValue(num, kind, m); size < 0 {
			return 0, fmt.Errorf("decode the response of containerd: %w", protowire.ParseError(size))
		}
		m = m[size:]
	}
	return n, nil
}
