package client

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/connhelper/commandconn"
	"github.com/moby/buildkit/client"
	_ "github.com/moby/buildkit/client/connhelper/dockercontainer" // docker-container://
	_ "github.com/moby/buildkit/client/connhelper/kubepod"         // kube-pod://
	_ "github.com/moby/buildkit/client/connhelper/nerdctlcontainer"
	_ "github.com/moby/buildkit/client/connhelper/podmancontainer"
	_ "github.com/moby/buildkit/client/connhelper/ssh"
)

// Dial connects to a BuildKit daemon. The builder is an address, for example
// unix:///run/buildkit/buildkitd.sock or tcp://HOST:PORT, or the name of a
// docker buildx builder. If it is empty, Dial uses the address in BUILDKIT_HOST,
// or else the current builder of docker buildx.
func Dial(ctx context.Context, builder string) (*client.Client, error) {
	builder = cmp.Or(builder, os.Getenv("BUILDKIT_HOST"), os.Getenv("BUILDX_BUILDER"))
	var options []client.ClientOpt
	address := builder
	if !strings.Contains(builder, "://") {
		address = remoteAddress(builder)
	}
	if address == "" {
		// Only docker buildx can reach a builder of any driver. It also starts one
		// that does not run.
		options = append(options, client.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			args := []string{"buildx", "dial-stdio"}
			if builder != "" {
				args = append(args, "--builder", builder)
			}
			return commandconn.New(ctx, "docker", args...)
		}))
	}
	c, err := client.New(ctx, address, options...)
	if err != nil {
		return nil, err
	}
	if _, err := c.Info(ctx); err != nil {
		c.Close()
		return nil, fmt.Errorf("%s does not answer: %w; pass --builder with the name of a docker buildx builder, or set BUILDKIT_HOST to the address of buildkitd, for example unix:///run/buildkit/buildkitd.sock",
			cmp.Or(builder, "the current builder of docker buildx"), err)
	}
	return c, nil
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
