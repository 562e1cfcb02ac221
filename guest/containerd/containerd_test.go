package containerd_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	containers "github.com/containerd/containerd/api/services/containers/v1"
	sandboxes "github.com/containerd/containerd/api/services/sandbox/v1"
	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/slipway-build/slipway/guest/containerd"
)

// A daemon answers as containerd does, with the server of gRPC and the messages
// of containerd.
type daemon struct {
	t    *testing.T
	spec []byte
}

func (d *daemon) check(ctx context.Context, what string, ok bool) {
	d.t.Helper()
	if fields, _ := metadata.FromIncomingContext(ctx); len(fields["containerd-namespace"]) != 1 || fields["containerd-namespace"][0] != "space" {
		d.t.Errorf("%s: metadata %v", what, fields)
	}
	if !ok {
		d.t.Errorf("%s: the request is not as it should be", what)
	}
}

// Both services have methods named Create and Delete.
type containerDaemon struct {
	containers.UnimplementedContainersServer
	*daemon
}

func (d *containerDaemon) Create(ctx context.Context, r *containers.CreateContainerRequest) (*containers.CreateContainerResponse, error) {
	c := r.Container
	if c.ID == "twice" {
		return nil, status.Error(codes.AlreadyExists, `container "twice": already exists, 100 % sure`)
	}
	d.check(ctx, "create", c.ID == "web" && c.Sandbox == "leader" && c.Runtime.Name == "io.containerd.runc.v2" && bytes.Equal(c.Spec.Value, d.spec) &&
		c.Spec.TypeUrl == "types.containerd.io/opencontainers/runtime-spec/1/Spec")
	return &containers.CreateContainerResponse{Container: c}, nil
}

func (d *containerDaemon) Delete(ctx context.Context, r *containers.DeleteContainerRequest) (*emptypb.Empty, error) {
	d.check(ctx, "delete", r.ID == "web")
	return &emptypb.Empty{}, nil
}

type sandboxDaemon struct {
	sandboxes.UnimplementedStoreServer
	*daemon
}

func (d *sandboxDaemon) Create(ctx context.Context, r *sandboxes.StoreCreateRequest) (*sandboxes.StoreCreateResponse, error) {
	d.check(ctx, "create sandbox", r.Sandbox.SandboxID == "leader" && r.Sandbox.Runtime.Name == "io.containerd.runc.v2")
	return &sandboxes.StoreCreateResponse{Sandbox: r.Sandbox}, nil
}

type taskDaemon struct {
	tasks.UnimplementedTasksServer
	*daemon
}

func (d *taskDaemon) Create(ctx context.Context, r *tasks.CreateTaskRequest) (*tasks.CreateTaskResponse, error) {
	d.check(ctx, "create task", r.ContainerID == "web" && r.Stdout == "/out" && r.Stderr == "/err" && !r.Terminal)
	return &tasks.CreateTaskResponse{ContainerID: "web", Pid: 4711}, nil
}

func (d *taskDaemon) Start(ctx context.Context, r *tasks.StartRequest) (*tasks.StartResponse, error) {
	d.check(ctx, "start", r.ContainerID == "web" && r.ExecID == "")
	return &tasks.StartResponse{Pid: 4711}, nil
}

func (d *taskDaemon) Kill(ctx context.Context, r *tasks.KillRequest) (*emptypb.Empty, error) {
	d.check(ctx, "kill", r.ContainerID == "web" && r.Signal == 15 && r.All)
	return nil, status.Error(codes.NotFound, "process already finished")
}

func (d *taskDaemon) Wait(ctx context.Context, r *tasks.WaitRequest) (*tasks.WaitResponse, error) {
	if r.ContainerID == "endless" {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return &tasks.WaitResponse{ExitStatus: 137}, nil
}

func (d *taskDaemon) Delete(ctx context.Context, r *tasks.DeleteTaskRequest) (*tasks.DeleteResponse, error) {
	d.check(ctx, "delete task", r.ContainerID == "web")
	return &tasks.DeleteResponse{ID: "web", ExitStatus: 137}, nil
}

func serve(t *testing.T) (*containerd.Client, *daemon, *grpc.Server) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{t: t, spec: []byte(strings.Repeat(`{"ociVersion": "1.2.1"}`, 20_000))} // larger than a window of 64 KiB
	server := grpc.NewServer()
	containers.RegisterContainersServer(server, &containerDaemon{daemon: d})
	sandboxes.RegisterStoreServer(server, &sandboxDaemon{daemon: d})
	tasks.RegisterTasksServer(server, &taskDaemon{daemon: d})
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	return &containerd.Client{Socket: socket}, d, server
}

func TestClient(t *testing.T) {
	c, d, _ := serve(t)
	ctx := t.Context()
	if err := c.CreateContainer(ctx, "space", "web", d.spec, "leader"); err != nil {
		t.Errorf("create: %v", err)
	}
	err := c.CreateContainer(ctx, "space", "twice", d.spec, "")
	if !errors.Is(err, containerd.ErrAlreadyExists) || errors.Is(err, containerd.ErrNotFound) || err.Error() != `container "twice": already exists, 100 % sure` {
		t.Errorf("create a container that exists: %v", err)
	}
	if err := c.CreateSandbox(ctx, "space", "leader"); err != nil {
		t.Errorf("create sandbox: %v", err)
	}
	if pid, err := c.CreateTask(ctx, "space", "web", "/out", "/err"); pid != 4711 || err != nil {
		t.Errorf("create task: %d, %v", pid, err)
	}
	if err := c.StartTask(ctx, "space", "web"); err != nil {
		t.Errorf("start: %v", err)
	}
	if err := c.KillTask(ctx, "space", "web", syscall.SIGTERM, true); !errors.Is(err, containerd.ErrNotFound) {
		t.Errorf("kill what has ended: %v", err)
	}
	if status, err := c.WaitTask(ctx, "space", "web"); status != 137 || err != nil {
		t.Errorf("wait: %d, %v", status, err)
	}
	if err := c.DeleteTask(ctx, "space", "web"); err != nil {
		t.Errorf("delete task: %v", err)
	}
	if err := c.DeleteContainer(ctx, "space", "web"); err != nil {
		t.Errorf("delete: %v", err)
	}
}

// The error of a daemon that ends during a call differs from that of a rejected
// call.
func TestUnavailable(t *testing.T) {
	c, _, server := serve(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.WaitTask(ctx, "space", "endless"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the context ends: %v", err)
	}
	time.AfterFunc(50*time.Millisecond, server.Stop)
	if _, err := c.WaitTask(t.Context(), "space", "endless"); !errors.Is(err, containerd.ErrUnavailable) {
		t.Errorf("the daemon stops: %v", err)
	}
	if _, err := c.WaitTask(t.Context(), "space", "web"); !errors.Is(err, containerd.ErrUnavailable) {
		t.Errorf("no daemon: %v", err)
	}
}
