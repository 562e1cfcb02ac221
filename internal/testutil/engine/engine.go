// Package engine runs Docker Engines for tests of buildx's docker driver. They
// are empty at the start and have no network for containers.
package engine

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/slipway-build/slipway/internal/testutil/process"
	"github.com/slipway-build/slipway/internal/testutil/stack"
)

// A Store is one of the Engine's image stores.
type Store string

// Image stores.
const (
	Classic    Store = "classic"    // the overlay2 graph driver, the default until Engine 29
	Containerd Store = "containerd" // containerd's content store and overlayfs snapshots
)

// A Config configures an Engine. The zero value is Engine 28 with the classic
// image store.
type Config struct {
	Version  string         // argument of hack/engine; default: 28
	Store    Store          // default: Classic
	Settings map[string]any // override those of daemon.json
}

// An Engine is a running dockerd.
type Engine struct {
	Socket string // path of the API's unix socket

	dir     string
	process *process.Process
}

// Start starts an empty dockerd. It pulls docker.io's images from the stack's
// registry. Stop stops it, and it exits with this process at the latest.
func Start(ctx context.Context, c Config) (*Engine, error) {
	root, err := stack.Root()
	if err != nil {
		return nil, err
	}
	c.Version = cmp.Or(c.Version, "28")
	dockerd := filepath.Join(root, ".stack", "engine", c.Version, "dockerd")
	if _, err := os.Stat(dockerd); err != nil {
		return nil, fmt.Errorf("start dockerd: %w: run hack/engine %s", err, c.Version)
	}
	dir, err := os.MkdirTemp("", "engine-") // short, because the length of a socket's path is limited
	if err != nil {
		return nil, err
	}
	// With userns-remap, the users of containers must reach their files.
	if err := os.Chmod(dir, 0o711); err != nil {
		return nil, err
	}
	e := &Engine{Socket: filepath.Join(dir, "sock"), dir: dir}
	if err := e.start(ctx, filepath.Join(root, ".stack", "bin", "buildx"), dockerd, c); err != nil {
		return nil, errors.Join(fmt.Errorf("start dockerd: %w", err), e.Stop())
	}
	return e, nil
}

func (e *Engine) start(ctx context.Context, buildx, dockerd string, c Config) error {
	config := map[string]any{
		"bridge": "none", "iptables": false, "ip6tables": false, "userland-proxy": false,
		"data-root": filepath.Join(e.dir, "data"), "exec-root": filepath.Join(e.dir, "exec"), "pidfile": filepath.Join(e.dir, "pid"),
		"hosts":            []string{"unix://" + e.Socket},
		"registry-mirrors": []string{"http://" + stack.Registry},
		"features":         map[string]bool{"containerd-snapshotter": c.Store == Containerd},
	}
	for key, value := range c.Settings {
		config[key] = value
	}
	text, err := json.Marshal(config)
	if err != nil {
		return err
	}
	file := filepath.Join(e.dir, "daemon.json")
	if err := os.WriteFile(file, text, 0o644); err != nil {
		return err
	}
	plugins := filepath.Join(e.dir, "config", "cli-plugins")
	if err := os.MkdirAll(plugins, 0o755); err != nil {
		return err
	}
	if err := os.Symlink(buildx, filepath.Join(plugins, "docker-buildx")); err != nil {
		return err
	}
	if e.process, err = process.Start(exec.Command(dockerd, "--config-file", file), filepath.Join(e.dir, "log")); err != nil {
		return err
	}
	return e.process.Answers(ctx, "unix", e.Socket)
}

// Command returns a command that runs in dir and whose docker, buildx and
// Slipway programs use this Engine through its docker driver.
func (e *Engine) Command(ctx context.Context, dir, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "DOCKER_HOST=unix://"+e.Socket, "DOCKER_CONFIG="+filepath.Join(e.dir, "config"), "BUILDX_BUILDER=", "BUILDKIT_HOST=")
	return cmd
}

// Log returns the end of the daemon's log.
func (e *Engine) Log() string { return e.process.Tail() }

// Stop stops the daemon and removes its state.
func (e *Engine) Stop() error {
	if e.process != nil {
		e.process.Stop()
	}
	return errors.Join(process.Unmount(e.dir), os.RemoveAll(e.dir))
}
