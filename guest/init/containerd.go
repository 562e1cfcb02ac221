package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	containers "github.com/containerd/containerd/api/services/containers/v1"
	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/slipway-build/slipway/guest/bundle"
)

const (
	containerdPath   = "/usr/bin/containerd"
	containerdSocket = "/run/containerd/containerd.sock"
	containerdLog    = "/var/log/containerd.log"
	containerdCgroup = bundle.CgroupRoot + "/containerd"

	runcShim         = "io.containerd.runc.v2"
	specType         = "types.containerd.io/opencontainers/runtime-spec/1/Spec" // containerd's name for config.json
	defaultNamespace = "services.linuxkit"
)

// containerd is the daemon, and a client of its API.
type containerd struct {
	process    *process
	containers containers.ContainersClient
	tasks      tasks.TasksClient
}

// startContainerd starts the daemon and waits until it answers.
func (m *machine) startContainerd(ctx context.Context) (*containerd, error) {
	log, err := openLog(containerdLog)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	// In a cgroup of its own it can be measured and limited; containers are beside it, not in it.
	if err := os.MkdirAll(containerdCgroup, 0o755); err != nil {
		return nil, err
	}
	cgroup, err := os.Open(containerdCgroup)
	if err != nil {
		return nil, err
	}
	defer cgroup.Close()
	process, err := m.family.start(command{path: containerdPath, stdout: log, stderr: log, cgroup: cgroup})
	if err != nil {
		return nil, err
	}
	for {
		if conn, err := net.Dial("unix", containerdSocket); err == nil {
			conn.Close()
			break
		}
		select {
		case <-process.done:
			return nil, fmt.Errorf("%s before it was ready", describe(process.status))
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	conn, err := grpc.NewClient("unix://"+containerdSocket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	return &containerd{process, containers.NewContainersClient(conn), tasks.NewTasksClient(conn)}, nil
}

// start starts the container of a bundle, which writes to the two files.
func (c *containerd) start(ctx context.Context, b *bundle.Bundle, logs *logs) (*service, error) {
	if err := b.Prepare(); err != nil {
		return nil, err
	}
	spec, err := b.Spec()
	if err != nil {
		return nil, err
	}
	namespace := b.Runtime.Namespace
	if namespace == "" {
		namespace = defaultNamespace
	}
	ctx = metadata.AppendToOutgoingContext(ctx, "containerd-namespace", namespace)
	create := &containers.CreateContainerRequest{Container: &containers.Container{
		ID:      b.Name,
		Runtime: &containers.Container_Runtime{Name: runcShim},
		Spec:    &anypb.Any{TypeUrl: specType, Value: spec},
	}}
	_, err = c.containers.Create(ctx, create)
	if status.Code(err) == codes.AlreadyExists { // /var/lib/containerd is on a disk and remembers the last start of the machine
		if _, err := c.containers.Delete(ctx, &containers.DeleteContainerRequest{ID: b.Name}); err != nil {
			return nil, fmt.Errorf("delete the container of the last start: %w", err)
		}
		_, err = c.containers.Create(ctx, create)
	}
	if err != nil {
		return nil, fmt.Errorf("create the container: %w", err)
	}
	// The shim takes an existing file for standard output or error as well as a FIFO, and appends to it.
	task, err := c.tasks.Create(ctx, &tasks.CreateTaskRequest{
		ContainerID: b.Name, Stdout: logs.stdout.Name(), Stderr: logs.stderr.Name(),
	})
	if err != nil {
		return nil, fmt.Errorf("create the task: %w", err)
	}
	if err := b.Attach(int(task.Pid)); err != nil {
		return nil, err
	}
	if _, err := c.tasks.Start(ctx, &tasks.StartRequest{ContainerID: b.Name}); err != nil {
		return nil, fmt.Errorf("start the task: %w", err)
	}
	s := &service{name: b.Name, pid: int(task.Pid), done: make(chan struct{})}
	s.signal = func(signal syscall.Signal) error {
		_, err := c.tasks.Kill(ctx, &tasks.KillRequest{
			ContainerID: b.Name, Signal: uint32(signal), All: signal == syscall.SIGKILL,
		})
		if status.Code(err) == codes.NotFound {
			return nil // it has just ended
		}
		return err
	}
	go func() {
		defer close(s.done)
		end, err := c.tasks.Wait(ctx, &tasks.WaitRequest{ContainerID: b.Name})
		if err != nil {
			s.end = fmt.Sprintf("no longer watched: %v", err)
			return
		}
		s.end = fmt.Sprintf("ended, exit %d", end.ExitStatus)
		// The shim ends with its task. If that fails, the stop of the machine ends it.
		c.tasks.Delete(ctx, &tasks.DeleteTaskRequest{ContainerID: b.Name})
	}()
	return s, nil
}

// stop ends the daemon. The shims of containers do not end with it.
func (c *containerd) stop() error {
	select {
	case <-c.process.done:
		return nil
	default:
	}
	if err := syscall.Kill(c.process.pid, syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-c.process.done:
		return nil
	case <-time.After(5 * time.Second):
		return errors.New("does not stop within 5 s")
	}
}

// hasContainerd tells whether the machine was built with containerd.
func hasContainerd() bool {
	info, err := os.Stat(containerdPath)
	return err == nil && info.Mode().IsRegular()
}
