package client

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"strings"

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
	if builder == "" {
		builder = os.Getenv("BUILDKIT_HOST")
	}
	var options []client.ClientOpt
	address := builder
	if !strings.Contains(builder, "://") {
		// Buildx alone knows how each of its drivers is reached, and starts a
		// builder that does not run.
		address = ""
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
