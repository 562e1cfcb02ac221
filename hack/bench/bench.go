package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// A setup is a separate buildkitd and the images of the machine.
type setup struct {
	*results
	dir      string // absolute, for all files
	registry string
	builder  string // of docker buildx
	slipway  string // the program
	daemon   *exec.Cmd
	images   images
	machines map[string]peerMachine // by the compression of layers
	cpus     string                 // of the programs that are measured, as taskset takes them; "" for all
}

func newBench(ctx context.Context, r *results) (*setup, error) {
	dir, err := filepath.Abs(".stack/bench")
	if err != nil {
		return nil, err
	}
	b := &setup{results: r, machines: map[string]peerMachine{}, dir: dir, slipway: filepath.Join(dir, "slipway"), builder: os.Getenv("BUILDX_BUILDER") + "-bench"}
	b.registry, _, _ = strings.Cut(os.Getenv("REGISTRY"), "/")
	if b.registry == "" {
		return nil, fmt.Errorf("REGISTRY is not set: run make bench")
	}
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(dir, "floor/files"), 0o755); err != nil {
		return nil, err
	}
	const dockerfile = "FROM scratch\nCOPY files /\n"
	if err := os.WriteFile(filepath.Join(dir, "floor/Dockerfile"), []byte(dockerfile), 0o644); err != nil {
		return nil, err
	}
	if err := run(ctx, "go", "build", "-o", b.slipway, "./cmd/slipway"); err != nil {
		return nil, err
	}
	if r.wants(names()...) {
		if b.images, err = makeImages(ctx, b.registry); err != nil {
			return nil, err
		}
	}
	r.spent = b.processorTime
	if err := b.fresh(ctx); err != nil {
		return nil, err
	}
	_ = run(ctx, "docker", "buildx", "rm", b.builder)
	return b, run(ctx, "docker", "buildx", "create", "--name", b.builder, "--driver", "remote", b.address())
}

func (b *setup) address() string { return "unix://" + filepath.Join(b.dir, "buildkitd.sock") }

// close stops the daemon and removes its data.
func (b *setup) close() {
	b.stop()
	_ = run(context.Background(), "docker", "buildx", "rm", b.builder)
	_ = os.RemoveAll(b.dir)
}

func (b *setup) stop() {
	if b.daemon != nil {
		_ = b.daemon.Process.Signal(os.Interrupt)
		_ = b.daemon.Wait()
	}
}

// fresh starts a buildkitd with the stack's configuration and an empty cache.
func (b *setup) fresh(ctx context.Context) error {
	b.stop()
	if err := os.RemoveAll(filepath.Join(b.dir, "buildkitd")); err != nil {
		return err
	}
	stack := filepath.Dir(b.dir)
	config, err := os.ReadFile(filepath.Join(stack, "buildkitd.config"))
	if err != nil {
		return fmt.Errorf("%w: start the stack with hack/stack up", err)
	}
	config = bytes.ReplaceAll(config, []byte(stack+"/buildkitd"), []byte(b.dir+"/buildkitd"))
	name := filepath.Join(b.dir, "buildkitd.config")
	if err := os.WriteFile(name, config, 0o644); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(b.dir, "buildkitd.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	args := append(b.taskset(), filepath.Join(stack, "bin/buildkitd"), "--config", name)
	b.daemon = exec.CommandContext(ctx, args[0], args[1:]...)
	b.daemon.Cancel = func() error { return b.daemon.Process.Signal(os.Interrupt) } // lets it unmount its file systems
	b.daemon.Stdout, b.daemon.Stderr = log, log
	if err := b.daemon.Start(); err != nil {
		return err
	}
	for range 200 {
		if err = run(ctx, filepath.Join(stack, "bin/buildctl"), "--addr", b.address(), "debug", "workers"); err == nil {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("buildkitd does not answer: %w", err)
}

// A client is a program that builds.
type client struct {
	name   string
	build  func(b *setup, format, compression string) []string
	export func(b *setup) []string // the floor of exports
}

var clients = []client{
	{
		name: "buildx",
		build: func(b *setup, format, compression string) []string {
			return []string{"docker", "buildx", "build", "--builder", b.builder, "--progress=quiet", "-f", b.file("machine.yml"), "--target", format,
				"--build-arg", "COMPRESSION=" + compression, "-o", b.file("out"), b.file("context")}
		},
		export: func(b *setup) []string {
			return []string{"docker", "buildx", "build", "--builder", b.builder, "--progress=quiet", "-o", b.file("floor/out"), b.file("floor")}
		},
	},
	{
		name: "slipway",
		build: func(b *setup, format, compression string) []string {
			return []string{b.slipway, "build", "--builder", b.address(), "--progress=quiet", "--format", format,
				"--build-arg", "COMPRESSION=" + compression, "-o", b.file("out"), b.file("machine.yml"), b.file("context")}
		},
		export: func(b *setup) []string {
			return []string{filepath.Join(filepath.Dir(b.dir), "bin/buildctl"), "--addr", b.address(), "build", "--progress=quiet",
				"--frontend", "dockerfile.v0", "--local", "context=" + b.file("floor"), "--local", "dockerfile=" + b.file("floor"),
				"--output", "type=local,dest=" + b.file("floor/out")}
		},
	},
}

var (
	formats      = []string{"kernel+initrd", "raw"}
	compressions = []string{"zstd", "gzip"}
)

// names returns the names of the cases of the machine of ten packages.
func names() []string {
	var all []string
	for _, compression := range compressions {
		for _, what := range []string{"pull", "pack", "service"} {
			all = append(all, "plain/"+compression+"/"+what)
		}
		for _, format := range formats {
			for _, c := range clients {
				for _, what := range []string{"cold", "unchanged", "yaml", "service", "kernel", "export"} {
					all = append(all, strings.Join([]string{c.name, format, compression, what}, "/"))
				}
			}
		}
	}
	return all
}

// round measures each case of the machine of ten packages once, and compares the
// peers once.
func (b *setup) round(ctx context.Context) error {
	for _, layers := range compressions {
		for _, cores := range []string{"2-cores", "1-core"} {
			if err := b.comparePeers(ctx, layers, cores); err != nil {
				return err
			}
		}
	}
	if !b.wants(names()...) {
		return nil
	}
	for _, compression := range compressions {
		if err := b.plain(ctx, compression); err != nil {
			return err
		}
		for _, format := range formats {
			for _, c := range clients {
				if err := b.machine(ctx, c, format, compression); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// machine measures the builds of one client, format and compression, starting
// with an empty cache.
func (b *setup) machine(ctx context.Context, c client, format, compression string) error {
	name := func(what string) string { return strings.Join([]string{c.name, format, compression, what}, "/") }
	if !b.wants(name("cold"), name("unchanged"), name("yaml"), name("service"), name("kernel"), name("export")) {
		return nil
	}
	build := func() error { return run(ctx, c.build(b, format, compression)...) }
	change := func(what string, change func() error) error {
		if !b.wants(name(what)) {
			return nil
		}
		if err := change(); err != nil {
			return err
		}
		return b.time(name(what), build)
	}

	if err := b.images.tag(ctx, 0, 0); err != nil {
		return err
	}
	if err := b.yaml(b.images.yaml); err != nil {
		return err
	}
	if err := b.fresh(ctx); err != nil {
		return err
	}
	if !b.wants(name("cold")) {
		if err := build(); err != nil {
			return err
		}
	}
	if err := b.time(name("cold"), build); err != nil {
		return err
	}
	if b.wants(name("export")) {
		if err := b.exported(ctx, c); err != nil {
			return err
		}
	}
	if err := b.time(name("export"), func() error { return run(ctx, c.export(b)...) }); err != nil {
		return err
	}
	if err := b.time(name("unchanged"), build); err != nil {
		return err
	}
	if err := change("yaml", func() error {
		return b.yaml(strings.Replace(b.images.yaml, "/var/config/ssh/authorized_keys:", "/var/config/ssh/keys:", 1))
	}); err != nil {
		return err
	}
	if err := change("service", func() error { return b.images.tag(ctx, 1, 0) }); err != nil {
		return err
	}
	return change("kernel", func() error { return b.images.tag(ctx, 1, 1) })
}

// exported caches the files that the floor of exports sends: those of the
// machine.
func (b *setup) exported(ctx context.Context, c client) error {
	if err := os.RemoveAll(b.file("floor/files")); err != nil {
		return err
	}
	if err := os.CopyFS(b.file("floor/files"), os.DirFS(b.file("out"))); err != nil {
		return err
	}
	return run(ctx, c.export(b)...)
}

func (b *setup) file(name string) string { return filepath.Join(b.dir, name) }

// yaml writes the machine's YAML and removes its output.
func (b *setup) yaml(text string) error {
	if err := os.RemoveAll(b.file("out")); err != nil {
		return err
	}
	if err := os.MkdirAll(b.file("context"), 0o755); err != nil {
		return err
	}
	return b.writeYAML(text)
}

// sizes are the numbers of components of the measured machines.
var sizes = []int{10, 50, 200, 500}

// scale measures machines of many small components.
func (b *setup) scale(ctx context.Context, count int) error {
	for _, size := range sizes {
		name := func(c client, what string) string { return fmt.Sprintf("%s/%d components/%s", c.name, size, what) }
		var wanted bool
		for _, c := range clients {
			wanted = wanted || b.wants(name(c, "cold"), name(c, "unchanged"), name(c, "service"), name(c, "unchanged-locked"))
		}
		if !wanted {
			continue
		}
		if err := b.images.tagSmall(ctx, b.registry, size, 0); err != nil {
			return err
		}
		if err := b.yaml(smallYAML(size)); err != nil {
			return err
		}
		if err := b.fresh(ctx); err != nil {
			return err
		}
		version := 0
		for i, c := range clients {
			build := func() error { return run(ctx, c.build(b, "kernel+initrd", "zstd")...) }
			what := "cold" // measured for the first client only
			if i > 0 || !b.wants(name(c, what)) {
				if err := build(); err != nil {
					return err
				}
			} else if err := b.time(name(c, what), build); err != nil {
				return err
			}
			for range count {
				if err := b.time(name(c, "unchanged"), build); err != nil {
					return err
				}
				version++
				if err := b.images.tagSmall(ctx, b.registry, 1, version); err != nil {
					return err
				}
				if err := b.time(name(c, "service"), build); err != nil {
					return err
				}
			}
			if locked := name(c, "unchanged-locked"); c.name == "slipway" && b.wants(locked) {
				for range count {
					if err := b.unchangedLocked(ctx, locked, build); err != nil {
						return err
					}
				}
			}
		}
	}
	return nil
}

// run runs a program. The error includes its output.
func run(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}
