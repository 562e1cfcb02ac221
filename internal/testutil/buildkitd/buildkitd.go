// Package buildkitd runs BuildKit daemons and registries besides those of the
// local stack. They are empty at the start, for tests of what a new builder
// does.
package buildkitd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/slipway-build/slipway/internal/testutil/process"
	"github.com/slipway-build/slipway/internal/testutil/stack"
)

// A Config configures a daemon. The zero value is a daemon like the stack's.
type Config struct {
	Binary      string              // default: the stack's, .stack/bin/buildkitd
	Root        string              // directory of the state; default: a directory in Daemon.Dir
	Command     []string            // command that runs the binary, for example rootlesskit with its options
	Snapshotter string              // default: overlayfs
	Settings    string              // text appended to buildkitd.toml
	Mirror      string              // host:port of the mirror of docker.io; default: the stack's registry
	Registries  []string            // host:port of more registries without TLS
	Env         []string            // KEY=VALUE, in addition to the environment of this process
	User        *syscall.Credential // user of a rootless daemon, whose home directory is Daemon.Dir
}

// A Daemon is a running buildkitd.
type Daemon struct {
	Dir     string // directory of all files of the daemon, which Stop removes
	Root    string // directory of the state
	Address string // URL of the socket, unix://…

	command *exec.Cmd // a template: a Cmd starts only once
	process *process.Process
}

// name is the name of the builder in the buildx configuration of a daemon.
const name = "daemon"

// Start starts a daemon with an empty state and waits until it answers. Stop
// stops it, and it exits with this process at the latest.
func Start(ctx context.Context, c Config) (*Daemon, error) {
	stack, err := stack.Root()
	if err != nil {
		return nil, err
	}
	bin := filepath.Join(stack, ".stack", "bin")
	c.Binary = cmp.Or(c.Binary, filepath.Join(bin, "buildkitd"))
	if _, err := os.Stat(c.Binary); err != nil {
		return nil, fmt.Errorf("start buildkitd: %w: run hack/stack up", err)
	}
	dir, err := os.MkdirTemp("", "buildkitd-") // short, because the length of a socket's path is limited
	if err != nil {
		return nil, err
	}
	d := &Daemon{Dir: dir, Root: cmp.Or(c.Root, filepath.Join(dir, "root")), Address: "unix://" + filepath.Join(dir, "sock")}
	if err := d.start(ctx, c); err != nil {
		return nil, errors.Join(err, d.Stop())
	}
	return d, nil
}

func (d *Daemon) start(ctx context.Context, c Config) error {
	config := filepath.Join(d.Dir, "buildkitd.toml")
	if err := os.WriteFile(config, []byte(d.config(c)), 0o644); err != nil {
		return err
	}
	if err := os.MkdirAll(d.Root, 0o711); err != nil {
		return err
	}
	if c.User != nil {
		// The user may not have access to the checkout.
		program := filepath.Join(d.Dir, filepath.Base(c.Binary))
		if out, err := exec.Command("install", c.Binary, program).CombinedOutput(); err != nil {
			return fmt.Errorf("copy %s: %w\n%s", c.Binary, err, out)
		}
		c.Binary = program
		for _, name := range []string{d.Dir, d.Root} {
			if err := os.Chown(name, int(c.User.Uid), int(c.User.Gid)); err != nil {
				return err
			}
		}
	}
	words := slices.Concat(c.Command, []string{c.Binary, "--config", config})
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Env = append(os.Environ(), c.Env...)
	if c.User != nil {
		cmd.Env = append(cmd.Env, "HOME="+d.Dir, "XDG_RUNTIME_DIR="+d.Dir, "USER=rootless")
	}
	cmd.Dir = d.Dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.User}
	d.command = cmd
	if err := d.Restart(ctx); err != nil {
		return err
	}
	return d.register(ctx)
}

// Restart starts the daemon after Kill, with the same state.
func (d *Daemon) Restart(ctx context.Context) error {
	attributes := *d.command.SysProcAttr
	cmd := &exec.Cmd{Path: d.command.Path, Args: d.command.Args, Env: d.command.Env, Dir: d.command.Dir, Err: d.command.Err, SysProcAttr: &attributes}
	p, err := process.Start(cmd, filepath.Join(d.Dir, "log"))
	if err != nil {
		return fmt.Errorf("start buildkitd: %w", err)
	}
	d.process = p
	if err := p.Answers(ctx, "unix", filepath.Join(d.Dir, "sock")); err != nil {
		return fmt.Errorf("start buildkitd: %w", err)
	}
	return nil
}

// Kill sends the daemon SIGKILL, as the kernel's OOM killer does, and waits
// until it has exited. It keeps the state.
func (d *Daemon) Kill() { d.process.Kill() }

func (d *Daemon) config(c Config) string {
	port := cmp.Or(os.Getenv("STACK_PORT"), "5000")
	mirror := cmp.Or(c.Mirror, "localhost:"+port)
	var b strings.Builder
	fmt.Fprintf(&b, "root = %q\n[grpc]\n  address = [%q]\n", d.Root, d.Address)
	if c.User != nil {
		fmt.Fprintf(&b, "  uid = %d\n  gid = %d\n", 0, 0) // in the user namespace
	}
	fmt.Fprintf(&b, "[worker.oci]\n  snapshotter = %q\n  gc = false\n", cmp.Or(c.Snapshotter, "overlayfs"))
	fmt.Fprintf(&b, "[worker.containerd]\n  enabled = false\n[registry.\"docker.io\"]\n  mirrors = [%q]\n", mirror)
	registries := append([]string{mirror, "localhost:" + port}, c.Registries...)
	slices.Sort(registries)
	for _, r := range slices.Compact(registries) {
		fmt.Fprintf(&b, "[registry.%q]\n  http = true\n  insecure = true\n", r)
	}
	return b.String() + c.Settings
}

// register adds the daemon to a buildx configuration in Dir.
func (d *Daemon) register(ctx context.Context) error {
	out, err := d.docker(ctx, "create", "--name", name, "--driver", "remote", "--bootstrap", d.Address).CombinedOutput()
	if err != nil {
		return fmt.Errorf("docker buildx create: %w\n%s\n%s", err, out, d.Log())
	}
	return nil
}

func (d *Daemon) docker(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "docker", append([]string{"buildx"}, args...)...)
	cmd.Env = append(os.Environ(), "BUILDX_CONFIG="+filepath.Join(d.Dir, "buildx"), "BUILDX_BUILDER="+name)
	return cmd
}

// Build returns the command docker buildx build on this daemon.
func (d *Daemon) Build(ctx context.Context, args ...string) *exec.Cmd {
	return d.docker(ctx, append([]string{"build"}, args...)...)
}

// Bake returns the command docker buildx bake on this daemon.
func (d *Daemon) Bake(ctx context.Context, args ...string) *exec.Cmd {
	return d.docker(ctx, append([]string{"bake"}, args...)...)
}

// Blobs returns the sizes in bytes of all blobs that the daemon has pulled or
// created for an export, by digest in hexadecimal.
func (d *Daemon) Blobs() (map[string]int64, error) {
	found, err := filepath.Glob(filepath.Join(d.Root, "runc-*", "content", "blobs", "sha256", "*"))
	if err != nil {
		return nil, err
	}
	out := make(map[string]int64, len(found))
	for _, name := range found {
		info, err := os.Stat(name)
		if err != nil {
			return nil, err
		}
		out[filepath.Base(name)] = info.Size()
	}
	return out, nil
}

// Log returns the end of the daemon's log.
func (d *Daemon) Log() string { return d.process.Tail() }

// Stop stops the daemon and removes Dir.
func (d *Daemon) Stop() error {
	if d.process != nil {
		d.process.Stop()
	}
	return errors.Join(process.Unmount(d.Dir), os.RemoveAll(d.Dir))
}
