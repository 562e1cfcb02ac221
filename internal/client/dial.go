package client

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/connhelper/commandconn"
	"github.com/moby/buildkit/client"
	_ "github.com/moby/buildkit/client/connhelper/dockercontainer" // docker-container://
	_ "github.com/moby/buildkit/client/connhelper/kubepod"         // kube-pod://
	_ "github.com/moby/buildkit/client/connhelper/nerdctlcontainer"
	_ "github.com/moby/buildkit/client/connhelper/podmancontainer"
	_ "github.com/moby/buildkit/client/connhelper/ssh"
)

// A Builder is a connection to a BuildKit daemon.
type Builder struct {
	*client.Client
	driver func() (string, error) // of the docker buildx builder; "" if the daemon has an address
}

// Dial connects to a BuildKit daemon. The builder is an address, for example
// unix:///run/buildkit/buildkitd.sock or tcp://HOST:PORT, or the name of a
// docker buildx builder. If it is empty, Dial uses the address in BUILDKIT_HOST,
// or else the current builder of docker buildx.
func Dial(ctx context.Context, builder string) (*Builder, error) {
	builder = cmp.Or(builder, os.Getenv("BUILDKIT_HOST"), os.Getenv("BUILDX_BUILDER"))
	var options []client.ClientOpt
	address := builder
	if !strings.Contains(builder, "://") {
		address = remoteAddress(builder)
	}
	b := &Builder{driver: func() (string, error) { return "", nil }}
	if address == "" {
		// Only docker buildx can reach a builder of any driver. It also starts one
		// that does not run.
		options = append(options, client.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return commandconn.New(ctx, "docker", buildxArgs(builder, "dial-stdio")...)
		}))
		b.driver = sync.OnceValues(func() (string, error) { return buildxDriver(ctx, builder) })
		go b.driver()
	}
	var err error
	if b.Client, err = client.New(ctx, address, options...); err != nil {
		return nil, err
	}
	if _, err := b.Info(ctx); err != nil {
		b.Close()
		text := err.Error()
		if _, unknown := b.driver(); unknown != nil {
			text = unknown.Error()
		} else if _, said, ok := strings.Cut(text, "stderr="); ok { // of docker buildx, after words about SSH
			text = strings.TrimSuffix(strings.TrimSpace(said), `"`)
		}
		return nil, fmt.Errorf("%s does not answer: %s; pass --builder with the name of a docker buildx builder, or set BUILDKIT_HOST to the address of buildkitd, for example unix:///run/buildkit/buildkitd.sock",
			cmp.Or(builder, "the current builder of docker buildx"), text)
	}
	return b, nil
}

// isEngine reports whether the daemon is part of a Docker Engine, whose images
// it builds from and exports to.
func (b *Builder) isEngine() bool {
	driver, _ := b.driver()
	return driver == "docker"
}

func buildxArgs(builder, command string) []string {
	args := []string{"buildx", command}
	if builder != "" {
		args = append(args, "--builder", builder)
	}
	return args
}

// buildxDriver returns the driver of a docker buildx builder.
func buildxDriver(ctx context.Context, builder string) (string, error) {
	out, err := exec.CommandContext(ctx, "docker", buildxArgs(builder, "inspect")...).Output()
	var failed *exec.ExitError
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return "", errors.New("docker is not installed")
	case errors.As(err, &failed):
		return "", explainBuildx(string(failed.Stderr))
	case err != nil:
		return "", err
	}
	for line := range strings.Lines(string(out)) {
		if driver, ok := strings.CutPrefix(line, "Driver:"); ok {
			return strings.TrimSpace(driver), nil
		}
	}
	return "", nil
}

// explainBuildx returns the error for what docker buildx has said, without the
// usage that docker prints if the plugin is missing.
func explainBuildx(stderr string) error {
	said, _, _ := strings.Cut(strings.TrimSpace(stderr), "\n")
	if strings.Contains(said, "unknown flag: --builder") || strings.Contains(said, "'buildx' is not a docker command") || strings.Contains(said, "unknown command: docker buildx") {
		return errors.New("docker has no buildx: install the package docker-buildx-plugin (Debian: docker-buildx)")
	}
	return errors.New(said)
}

// remoteAddress returns the address of a docker buildx builder with the remote
// driver, and "" for others. Without it, all files would pass through docker
// buildx, which takes half a second for a disk of 100 MB.
func remoteAddress(builder string) string {
	dir := cmp.Or(os.Getenv("BUILDX_CONFIG"), filepath.Join(config.Dir(), "buildx"))
	data, err := os.ReadFile(filepath.Join(dir, "instances", filepath.Base(builder)))
	if err != nil {
		return ""
	}
	var instance struct {
		Driver string
		Nodes  []struct {
			Endpoint   string
			DriverOpts map[string]string // for example certificates
		}
	}
	if json.Unmarshal(data, &instance) != nil || instance.Driver != "remote" || len(instance.Nodes) != 1 || len(instance.Nodes[0].DriverOpts) > 0 {
		return ""
	}
	return instance.Nodes[0].Endpoint
}
