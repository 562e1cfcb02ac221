// Slipway-frontend is the entry point of the frontend image: BuildKit starts
// it for a file that names the image in its "# syntax=" line, and speaks the
// gateway protocol over its standard input and output.
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
