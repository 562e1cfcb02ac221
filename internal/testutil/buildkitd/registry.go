package buildkitd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/slipway-build/slipway/internal/testutil/process"
	"github.com/slipway-build/slipway/internal/testutil/stack"
)

// A Registry is a running registry, empty at the start.
type Registry struct {
	Address string // host:port

	dir     string
	process *process.Process
}

// StartRegistry starts a registry on a free port and waits until it answers.
// Stop stops it, and it exits with this process at the latest.
func StartRegistry(ctx context.Context) (*Registry, error) {
	stack, err := stack.Root()
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	port := listener.Addr().(*net.TCPAddr).Port
	listener.Close()
	dir, err := os.MkdirTemp("", "registry-")
	if err != nil {
		return nil, err
	}
	r := &Registry{Address: fmt.Sprintf("localhost:%d", port), dir: dir}
	config := fmt.Sprintf("version: 0.1\nlog: {level: warn, accesslog: {disabled: true}}\n"+
		"storage: {filesystem: {rootdirectory: %q}}\nhttp: {addr: 127.0.0.1:%d}\n", filepath.Join(dir, "root"), port)
	file := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		return nil, errors.Join(err, r.Stop())
	}
	cmd := exec.Command(filepath.Join(stack, ".stack", "bin", "registry"), "serve", file)
	if r.process, err = process.Start(cmd, filepath.Join(dir, "log")); err != nil {
		r.process = nil
		return nil, errors.Join(fmt.Errorf("start registry: %w: run hack/stack up", err), r.Stop())
	}
	if err := r.process.Answers(ctx, "tcp", r.Address); err != nil {
		return nil, errors.Join(fmt.Errorf("start registry: %w", err), r.Stop())
	}
	return r, nil
}

// Stop stops the registry and removes its content.
func (r *Registry) Stop() error {
	if r.process != nil {
		r.process.Stop()
	}
	return os.RemoveAll(r.dir)
}
