// Command slipway-frontend is the entrypoint of the frontend image. BuildKit starts
// it for a file whose "# syntax=" line names the image. They use BuildKit's gateway
// protocol over standard input and output.
package main

import (
	"fmt"
	"os"

	"github.com/moby/buildkit/frontend/gateway/grpcclient"
	"github.com/moby/buildkit/util/appcontext"
	_ "github.com/moby/buildkit/util/grpcutil/encoding/proto" // the gateway's codec

	"github.com/slipway-build/slipway/frontend"
)

func main() {
	if err := grpcclient.RunFromEnvironment(appcontext.Context(), frontend.Build); err != nil {
		fmt.Fprintln(os.Stderr, "slipway-frontend:", err)
		os.Exit(1)
	}
}
