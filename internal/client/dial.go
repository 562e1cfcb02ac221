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

// Dial connects to a BuildKit daemon: at an address such as
// unix:///run/buildkit/buildkitd.sock or tcp://HOST:PORT, or behind a docker
// buildx builder of that name. Without either it takes the address in
// BUILDKIT_HOST, else buildx's current builder.
func Dial(ctx context.Context, builder string) (*client.Client, error) {
	builder = cmp.Or(builder, os.Getenv("BUILDKIT_HOST"), os.Getenv("BUILDX_BUILDER"))
	var options []client.ClientOpt
	address := builder
	if !strings.Contains(builder, "://") {
		address = remote(builder)
	}
	if address == "" {
		// Buildx alone knows how each of its drivers is reached, and starts a
		// builder that does not run.
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
		return nil, fmt.Errorf("%s does not answer: %w; name a builder of docker buildx with --builder, or set BUILDKIT_HOST to the address of buildkitd, such as unix:///run/buildkit/buildkitd.sock",
			cmp.Or(builder, "the current builder of docker buildx"), err)
	}
	return c, nil
}

// remote gives the address of a buildx builder that is nothing but an address:
// all that is built would else pass through docker buildx, at half a second for
// a disk of 100 MB. Other builders have none.
func remote(builder string) string {
	dir := cmp.Or(os.Getenv("BUILDX_CONFIG"), filepath.Join(config.Dir(), "buildx"))
	data, err := os.ReadFile(filepath.Join(dir, "instances", filepath.Base(builder)))
	if err != nil {
		return ""
	}
	var instance struct {
		Driver string
		Nodes  []struct {
			Endpoint   string
			DriverOpts map[string]string // certificates, mostly
		}
	}
	if json.Unmarshal(data, &instance) != nil || instance.Driver != "remote" || len(instance.Nodes) != 1 || len(instance.Nodes[0].DriverOpts) > 0 {
		return ""
	}
	return instance.Nodes[0].Endpoint
}
